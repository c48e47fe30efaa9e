//! How well dedicated CPUs can be kept free of others here: told before anything is touched, and read back afterwards.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{CgroupTree, Group, Home};
use crate::error::CpuError;
use crate::inventory::list_text;

/// What keeps others off dedicated CPUs, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CpuIsolation {
    /// A cpuset partition that the scheduler does not balance: nobody else's tasks run there (Linux 6.1).
    Isolated,
    /// A cpuset partition: nobody else's tasks run there.
    Root,
    /// Affinity and claims only: partitions keep off each other, other tasks of the host do not.
    Affinity,
}

/// An isolation, and why it is not a stronger one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// What keeps others off.
    pub level: CpuIsolation,
    /// Why nothing stronger does; empty for the strongest.
    pub reason: String,
}

impl CgroupTree {
    /// What would keep others off `cpus` if they were dedicated now. Touches nothing.
    #[must_use]
    pub fn isolation(&self, cpus: &[usize]) -> Isolation {
        match Home::of(self) {
            Ok(home) => self.isolation_below(&home, cpus),
            Err(reason) => Isolation::affinity(reason),
        }
    }

    fn isolation_below(&self, home: &Home, cpus: &[usize]) -> Isolation {
        if let Err(reason) = home.parts_cpus() {
            return Isolation::affinity(reason);
        }
        let mut free = home.group().cpus("cpuset.cpus.effective");
        if let Some(cpu) = cpus.iter().find(|cpu| !free.remove(cpu)) {
            return Isolation::affinity(format!("CPU {cpu} is offline or in another cpuset partition"));
        }
        if free.is_empty() {
            let all = list_text(cpus.iter().copied().collect::<std::collections::BTreeSet<_>>());
            return Isolation::affinity(format!(
                "CPUs {all} are all there are, and one must stay with the host"
            ));
        }
        let release = std::fs::read_to_string(self.proc("sys/kernel/osrelease")).unwrap_or_default();
        match version(&release) {
            version if version >= (6, 1) => Isolation {
                level: CpuIsolation::Isolated,
                reason: String::new(),
            },
            version if version >= (5, 0) => Isolation::root("the kernel is older than Linux 6.1".to_owned()),
            _ => Isolation::affinity("the kernel is older than Linux 5.0".to_owned()),
        }
    }
}

impl Isolation {
    pub(crate) fn affinity(reason: String) -> Self {
        Self {
            level: CpuIsolation::Affinity,
            reason,
        }
    }

    fn root(reason: String) -> Self {
        Self {
            level: CpuIsolation::Root,
            reason,
        }
    }

    /// Makes the group a partition of `cpus`, as strong as the kernel grants. What the kernel says afterwards counts.
    pub(crate) fn establish(group: &Group, cpus: &[usize]) -> Self {
        let cpus = list_text(cpus.iter().copied().collect::<std::collections::BTreeSet<_>>());
        if let Err(error) = group.write("cpuset.cpus", &cpus, "its CPUs cannot be set") {
            return Self::affinity(error.to_string());
        }
        let mut weaker = String::new();
        for (word, level) in [("isolated", CpuIsolation::Isolated), ("root", CpuIsolation::Root)] {
            let written = group.write(PARTITION, word, "it cannot be made a cpuset partition");
            let state = written
                .map_err(|error| error.to_string())
                .and_then(|()| partition_state(group));
            match state {
                Ok(state) if state == word => {
                    return Self {
                        level,
                        reason: weaker,
                    };
                }
                Ok(state) | Err(state) => weaker = state,
            }
        }
        Self::affinity(weaker)
    }

    /// Gives a partition's CPUs back at once; with its group alone they would go back some time later.
    pub(crate) fn end(group: &Group) -> Result<(), CpuError> {
        match group.read(PARTITION) {
            Ok(state) if state != "member" => {
                group.write(PARTITION, "member", "its CPUs cannot be given back")
            }
            _ => Ok(()),
        }
    }

    /// Whether the group still is the partition that it was made; what the kernel says instead, if not.
    pub(crate) fn holds(&self, group: &Group) -> Result<(), String> {
        let word = match self.level {
            CpuIsolation::Isolated => "isolated",
            CpuIsolation::Root => "root",
            CpuIsolation::Affinity => return Ok(()),
        };
        match partition_state(group)? {
            state if state == word => Ok(()),
            state => Err(state),
        }
    }
}

impl fmt::Display for CpuIsolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Isolated => "isolated cpuset partition",
            Self::Root => "cpuset partition",
            Self::Affinity => "affinity",
        })
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.as_str() {
            "" => self.level.fmt(f),
            reason => write!(f, "{} ({reason})", self.level),
        }
    }
}

/// `isolated`, or `isolated invalid (Parent is not a partition root)`.
fn partition_state(group: &Group) -> Result<String, String> {
    group
        .read(PARTITION)
        .map_err(|error| format!("{}: {error}", group.dir().join(PARTITION).display()))
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|text| text.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

const PARTITION: &str = "cpuset.cpus.partition";
