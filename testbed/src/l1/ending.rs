//! How a machine, or the wait for its answer, ends; and what is said about it.

use std::fs;
use std::time::{Duration, Instant};

use crate::L1Error;
use crate::l1::L1;
use crate::l1::channel::Event;
use crate::l1::fault::{self, Fault};
use crate::setup::program::last_lines;
use crate::stale::Watch;

impl L1 {
    /// Whether the machine's agent answers within `limit`.
    pub fn answers(&mut self, limit: Duration) -> bool {
        self.jobs += 1;
        let id = format!("ping-{}", self.jobs);
        self.tell(&format!("ping {id}")).is_ok()
            && self.await_answer(&format!("pong {id}"), limit) == Answer::Came
    }

    /// Waits for the control line `line`; what comes on the other channels is dropped.
    pub(crate) fn await_answer(&mut self, line: &str, limit: Duration) -> Answer {
        let deadline = Instant::now() + limit;
        loop {
            match self
                .channels
                .next(deadline.saturating_duration_since(Instant::now()))
            {
                Some(Event::Control(found)) if found == line => return Answer::Came,
                Some(Event::Closed) => return Answer::Ended,
                Some(_) => {}
                None => return Answer::Silence,
            }
        }
    }

    pub(crate) fn wait_for_end(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if !matches!(self.emulator.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Why the machine is gone, from the emulator's last words and the kernel's.
    pub(crate) fn ended(&mut self, during: &str) -> L1Error {
        self.keep = true;
        self.wait_for_end(Duration::from_secs(10));
        let status = self.emulator.try_wait().ok().flatten();
        let emulator = self.log("emulator.log");
        let console = self.log("console.log");
        let fault = fault::in_logs(&emulator, &console).or(status.and_then(fault::crash));
        let status = status.map_or("its channels closed".to_owned(), |status| status.to_string());
        let detail = match fault::last_sign(&console) {
            Some(sign) => sign.to_owned(),
            None if emulator.trim().is_empty() => last_lines(&console, 4),
            None => last_lines(&emulator, 3),
        };
        L1Error::Ended {
            during: during.to_owned(),
            status,
            detail,
            log: self.console_log(),
            fault,
        }
    }

    /// The machine does not answer: says what it was last seen doing.
    pub(crate) fn hung(&mut self, during: &str, limit: Duration) -> L1Error {
        self.keep = true;
        let console = self.log("console.log");
        let spinning = fault::is_spinning(self.emulator.id());
        let fault = fault::in_logs(&self.log("emulator.log"), &console)
            .or(self.fault_seen())
            .or(Some(Fault::Hang { spinning }));
        let detail = format!("last on the console: {}", last_lines(&console, 3));
        L1Error::Hung {
            during: during.to_owned(),
            limit,
            detail,
            log: self.console_log(),
            fault,
        }
    }

    /// The fault of the emulator that showed in a silence since [`L1::silences`] was asked, or that the kernel tells of again and again.
    pub(crate) fn fault_seen(&self) -> Option<Fault> {
        let watched = self.watch.as_ref().and_then(Watch::fault);
        watched.or_else(|| fault::dead_timer(&self.console()))
    }

    /// What the CPUs did in the longest silence since this was asked before, and the fault of the emulator that showed in any.
    pub(crate) fn silences(&self) -> (Vec<String>, Option<Fault>) {
        self.watch.as_ref().map(Watch::seen).unwrap_or_default()
    }

    /// What the kernel wrote to its console so far.
    pub(crate) fn console(&self) -> String {
        self.log("console.log")
    }

    fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for L1 {
    /// The emulator first, then, if nothing went wrong, the folder it used.
    fn drop(&mut self) {
        self.watch = None;
        if matches!(self.emulator.try_wait(), Ok(None)) {
            if let Some(process) = rustix::process::Pid::from_raw(self.emulator.id().cast_signed()) {
                let _gone_already = rustix::process::kill_process(process, rustix::process::Signal::TERM);
            }
            if !self.wait_for_end(Duration::from_secs(5)) {
                let _gone_already = self.emulator.kill();
            }
            let _reaped = self.emulator.wait();
        }
        if !self.keep {
            let _left_behind = fs::remove_dir_all(&self.folder);
        }
    }
}

/// What came of waiting for a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Came,
    Silence,
    Ended,
}
