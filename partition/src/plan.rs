//! What a specification comes to on a host. Pure: a plan touches nothing, so a dry run is the real thing.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::cgroup::Isolation;
use crate::error::PlanError;
use crate::inventory::Inventory;
use crate::layout::Layout;
use crate::spec::{CpuMode, PageSize, PartitionSpec};

mod cpus;
mod memory;
mod planner;
mod refusal;
mod rooms;

pub use planner::Planner;

/// A partition that fits the surveyed host. Nothing is held yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a plan holds nothing until it is reserved"]
pub struct Plan {
    name: String,
    vcpus: usize,
    pinned: Vec<usize>,
    withheld: Vec<usize>,
    mode: CpuMode,
    isolation: Option<Isolation>,
    pages: PageSize,
    nodes: Vec<PlanNode>,
    locked: bool,
    layout: Layout,
}

/// One of the guest's memory nodes, and what backs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanNode {
    /// The host's node; `None` where the host's kernel chooses page by page.
    pub host: Option<u32>,
    /// Bytes of memory.
    pub memory: u64,
    /// Its vCPUs by number.
    pub vcpus: Vec<usize>,
}

impl Plan {
    /// Fits `spec` into `inventory`, or says what does not fit, who has it, and what would fit.
    ///
    /// For many plans on one host, [`Planner`] does the same faster.
    pub fn fit(inventory: &Inventory, spec: &PartitionSpec) -> Result<Self, PlanError> {
        Planner::new(inventory).fit(spec)
    }

    /// The partition's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many vCPUs it has.
    #[must_use]
    pub fn vcpus(&self) -> usize {
        self.vcpus
    }

    /// The host CPU of each vCPU in order; empty if the scheduler decides.
    #[must_use]
    pub fn pinned(&self) -> &[usize] {
        &self.pinned
    }

    /// Siblings of its dedicated CPUs that stay idle, so that nobody else computes on its cores; ascending.
    #[must_use]
    pub fn withheld(&self) -> &[usize] {
        &self.withheld
    }

    /// Every CPU that it takes from others, ascending: none of a shared partition.
    #[must_use]
    pub fn held_cpus(&self) -> Vec<usize> {
        let mut held = match self.mode {
            CpuMode::Dedicated => [self.pinned.as_slice(), &self.withheld].concat(),
            CpuMode::Shared => Vec::new(),
        };
        held.sort_unstable();
        held
    }

    /// How it holds its CPUs.
    #[must_use]
    pub fn mode(&self) -> CpuMode {
        self.mode
    }

    /// How dedicated CPUs will be kept free of others' tasks, and why so; `None` for a shared partition.
    #[must_use]
    pub fn isolation(&self) -> Option<&Isolation> {
        self.isolation.as_ref()
    }

    /// The pages behind its memory.
    #[must_use]
    pub fn pages(&self) -> PageSize {
        self.pages
    }

    /// The guest's memory nodes in order: node 0 of the guest first.
    #[must_use]
    pub fn nodes(&self) -> &[PlanNode] {
        &self.nodes
    }

    /// The host's memory node that all its memory is bound to, if it is one.
    #[must_use]
    pub fn node(&self) -> Option<u32> {
        let mut nodes = self.nodes.iter().filter(|node| node.memory > 0);
        let first = nodes.next()?.host;
        nodes.next().is_none().then_some(first).flatten()
    }

    /// The addresses that are RAM, ascending, with the host's node that each range is bound to, if it is.
    pub fn ram(&self) -> impl Iterator<Item = (Range<u64>, Option<u32>)> {
        self.layout.ram().iter().map(|range| {
            let node = self.nodes.get(range.node as usize);
            (range.start..range.end, node.and_then(|node| node.host))
        })
    }

    /// Whether its memory is to be locked, since a device will do DMA.
    #[must_use]
    pub fn locked(&self) -> bool {
        self.locked
    }

    /// Its guest-physical map.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}
