//! The reset ladder: a function is stopped and reset by one method after the other until it is proved to be as before it was lent.
//! Nothing of it waits without a limit, and what was tried, how long it took and what was found is a value.

mod bounded;
mod power;
mod proof;
mod registers;
mod report;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pellucid_partition::{Bdf, step};

use crate::inventory::Function;
use crate::transport::{IrqKind, Transport};

use bounded::{Outcome, bounded};
use registers::Registers;
pub(crate) use registers::stop;
pub use report::{Check, Finding, ResetAct, ResetOutcome, ResetReport, ResetStep};

/// How a function is reset and proved.
///
/// ```
/// # fn show(function: &pellucid_passthrough::Function, transport: std::sync::Arc<dyn pellucid_passthrough::Transport>) {
/// let report = pellucid_passthrough::ResetLadder::of(function).climb(&transport);
/// println!("{report}");
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ResetLadder<'f> {
    function: &'f Function,
    sysfs: Option<PathBuf>,
    ours: Vec<Bdf>,
    limit: Duration,
    answer: Duration,
}

impl<'f> ResetLadder<'f> {
    /// For that function, alone.
    #[must_use]
    pub fn of(function: &'f Function) -> ResetLadder<'f> {
        ResetLadder {
            function,
            sysfs: None,
            ours: vec![function.bdf],
            limit: RESET_LIMIT,
            answer: ANSWER_LIMIT,
        }
    }

    /// Takes the proof from the function's directory in sysfs, where the kernel shows the registers themselves; VFIO serves some from a copy.
    #[must_use]
    pub fn seen_at(self, sysfs: &Path) -> ResetLadder<'f> {
        ResetLadder {
            sysfs: Some(sysfs.to_owned()),
            ..self
        }
    }

    /// These functions are held by the caller and at rest, so that a hot reset may reset them too.
    #[must_use]
    pub fn together_with(mut self, others: impl IntoIterator<Item = Bdf>) -> ResetLadder<'f> {
        self.ours.extend(others);
        self
    }

    /// Gives each act that long instead of 70 s (the kernel itself waits 60 s for a function that was reset).
    #[must_use]
    pub fn limited_to(self, limit: Duration) -> ResetLadder<'f> {
        ResetLadder { limit, ..self }
    }

    /// Waits that long, instead of 1 s (PCI Express 4.0, 6.6.1), for a function to answer after a reset.
    #[must_use]
    pub fn answering_within(self, answer: Duration) -> ResetLadder<'f> {
        ResetLadder { answer, ..self }
    }

    /// Stops the function, then resets it until it is proved, or no method is left.
    ///
    /// A function that has no reset method at all is proved as it stands, and the report says so. After an act that did not end in its
    /// time nothing more is tried: the device is in the hands of that act.
    pub fn climb(&self, transport: &Arc<dyn Transport>) -> ResetReport {
        let mut climb = Climb {
            ladder: self,
            transport,
            report: ResetReport::new(self.function.bdf),
        };
        if climb.act(ResetAct::Quiesce, by(ResetAct::Quiesce)).is_none() {
            return climb.report;
        }
        let rungs = [ResetAct::Function, ResetAct::Power, ResetAct::Hot];
        let mut tried = false;
        for rung in rungs {
            if let Err(why) = climb.available(rung) {
                climb.note(rung, None, Duration::ZERO, ResetOutcome::Absent { why });
                continue;
            }
            tried = true;
            match climb.act(rung, by(rung)) {
                Some(true) => {}
                Some(false) => continue,
                None => return climb.report,
            }
            if climb.prove() || climb.report.is_stuck() {
                return climb.report;
            }
        }
        if !tried {
            climb.prove();
        }
        climb.report
    }

    /// Proves the function as it stands; nothing is reset.
    pub fn inspect(&self, transport: &Arc<dyn Transport>) -> ResetReport {
        let mut climb = Climb {
            ladder: self,
            transport,
            report: ResetReport::new(self.function.bdf),
        };
        if climb.act(ResetAct::Quiesce, by(ResetAct::Quiesce)).is_some() {
            climb.prove();
        }
        climb.report
    }
}

/// One climb under way.
struct Climb<'c> {
    ladder: &'c ResetLadder<'c>,
    transport: &'c Arc<dyn Transport>,
    report: ResetReport,
}

