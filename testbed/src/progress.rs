//! Progress of long steps: a spinner on a terminal, plain lines elsewhere.
//! The one place of the testbed's library that writes to standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Where the steps of a set-up or a run are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A spinner that is wiped when its step ends.
    Spinner,
    /// One plain line when a step begins and one when it took noticeable time.
    Lines,
    /// Nothing at all.
    Quiet,
}

impl Progress {
    /// A spinner if standard error is a terminal, plain lines if not.
    pub fn detect() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Spinner
        } else {
            Self::Lines
        }
    }

    /// Shows `text` until the returned step is dropped.
    pub fn step(self, text: impl Into<String>) -> Step {
        let text = text.into();
        let bar = match self {
            Self::Spinner => {
                let bar = ProgressBar::new_spinner().with_style(spinner_style());
                bar.set_message(text.clone());
                bar.enable_steady_tick(Duration::from_millis(120));
                Some(bar)
            }
            Self::Lines => {
                eprintln!("testbed: {text} ...");
                None
            }
            Self::Quiet => None,
        };
        Step {
            progress: self,
            text,
            bar,
            began: Instant::now(),
        }
    }

    /// Shows one line.
    pub fn say(self, text: impl AsRef<str>) {
        if self != Self::Quiet {
            eprintln!("testbed: {}", text.as_ref());
        }
    }
}

/// A step under way; it ends when this is dropped.
#[derive(Debug)]
pub struct Step {
    progress: Progress,
    text: String,
    bar: Option<ProgressBar>,
    began: Instant,
}

impl Step {
    /// Replaces what the spinner says; plain lines stay as they are.
    pub fn now(&self, text: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.into());
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let took = self.began.elapsed();
        if self.progress == Progress::Lines && took > Duration::from_secs(5) {
            eprintln!("testbed: {}: {:.0} s", self.text, took.as_secs_f64());
        }
    }
}

fn spinner_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} testbed: {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}
