//! What was tried on a function, how long it took, and what was found.

use std::fmt;

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

/// The evidence: every step in order, and the last proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a report may say that the function is not well"]
pub struct ResetReport {
    /// The function.
    pub device: Bdf,
    /// What was done, or could not be.
    pub steps: Vec<ResetStep>,
    /// What was looked at after the last reset; empty: it did not come to that.
    pub proof: Vec<Finding>,
    /// How long looking took, waiting for an answer among it, in microseconds.
    pub proof_us: u64,
}

/// One thing tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetStep {
    /// What.
    pub act: ResetAct,
    /// The kernel's name for its method, where it chose one (`flr`, `pm`, `bus`, ...).
    pub method: Option<String>,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// What became of it.
    pub outcome: ResetOutcome,
}

/// The rungs of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetAct {
    /// Decoding, bus master and interrupts off.
    Quiesce,
    /// The reset that the kernel prefers for the function: function level reset where it has one.
    Function,
    /// Out of power state D0 and back.
    Power,
    /// Everything behind the function's bridge.
    Hot,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetOutcome {
    /// Done; what was proved after it, if anything, stands in the report.
    Done,
    /// There is no such reset here.
    Absent {
        /// Why.
        why: String,
    },
    /// It was refused.
    Failed {
        /// By whom or what.
        why: String,
    },
    /// The kernel is changing the function's driver meanwhile (the host wants it back), and resets it only after that.
    Busy,
    /// It had not ended in its time, and goes on.
    TimedOut,
    /// Done, and the function was not well after it.
    Unproved {
        /// What was wrong.
        why: String,
    },
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub check: Check,
    /// What is wrong with it; None: well.
    pub fault: Option<String>,
}

/// What a proof looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// It does not answer all ones.
    Answers,
    /// Its ids and class are its own.
    Identity,
    /// Its BARs are where the host has put them.
    Bars,
    /// MSI and MSI-X are off.
    Messages,
    /// Its interrupt line is quiet.
    Line,
    /// Decoding and bus master are off.
    Stops,
}

impl ResetReport {
    pub(super) fn new(device: Bdf) -> ResetReport {
        ResetReport {
            device,
            steps: Vec::new(),
            proof: Vec::new(),
            proof_us: 0,
        }
    }

    /// Whether everything looked at is as it was before the function was lent.
    #[must_use]
    pub fn is_well(&self) -> bool {
        !self.proof.is_empty() && self.first_fault().is_none() && !self.is_stuck()
    }

    /// Whether an act had not ended in its time: whoever reaches for the device now may hang too.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.steps
            .iter()
            .any(|step| step.outcome == ResetOutcome::TimedOut)
    }

    /// Whether a reset was refused only because the kernel is changing the function's driver: once closed, it can be reset.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.is_well() && self.steps.iter().any(|step| step.outcome == ResetOutcome::Busy)
    }

    /// The reset after which it was proved; None: none, though it may be well.
    #[must_use]
    pub fn reset_by(&self) -> Option<&ResetStep> {
        let resets = self.steps.iter().rev();
        let mut done =
            resets.filter(|step| step.act != ResetAct::Quiesce && step.outcome == ResetOutcome::Done);
        done.next().filter(|_| self.is_well())
    }

    /// What keeps the function from being lent or given back, in one line; None: it is well.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.is_well() {
            return None;
        }
        let told = |step: &ResetStep| match &step.outcome {
            ResetOutcome::Done => None,
            ResetOutcome::Absent { .. } => None,
            ResetOutcome::Failed { why } | ResetOutcome::Unproved { why } => {
                Some(format!("{}: {why}", step.name()))
            }
            ResetOutcome::Busy => Some(format!("{}: the host is taking its driver", step.name())),
            ResetOutcome::TimedOut => Some(format!(
                "{}: no end after {} ms",
                step.name(),
                step.took_us / 1_000
            )),
        };
        let mut told: Vec<String> = self.steps.iter().filter_map(told).collect();
        let unresettable = told.is_empty();
        told.extend(self.first_fault().filter(|_| unresettable));
        Some(told.join("; "))
    }

    /// The report of a later climb, with the steps of `earlier` before its own.
    pub(crate) fn after(mut self, earlier: ResetReport) -> ResetReport {
        self.steps.splice(0..0, earlier.steps);
        self
    }

    pub(super) fn first_fault(&self) -> Option<String> {
        self.proof.iter().find_map(|finding| finding.fault.clone())
    }
}

impl ResetStep {
    /// `reset by flr`, `reset by power state`, `hot reset`.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.act, &self.method) {
            (ResetAct::Quiesce, _) => "stopping it".to_owned(),
            (ResetAct::Function, Some(method)) => format!("reset by {method}"),
            (ResetAct::Function, None) => "its reset".to_owned(),
            (ResetAct::Power, _) => "reset by power state".to_owned(),
            (ResetAct::Hot, _) => "hot reset".to_owned(),
        }
    }
}

impl Finding {
    pub(super) fn fault(check: Check, fault: String) -> Finding {
        Finding {
            check,
            fault: Some(fault),
        }
    }
}

impl fmt::Display for ResetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device;
        match (self.fault(), self.reset_by()) {
            (Some(fault), _) => write!(f, "device {device}: not well: {fault}"),
            (None, Some(step)) => {
                let (name, took) = (step.name(), step.took_us / 1_000);
                write!(f, "device {device}: {name} in {took} ms, and well: ")?;
                self.write_checks(f)
            }
            (None, None) => {
                write!(f, "device {device}: not reset (it has no method), and well: ")?;
                self.write_checks(f)
            }
        }
    }
}

impl ResetReport {
    fn write_checks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.proof.iter().map(|finding| match finding.check {
            Check::Answers => "answers",
            Check::Identity => "ids",
            Check::Bars => "BARs",
            Check::Messages => "MSI off",
            Check::Line => "line quiet",
            Check::Stops => "bus master off",
        });
        write!(f, "{}", words.collect::<Vec<_>>().join(", "))
    }
}