impl Climb<'_> {
    /// Whether there is such a method, or why not.
    fn available(&self, rung: ResetAct) -> Result<(), String> {
        let methods = &self.ladder.function.reset_methods;
        match rung {
            ResetAct::Quiesce => Ok(()),
            ResetAct::Function if self.transport.resettable() => Ok(()),
            ResetAct::Function => Err("the function cannot be reset alone".to_owned()),
            ResetAct::Power => {
                if methods.first().is_some_and(|first| first == "pm") && self.transport.resettable() {
                    return Err("it was the function's reset".to_owned());
                }
                if !methods.is_empty() && !methods.iter().any(|method| method == "pm") {
                    return Err("the kernel does not trust it for this function".to_owned());
                }
                let transport = Arc::clone(self.transport);
                match bounded(self.ladder.limit, move || power::find(transport.as_ref())) {
                    Outcome::Ended(found) => found.map(|_| ()),
                    Outcome::Late => Err("its configuration space is not read in time".to_owned()),
                }
            }
            ResetAct::Hot => self.whole_scope_is_ours(),
        }
    }

    fn whole_scope_is_ours(&self) -> Result<(), String> {
        let scope = self.transport.reset_scope().map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => "there is none for this function".to_owned(),
            _ => format!("what it would reset is not told: {error}"),
        })?;
        let strangers: Vec<String> = scope
            .iter()
            .filter(|function| !self.ladder.ours.contains(function))
            .map(Bdf::to_string)
            .collect();
        match strangers.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "it would also reset {}, which is not ours or still in use",
                strangers.join(", ")
            )),
        }
    }

    /// Does it, within the limit. `Some`: whether it succeeded. `None`: it has not ended, or there is no going on.
    fn act(&mut self, act: ResetAct, how: How) -> Option<bool> {
        let transport = Arc::clone(self.transport);
        let begun = Instant::now();
        let name = if act == ResetAct::Quiesce { "stop" } else { "reset" };
        let ended = bounded(self.ladder.limit, move || step(name, || how(transport.as_ref())));
        let (outcome, goes_on) = match ended {
            Outcome::Ended(Ok(())) => (ResetOutcome::Done, Some(true)),
            // What cannot be stopped may be after a reset.
            Outcome::Ended(Err(refused)) => (refused, Some(false)),
            Outcome::Late => (ResetOutcome::TimedOut, None),
        };
        let kernels = &self.ladder.function.reset_methods;
        let method = kernels.first().filter(|_| act == ResetAct::Function).cloned();
        self.note(act, method, begun.elapsed(), outcome);
        goes_on
    }

    /// Looks whether all is well. What is not makes the last step one that proved nothing.
    fn prove(&mut self) -> bool {
        let registers = Registers::new(Arc::clone(self.transport), self.ladder.sysfs.clone());
        let (function, answer) = (self.ladder.function.clone(), self.ladder.answer);
        let begun = Instant::now();
        let proof = move || {
            // A reset leaves some functions as their firmware wants them.
            quiesce(registers.transport())?;
            Ok::<_, String>(proof::look(&registers, &function, answer))
        };
        let proof = match bounded(self.ladder.limit, proof) {
            Outcome::Ended(Ok(findings)) => findings,
            Outcome::Ended(Err(why)) => vec![Finding::fault(Check::Stops, why)],
            Outcome::Late => {
                self.note(ResetAct::Quiesce, None, begun.elapsed(), ResetOutcome::TimedOut);
                return false;
            }
        };
        self.report.proof = proof;
        self.report.proof_us = micros(begun.elapsed());
        let fault = self.report.first_fault();
        if let (Some(why), Some(step)) = (&fault, self.report.steps.last_mut())
            && step.act != ResetAct::Quiesce
            && step.outcome == ResetOutcome::Done
        {
            step.outcome = ResetOutcome::Unproved { why: why.clone() };
        }
        fault.is_none()
    }

    fn note(&mut self, act: ResetAct, method: Option<String>, took: Duration, outcome: ResetOutcome) {
        self.report.steps.push(ResetStep {
            act,
            method,
            took_us: micros(took),
            outcome,
        });
    }
}

/// An act of a rung; what became of it, if it did not succeed.
type How = fn(&dyn Transport) -> Result<(), ResetOutcome>;

/// How a rung is climbed.
fn by(rung: ResetAct) -> How {
    match rung {
        ResetAct::Quiesce => |transport| quiesce(transport).map_err(failed),
        ResetAct::Function => |transport| transport.reset().map_err(refused),
        ResetAct::Power => |transport| power::cycle(transport).map_err(failed),
        ResetAct::Hot => |transport| transport.hot_reset().map_err(refused),
    }
}

fn failed(why: String) -> ResetOutcome {
    ResetOutcome::Failed { why }
}

/// The kernel does not wait for a function that it is changing the driver of (`pci_try_reset_function` of Linux).
fn refused(error: io::Error) -> ResetOutcome {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => ResetOutcome::Busy,
        _ => failed(error.to_string()),
    }
}

/// Turns memory, I/O and bus master off and the line away, and disconnects every interrupt.
pub(crate) fn quiesce(transport: &dyn Transport) -> Result<(), String> {
    registers::stop(transport).map_err(|error| error.to_string())?;
    for kind in [
        IrqKind::Msix,
        IrqKind::Msi,
        IrqKind::Intx,
        IrqKind::Error,
        IrqKind::Request,
    ] {
        if transport.irq(kind).count > 0
            && let Err(error) = transport.unwire(kind)
        {
            // Disabling what was not enabled is refused by some kernels, and harmless; the proof sees what is enabled still.
            tracing::debug!(?kind, %error, "not unwired");
        }
    }
    Ok(())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// `PCIE_RESET_READY_POLL_MS` of the kernel is 60 s.
const RESET_LIMIT: Duration = Duration::from_secs(70);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
