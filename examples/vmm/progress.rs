//! How guest memory comes on while a server starts, for who waits for it: a line that is written over on a terminal, else a line now and
//! then. What is done at once is not worth a word.

use std::io::{IsTerminal, stderr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pellucid::partition::Progress;
use pellucid::{MemoryStep, ProgressSink};

use crate::output;

/// Runs `start` and shows on standard error what it tells of its progress.
pub(crate) fn shown<T>(start: impl FnOnce(&ProgressSink) -> T) -> T {
    let place = match stderr().is_terminal() {
        true => Place::Terminal,
        false => Place::Log,
    };
    let shown = Arc::new(Mutex::new(Shown::at(place)));
    let told = Arc::clone(&shown);
    let sink: ProgressSink = Arc::new(move |step, progress| {
        let mut shown = told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = shown.text(step, progress) {
            output::err(format_args!("{text}"));
        }
    });
    let started = start(&sink);
    // A start that failed has left its line open.
    if std::mem::take(&mut shown.lock().unwrap_or_else(PoisonError::into_inner).open) {
        output::err(format_args!("\r\n"));
    }
    started
}

/// What has been shown of the step that is under way.
struct Shown {
    place: Place,
    said: Option<(MemoryStep, Duration)>,
    /// A line that is not ended yet.
    open: bool,
}

/// Where it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Terminal,
    Log,
}

impl Shown {
    fn at(place: Place) -> Self {
        Self {
            place,
            said: None,
            open: false,
        }
    }

    /// What is written now, if it is time for it.
    fn text(&mut self, step: MemoryStep, progress: Progress) -> Option<String> {
        let before = match self.said {
            Some((said, at)) if said == step && at <= progress.elapsed => Some(at),
            _ => None,
        };
        let ends = progress.done >= progress.total;
        let due = progress.elapsed >= before.unwrap_or_default() + self.place.pause();
        // An end is told of what was begun to be told, and of what took long all the same.
        let is_told = due || (ends && before.is_some());
        if !is_told {
            return None;
        }
        self.said = (!ends).then_some((step, progress.elapsed));
        let line = if ends {
            whole(step, &progress)
        } else {
            part(step, &progress)
        };
        self.open = self.place == Place::Terminal && !ends;
        Some(match self.place {
            Place::Terminal if ends => format!("\r{line}\x1b[K\r\n"),
            Place::Terminal => format!("\r{line}\x1b[K"),
            Place::Log => format!("{line}\r\n"),
        })
    }
}

impl Place {
    /// The time between two lines, and before the first.
    fn pause(self) -> Duration {
        match self {
            Self::Terminal => Duration::from_millis(100),
            Self::Log => Duration::from_secs(5),
        }
    }
}

fn part(step: MemoryStep, progress: &Progress) -> String {
    let left = progress
        .remaining()
        .map_or_else(String::new, |left| format!(", {:.0} s left", left.as_secs_f64()));
    let (done, total) = (in_gib(progress.done), in_gib(progress.total));
    format!(
        "vmm: {}: {done:.1} of {total:.1} GiB, {:.1} GiB/s{left}",
        name(step),
        in_gib(progress.rate())
    )
}

fn whole(step: MemoryStep, progress: &Progress) -> String {
    let (total, rate) = (in_gib(progress.total), in_gib(progress.rate()));
    let took = progress.elapsed.as_secs_f64();
    format!(
        "vmm: {}: {total:.1} GiB in {took:.1} s, {rate:.1} GiB/s",
        name(step)
    )
}

fn name(step: MemoryStep) -> &'static str {
    match step {
        MemoryStep::Populate => "populating guest memory",
        MemoryStep::Map => "mapping guest memory for DMA",
    }
}

fn in_gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many of four GiB at so many milliseconds.
    fn at(gib: u64, milliseconds: u64) -> Progress {
        Progress {
            done: gib << 30,
            total: 4 << 30,
            elapsed: Duration::from_millis(milliseconds),
        }
    }

    #[test]
    fn a_terminal_has_one_line_that_is_written_over_and_ended_by_the_sum() {
        let mut shown = Shown::at(Place::Terminal);
        assert_eq!(
            shown.text(MemoryStep::Map, at(1, 2000)).as_deref(),
            Some("\rvmm: mapping guest memory for DMA: 1.0 of 4.0 GiB, 0.5 GiB/s, 6 s left\x1b[K")
        );
        assert_eq!(shown.text(MemoryStep::Map, at(2, 2050)), None, "too soon");
        assert!(shown.text(MemoryStep::Map, at(3, 6000)).is_some() && shown.open);
        assert_eq!(
            shown.text(MemoryStep::Map, at(4, 6010)).as_deref(),
            Some("\rvmm: mapping guest memory for DMA: 4.0 GiB in 6.0 s, 0.7 GiB/s\x1b[K\r\n")
        );
        assert!(!shown.open);
    }

    #[test]
    fn what_is_done_at_once_is_not_told() {
        for place in [Place::Terminal, Place::Log] {
            let mut shown = Shown::at(place);
            assert_eq!(shown.text(MemoryStep::Populate, at(2, 40)), None);
            assert_eq!(shown.text(MemoryStep::Populate, at(4, 80)), None);
        }
    }

    #[test]
    fn a_log_has_a_line_every_five_seconds_and_the_sum_of_each_step_that_had_one() {
        let mut shown = Shown::at(Place::Log);
        let mut lines = |step| -> Vec<u64> {
            let told = (1..=4).filter(|gib| shown.text(step, at(*gib, gib * 3000)).is_some());
            told.collect()
        };
        assert_eq!(lines(MemoryStep::Populate), [2, 4]);
        assert_eq!(lines(MemoryStep::Map), [2, 4], "a step has a clock of its own");
        assert_eq!(lines(MemoryStep::Map), [2, 4], "also when it comes again");
    }
}
