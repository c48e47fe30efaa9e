//! CPUs that cannot be held as asked.

use std::io;
use std::path::PathBuf;

use crate::error::ClaimError;

/// A partition's CPUs could not be held on the terms asked for. What was held before still is.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// A service ratio outside the range.
    #[error("a weight of {asked} is outside 1 to 10000; 100 is what everybody else has")]
    Weight {
        /// What was given.
        asked: String,
    },
    /// A cap outside the range.
    #[error(
        "a cap of {asked} is not a percentage of one CPU from 1 up, with at most two decimals (40, 12.5, 250)"
    )]
    Cap {
        /// What was given.
        asked: String,
    },
    /// A priority outside the range.
    #[error("a real-time priority of {asked} is outside 1 to 99")]
    Priority {
        /// What was given.
        asked: u8,
    },
    /// A name that cannot name a control group.
    #[error(
        "{name:?} cannot name a group of partitions; use 1 to 64 letters, digits, '-', '_' or '.', beginning with a letter or digit"
    )]
    GroupName {
        /// What was given.
        name: String,
    },
    /// No CPU can be weighed or capped here.
    #[error("shared CPUs have no weight, cap or group here: {reason}")]
    NoControl {
        /// Why, and what would help.
        reason: String,
    },
    /// The control group tree refused a step.
    #[error("control group {path}: {act}: {source}", path = path.display())]
    Tree {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        act: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A vCPU could not be put on its CPU.
    #[error("vCPU {vcpu} could not be put on CPU {cpu}: {source}; is it online and allowed?")]
    Affinity {
        /// The vCPU.
        vcpu: u32,
        /// Its CPU.
        cpu: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel took the affinity and did not keep it.
    #[error(
        "vCPU {vcpu} was put on CPU {cpu}, but the kernel lets it run on {got}; who else changes affinities?"
    )]
    NotPinned {
        /// The vCPU.
        vcpu: u32,
        /// Its CPU.
        cpu: usize,
        /// Where it may run, as a list of ranges.
        got: String,
    },
    /// Real-time scheduling was refused.
    #[error(
        "vCPU {vcpu} cannot have real-time priority {priority}: {source}; raise RLIMIT_RTPRIO (ulimit -r) or run as root"
    )]
    Realtime {
        /// The vCPU.
        vcpu: u32,
        /// The priority.
        priority: u8,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Dedicated CPUs must be as many as there are vCPUs.
    #[error("{vcpus} vCPUs cannot be dedicated to {cpus} CPUs; name one CPU for each vCPU")]
    Count {
        /// vCPUs there are.
        vcpus: usize,
        /// CPUs given.
        cpus: usize,
    },
    /// A claim was not granted or not given back.
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

impl From<CpuError> for ClaimError {
    fn from(error: CpuError) -> Self {
        match error {
            CpuError::Claim(error) => error,
            other => Self::Cpus(Box::new(other)),
        }
    }
}
