//! How well dedicated CPUs can be kept free of others here: judged from surveyed facts, carried out, and read back afterwards.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{CgroupTree, Group};
use crate::error::CpuError;
use crate::inventory::{Cgroup, CgroupHome, list_text};

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
        let (cgroup, kernel) = self.survey();
        Isolation::judged(&cgroup, &kernel, cpus)
    }
}

impl Isolation {
    /// The one judgement, for a plan as for who carries it out: what these facts come to for `cpus`.
    pub(crate) fn judged(cgroup: &Cgroup, kernel: &str, cpus: &[usize]) -> Self {
        let allowed = cgroup.home.as_ref().map_err(Clone::clone);
        if let Err(reason) = allowed.and_then(|home| parts(cgroup, home, cpus)) {
            return Self::affinity(reason);
        }
        match version(kernel) {
            version if version >= ISOLATED_SINCE => Self {
                level: CpuIsolation::Isolated,
                reason: String::new(),
            },
            version if version >= ROOT_SINCE => Self::root(format!(
                "kernel {kernel} has no isolated cpuset partitions; they came with 6.1"
            )),
            _ => Self::affinity(format!(
                "kernel {kernel:?} has no cpuset partitions; they came with 5.0"
            )),
        }
    }

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

    /// Makes the group the partition of `cpus` that was judged, or a weaker one. What the kernel says afterwards counts.
    pub(crate) fn establish(&self, group: &Group, cpus: &[usize]) -> Self {
        let cpus = list_text(cpus.iter().copied().collect::<BTreeSet<_>>());
        if let Err(error) = group.write("cpuset.cpus", &cpus, "its CPUs cannot be set") {
            return Self::affinity(error.to_string());
        }
        let mut weaker = self.reason.clone();
        let words = [("isolated", CpuIsolation::Isolated), ("root", CpuIsolation::Root)];
        for (word, level) in words.into_iter().filter(|(_, level)| *level >= self.level) {
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

/// Whether a cpuset partition of `cpus` can be made below home; why not, if not.
fn parts(cgroup: &Cgroup, home: &CgroupHome, cpus: &[usize]) -> Result<(), String> {
    super::home::offers(cgroup, home, "cpuset")?;
    let group = super::home::shown(cgroup, home);
    if !matches!(home.partition.as_deref(), None | Some("root" | "isolated")) {
        return Err(format!(
            "{group} is no cpuset partition itself; run as root outside of a container"
        ));
    }
    if let Some(cpu) = cpus.iter().find(|cpu| !home.cpus.contains(cpu)) {
        return Err(format!("CPU {cpu} is offline or in another cpuset partition"));
    }
    let named = home.named.iter().find_map(|(name, theirs)| {
        let cpu = cpus.iter().find(|cpu| theirs.contains(cpu))?;
        Some((name, cpu))
    });
    if let Some((name, cpu)) = named {
        return Err(format!(
            "CPU {cpu} is in cpuset.cpus of {}/{name}, which no partition may overlap; take it out there",
            group.trim_end_matches('/')
        ));
    }
    let all: BTreeSet<_> = cpus.iter().copied().collect();
    match all.len() < home.cpus.len() {
        true => Ok(()),
        false => Err(format!(
            "CPUs {} are all there are, and one must stay with the host",
            list_text(all)
        )),
    }
}

/// The first two numbers of a kernel's release.
pub(super) fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|text| text.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

const PARTITION: &str = "cpuset.cpus.partition";
/// `cpuset.cpus.partition` took `isolated` in Linux 6.1 and `root` in 5.0 (Documentation/admin-guide/cgroup-v2.rst).
const ISOLATED_SINCE: (u32, u32) = (6, 1);
const ROOT_SINCE: (u32, u32) = (5, 0);
