//! A job under way in the machine, with its guard.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::L1Error;
use crate::l1::channel::{EndMark, Event};
use crate::l1::fault;
use crate::l1::{Job, L1};
use crate::setup::program::last_lines;

/// One of a job's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
}

/// What comes next from a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It wrote something.
    Output(Stream, Vec<u8>),
    /// Nothing within the time given.
    Quiet,
    /// It ended with this status; 128 and the signal's number if a signal ended it.
    Ended(i32),
}

/// What a job that ran to its end left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit status; 128 and the signal's number if a signal ended it.
    pub status: i32,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

/// A job that runs. Dropped before its end, it is killed.
#[derive(Debug)]
pub struct Running<'l1> {
    l1: &'l1 mut L1,
    id: String,
    title: String,
    begun: Instant,
    guard: Duration,
    silence: Duration,
    heard: Instant,
    input: Option<UnixStream>,
    marks: [Option<EndMark>; 2],
    status: Option<i32>,
    finished: bool,
}

impl<'l1> Running<'l1> {
    pub(crate) fn new(l1: &'l1 mut L1, job: &Job, id: String, input: Option<UnixStream>) -> Self {
        let marks = [Some(EndMark::of(&id)), Some(EndMark::of(&id))];
        let begun = Instant::now();
        Self {
            l1,
            id,
            title: job.title(),
            begun,
            guard: job.limit(),
            silence: job.longest_silence(),
            heard: begun,
            input,
            marks,
            status: None,
            finished: false,
        }
    }

    /// The job's input, if it has one that is still open. A clone of it may be written
    /// to from another thread.
    pub fn input(&mut self) -> Option<&mut UnixStream> {
        self.input.as_mut()
    }

    /// Ends the job's input.
    pub fn close_input(&mut self) {
        if let Some(input) = self.input.take() {
            let _closed_already = input.shutdown(Shutdown::Write);
        }
    }

    /// What comes next within `limit`.
    ///
    /// # Errors
    /// The machine ended, or the job's guard expired.
    pub fn next(&mut self, limit: Duration) -> Result<Next, L1Error> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.status
                && self.marks.iter().all(Option::is_none)
            {
                self.finished = true;
                return Ok(Next::Ended(status));
            }
            let now = Instant::now();
            let deadline = (self.begun + self.guard).min(self.heard + self.silence);
            if now >= deadline {
                return Err(self.guard_expired());
            }
            let wait = until
                .min(deadline)
                .saturating_duration_since(now)
                .min(BETWEEN_LOOKS);
            match self.l1.channels.next(wait) {
                // Nothing comes of waiting for that.
                None if self.l1.fault_seen().is_some() => {
                    self.finished = true;
                    return Err(self
                        .l1
                        .hung(&format!("`{}` ran", self.title), self.begun.elapsed()));
                }
                None if Instant::now() >= until => return Ok(Next::Quiet),
                None => {}
                Some(Event::Closed) => {
                    self.finished = true;
                    return Err(self.l1.ended(&format!("`{}` ran", self.title)));
                }
                Some(event) => {
                    if let Some((stream, bytes)) = self.sort(event) {
                        self.heard = Instant::now();
                        return Ok(Next::Output(stream, bytes));
                    }
                }
            }
        }
    }

    /// Ends all of the job's tasks; `next` tells when they are gone.
    ///
    /// # Errors
    /// The machine is gone.
    pub fn kill(&mut self) -> Result<(), L1Error> {
        let line = format!("kill {}", self.id);
        self.l1.tell(&line)
    }

    /// Takes an event; returns the output in it that is the job's.
    fn sort(&mut self, event: Event) -> Option<(Stream, Vec<u8>)> {
        match event {
            Event::Control(line) => {
                let status = line.strip_prefix(&format!("exit {} ", self.id));
                self.status = self.status.or(status.and_then(|status| status.parse().ok()));
                None
            }
            Event::Output(stream, bytes) => {
                let slot = &mut self.marks[usize::from(stream == Stream::Stderr)];
                let (output, ended) = slot.as_mut()?.pass(&bytes);
                if ended {
                    *slot = None;
                }
                (!output.is_empty()).then_some((stream, output))
            }
            Event::Closed => None,
        }
    }

    /// Asks the machine where the job stands, then ends the job. A machine that does
    /// not answer hangs itself.
    fn guard_expired(&mut self) -> L1Error {
        self.finished = true;
        let limit = self.begun.elapsed();
        let during = format!("`{}` ran", self.title);
        let Some(place) = self.place_of_hang() else {
            return self.l1.hung(&during, limit);
        };
        let killed = self.kill().is_ok();
        if !killed || !self.ends_within(Duration::from_secs(20)) {
            return self.l1.hung(&format!("{during} and was to be killed"), limit);
        }
        self.l1.keep_folder();
        let fault = fault::stall(&self.l1.console(), &place).or(self.l1.fault_seen());
        let detail = if place.is_empty() {
            "no task was left".to_owned()
        } else {
            last_lines(&place, 24)
        };
        let log = self.l1.console_log();
        L1Error::Hung {
            during,
            limit,
            detail,
            log,
            fault,
        }
    }

    /// Whether the machine says that the job ended. Its outputs end on channels of their own, perhaps later: what is left in
    /// them would be taken for the next job's, so their ends are waited for too.
    fn ends_within(&mut self, limit: Duration) -> bool {
        let mut deadline = Instant::now() + limit;
        while self.status.is_none() || self.marks.iter().any(Option::is_some) {
            let had_ended = self.status.is_some();
            match self
                .l1
                .channels
                .next(deadline.saturating_duration_since(Instant::now()))
            {
                Some(Event::Closed) | None => break,
                Some(event) => drop(self.sort(event)),
            }
            if self.status.is_some() && !had_ended {
                deadline = Instant::now() + Duration::from_secs(2);
            }
        }
        self.status.is_some()
    }

    /// What the agent says about the job's tasks; nothing if it does not answer.
    fn place_of_hang(&mut self) -> Option<String> {
        self.l1.tell(&format!("where {}", self.id)).ok()?;
        let told = format!("told {}", self.id);
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut place = Vec::new();
        loop {
            match self
                .l1
                .channels
                .next(deadline.saturating_duration_since(Instant::now()))?
            {
                Event::Control(line) if line == told => break,
                Event::Output(Stream::Stderr, bytes) => place.extend(bytes),
                Event::Closed => return None,
                _ => {}
            }
        }
        // The rest of it; who babbles on is not listened to for long.
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline
            && let Some(Event::Output(_, bytes)) = self.l1.channels.next(Duration::from_millis(300))
        {
            place.extend(bytes);
        }
        Some(String::from_utf8_lossy(&place).into_owned())
    }
}

impl Drop for Running<'_> {
    /// A job left alone is ended, so that the next one finds the machine free.
    fn drop(&mut self) {
        if self.finished || self.kill().is_err() {
            return;
        }
        self.ends_within(Duration::from_secs(20));
    }
}

/// How soon a fault that was seen ends what waits.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
