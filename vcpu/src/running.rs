//! Running: each vCPU has a thread that is in the guest. They can be paused, resumed, metered and stopped, each within a bounded time.
//!
//! Dropped while running, it stops the vCPUs as `stop` does and waits at most five seconds for them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{StartError, StopError};
use crate::meter::{ExitCounts, Meter};
use crate::parked::Parked;
use crate::seat::{Events, Line, Report, Seat};
use crate::stop_word::Order;
use crate::stopped::{Stopped, StoppedVcpu};
use crate::sys::kick;

/// vCPUs at work.
///
/// What was stopped does not run again:
/// ```compile_fail,E0382
/// # fn stopped_twice(running: pellucid_vcpu::Running) {
/// let timeout = std::time::Duration::from_secs(1);
/// let stopped = running.stop(timeout);
/// let again = running.stop(timeout);
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it stops the vCPUs"]
pub struct Running {
    threads: Vec<VcpuThread>,
    reports: Receiver<Report>,
    ended: Vec<StoppedVcpu>,
    /// Pauses ordered so far: the last one's number, which tells its reports from those of earlier ones.
    pauses: u32,
    meter: Meter,
}

#[derive(Debug)]
struct VcpuThread {
    line: Arc<Line>,
    handle: JoinHandle<()>,
    state: State,
}

/// What the owner knows of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Paused,
    Ended,
}

impl Running {
    /// Starts a thread for each vCPU, lets all of them come to their places, and only then lets the guest begin.
    pub(crate) fn start(parked: Parked, events: Arc<Events>) -> Result<Self, StartError> {
        kick::install().map_err(|source| StartError::Signal {
            signal: kick::signal(),
            source,
        })?;
        let (seats, meter) = parked.into_seats();
        let (sender, reports) = channel();
        let mut running = Self {
            threads: Vec::new(),
            reports,
            ended: Vec::new(),
            pauses: 0,
            meter,
        };
        for seat in seats {
            running
                .threads
                .push(spawn(seat, Arc::clone(&events), sender.clone())?);
        }
        drop(sender);
        for _ in 0..running.threads.len() {
            // Bounded: every thread sends one of these first, and a channel whose senders are gone ends the wait.
            match running.reports.recv() {
                Ok(Report::Failed { vcpu, error }) => {
                    running.mark(vcpu, State::Ended);
                    return Err(error);
                }
                Ok(_) => {}
                Err(_) => return Err(StartError::Vanished),
            }
        }
        running.resume();
        Ok(running)
    }

    /// Takes every vCPU out of the guest, its pending I/O complete, and keeps it out until [`Running::resume`].
    pub fn pause(&mut self, timeout: Duration) -> Result<(), StopError> {
        self.pauses = self.pauses.wrapping_add(1) % MOST_PAUSES;
        let signalled = self.demand(Order::Pause(self.pauses), State::Paused);
        self.wait(timeout, signalled, |state| state != State::Running)
    }

    /// Lets paused vCPUs go on.
    pub fn resume(&mut self) {
        for thread in self
            .threads
            .iter_mut()
            .filter(|thread| thread.state != State::Ended)
        {
            thread.state = State::Running;
            thread.line.word.resume();
            thread.handle.thread().unpark();
        }
    }

    /// Stops every vCPU for good, its pending I/O complete.
    ///
    /// A handler that does not return keeps its vCPU from stopping: after `timeout` the error names each such vCPU and what it is in.
    /// Its thread then ends as soon as the handler returns.
    pub fn stop(mut self, timeout: Duration) -> Result<Stopped, StopError> {
        self.halt(timeout)?;
        let mut vcpus = std::mem::take(&mut self.ended);
        vcpus.sort_by_key(StoppedVcpu::index);
        Ok(Stopped {
            vcpus,
            meter: self.meter.clone(),
        })
    }

    /// Exits of every vCPU so far.
    #[must_use]
    pub fn exits(&self) -> Vec<ExitCounts> {
        self.meter.exits()
    }

    /// The counters, to be read from elsewhere and later.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    fn halt(&mut self, timeout: Duration) -> Result<(), StopError> {
        let signalled = self.demand(Order::Stop, State::Ended);
        let waited = self.wait(timeout, signalled, |state| state == State::Ended);
        let threads = std::mem::take(&mut self.threads);
        for thread in threads.into_iter().filter(|thread| thread.state == State::Ended) {
            // Its last report was its last act, and panics were caught before that.
            let _ = thread.handle.join();
        }
        waited
    }

    /// Gives `order` to all threads that are not in or past `reached`; an error is the last refused signal.
    fn demand(&self, order: Order, reached: State) -> Option<std::io::Error> {
        let mut refused = None;
        for thread in self
            .threads
            .iter()
            .filter(|t| t.state != reached && t.state != State::Ended)
        {
            thread.line.word.demand(
                order,
                || thread.line.page.raise(),
                || refused = kick::send(&thread.handle).err().or(refused.take()),
            );
            thread.handle.thread().unpark();
        }
        refused
    }

    /// Takes reports until all threads are where they should be.
    fn wait(
        &mut self,
        timeout: Duration,
        signal: Option<std::io::Error>,
        arrived: impl Fn(State) -> bool,
    ) -> Result<(), StopError> {
        let deadline = Instant::now() + timeout;
        while !self.threads.iter().all(|thread| arrived(thread.state)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(report) = self.reports.recv_timeout(left) else {
                let stuck = (0..)
                    .zip(&self.threads)
                    .filter(|(_, thread)| !arrived(thread.state));
                let vcpus = stuck
                    .map(|(vcpu, thread)| (vcpu, thread.line.gauge.place()))
                    .collect();
                return Err(StopError::Stuck {
                    timeout,
                    vcpus,
                    signal,
                });
            };
            self.note(report);
        }
        Ok(())
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Paused { vcpu, number } if number == self.pauses => self.mark(vcpu, State::Paused),
            Report::Failed { vcpu, .. } => self.mark(vcpu, State::Ended),
            Report::Ended(stopped) => {
                self.mark(stopped.index, State::Ended);
                self.ended.push(*stopped);
            }
            // An answer to a pause that is over.
            Report::Ready | Report::Paused { .. } => {}
        }
    }

    fn mark(&mut self, vcpu: u32, state: State) {
        if let Some(thread) = self.threads.get_mut(vcpu as usize) {
            thread.state = state;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.halt(DROP_TIMEOUT) {
            tracing::error!(%error, "vCPU threads are left behind");
        }
    }
}

fn spawn(seat: Seat, events: Arc<Events>, reports: Sender<Report>) -> Result<VcpuThread, StartError> {
    let (vcpu, line) = (seat.index, Arc::clone(&seat.line));
    let handle = Builder::new()
        .name(format!("vcpu{vcpu}"))
        .stack_size(STACK)
        .spawn(move || seat.occupy(events.as_ref(), &reports))
        .map_err(|source| StartError::Thread { vcpu, source })?;
    // It waits to be resumed for the first time.
    Ok(VcpuThread {
        line,
        handle,
        state: State::Paused,
    })
}

/// Numbers of pauses, as the stop word holds them.
const MOST_PAUSES: u32 = 1 << 30;
const DROP_TIMEOUT: Duration = Duration::from_secs(5);
/// Ample for the run loop and any handler. The usual 2 MiB is what a kernel backs by one huge page at the first touch.
const STACK: usize = 256 << 10;
