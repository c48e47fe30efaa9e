//! What logical servers hold on this host, as their claims say.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Inventory;
use crate::claim::{ClaimRecord, Resource};
use crate::spec::PageSize;

/// A resource that a logical server has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    /// What it has.
    pub resource: Resource,
    /// Who it is.
    pub holder: Holder,
    /// The memory that comes with a partition's name.
    pub memory: Option<HeldMemory>,
}

/// Memory that a logical server has. What it has populated is no longer free in a survey, so this only tells whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeldMemory {
    /// The pages behind it.
    pub pages: PageSize,
    /// The node that it is bound to, if it is one.
    pub node: Option<u32>,
    /// Bytes.
    pub bytes: u64,
}

/// A logical server that has something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// Its name.
    pub partition: String,
    /// Its process; 0 for one that is planned only.
    pub pid: u32,
    /// Whether the process lives. What the dead left must be healed before it can be had.
    pub alive: bool,
}

impl Inventory {
    /// The same host with what the records of a state directory say of it (`StateDir::records`): a record, and whether its owner
    /// lives. A dead owner that changed nothing holds nothing.
    #[must_use]
    pub fn with_claims<'r>(mut self, records: impl IntoIterator<Item = &'r (ClaimRecord, bool)>) -> Self {
        let holds = |(record, alive): &&(ClaimRecord, bool)| *alive || record.undo.is_some();
        let held = records.into_iter().filter(holds).map(|(record, alive)| Held {
            resource: record.resource.clone(),
            holder: Holder {
                partition: record.partition.clone(),
                pid: record.owner.pid,
                alive: *alive,
            },
            memory: record.holding.as_ref().map(|holding| HeldMemory {
                pages: holding.pages,
                node: holding.node,
                bytes: holding.memory,
            }),
        });
        self.held.extend(held);
        self.held.sort();
        self.held.dedup();
        self
    }

    /// Who holds a CPU.
    #[must_use]
    pub fn cpu_holder(&self, cpu: usize) -> Option<&Holder> {
        let is = |held: &&Held| held.cpu() == Some(cpu);
        self.held.iter().find(is).map(|held| &held.holder)
    }
}

impl Held {
    /// The CPU that is held, if it is one.
    #[must_use]
    pub fn cpu(&self) -> Option<usize> {
        let is_cpu = self.resource.kind == Resource::CPU;
        is_cpu.then(|| self.resource.name.parse().ok()).flatten()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partition,
            pid,
            alive,
        } = self;
        match (alive, pid) {
            (true, 0) => write!(f, "logical server {partition:?}"),
            (true, pid) => write!(f, "logical server {partition:?} (pid {pid})"),
            (false, pid) => write!(
                f,
                "what logical server {partition:?} left (pid {pid}, dead; run `vmm heal`)"
            ),
        }
    }
}
