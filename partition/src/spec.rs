//! What is asked of a host. A value of these types makes sense in itself; whether a host carries it, [`Plan::fit`] says.
//!
//! [`Plan::fit`]: crate::Plan::fit

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::SpecError;
use crate::layout::{Layout, Reach};

mod request;

pub use request::{CpuRequest, NodeRequest};

/// A logical server's CPUs and memory as its owner asks for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSpec {
    name: String,
    cpus: CpuRequest,
    mode: CpuMode,
    siblings: Siblings,
    memory: u64,
    pages: PageSize,
    nodes: NodeRequest,
    locked: bool,
    reach: Option<Reach>,
}

/// How a partition holds its CPUs. The guest sees no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuMode {
    /// One vCPU on one CPU that no other partition gets.
    Dedicated,
    /// vCPUs run where the host's scheduler puts them.
    Shared,
}

/// What becomes of the other threads of a core of which a dedicated partition needs only some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Siblings {
    /// No other dedicated partition gets them: whoever shares a core shares its caches and execution units.
    #[default]
    Withheld,
    /// Partitions that ask for the same may have them.
    Shared,
}

/// The pages behind guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PageSize {
    /// 4 KiB, transparent huge pages where the kernel gives them.
    Size4K,
    /// 2 MiB from the hugetlb pool.
    Size2M,
    /// 1 GiB from the hugetlb pool.
    Size1G,
}

impl PartitionSpec {
    /// A shared partition with that many vCPUs and bytes of memory in ordinary pages, on any memory node.
    ///
    /// Refuses a name that cannot be a file name, no vCPUs or more than 255, and memory that no kernel boots in or that is not whole
    /// 2 MiB pages.
    pub fn new(name: &str, vcpus: usize, memory: u64) -> Result<Self, SpecError> {
        Self::on(name, CpuRequest::count(vcpus)?, memory)
    }

    /// The same with CPUs counted or listed.
    pub fn on(name: &str, cpus: CpuRequest, memory: u64) -> Result<Self, SpecError> {
        Layout::check_size(memory)?;
        Ok(Self {
            name: checked_name(name)?,
            cpus,
            mode: CpuMode::Shared,
            siblings: Siblings::default(),
            memory,
            pages: PageSize::Size4K,
            nodes: NodeRequest::any(),
            locked: false,
            reach: None,
        })
    }

    /// With CPUs that no other partition gets.
    #[must_use]
    pub fn dedicated(self) -> Self {
        self.with_mode(CpuMode::Dedicated)
    }

    /// With CPUs held in that mode.
    #[must_use]
    pub fn with_mode(self, mode: CpuMode) -> Self {
        Self { mode, ..self }
    }

    /// With a rule for the siblings of its CPUs; they are withheld from others otherwise.
    #[must_use]
    pub fn with_siblings(self, siblings: Siblings) -> Self {
        Self { siblings, ..self }
    }

    /// With memory in pages of that size. Refuses memory that is not whole pages of it.
    pub fn with_pages(self, pages: PageSize) -> Result<Self, SpecError> {
        let (memory, page) = (self.memory, pages.bytes());
        if !memory.is_multiple_of(page) {
            let lower = memory / page * page;
            return Err(SpecError::Pages {
                memory,
                pages,
                lower,
                upper: lower.saturating_add(page),
            });
        }
        Ok(Self { pages, ..self })
    }

    /// With CPUs and memory from those nodes.
    #[must_use]
    pub fn with_nodes(self, nodes: NodeRequest) -> Self {
        Self { nodes, ..self }
    }

    /// With all memory locked, because a device will do DMA.
    #[must_use]
    pub fn locked(self) -> Self {
        Self { locked: true, ..self }
    }

    /// With a guest-physical map inside what CPU and IOMMU both reach; 39 bits of address otherwise.
    #[must_use]
    pub fn within(self, reach: Reach) -> Self {
        Self {
            reach: Some(reach),
            ..self
        }
    }

    /// Its name on this host.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its CPUs.
    #[must_use]
    pub fn cpus(&self) -> &CpuRequest {
        &self.cpus
    }

    /// How it holds them.
    #[must_use]
    pub fn mode(&self) -> CpuMode {
        self.mode
    }

    /// What becomes of their siblings.
    #[must_use]
    pub fn siblings(&self) -> Siblings {
        self.siblings
    }

    /// Bytes of memory: whole pages.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// The pages that back it.
    #[must_use]
    pub fn pages(&self) -> PageSize {
        self.pages
    }

    /// The nodes that CPUs and memory must come from.
    #[must_use]
    pub fn nodes(&self) -> &NodeRequest {
        &self.nodes
    }

    /// Whether all memory must be locked.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// The addresses that its map must lie in, if that was said.
    #[must_use]
    pub fn reach(&self) -> Option<&Reach> {
        self.reach.as_ref()
    }
}

impl PageSize {
    /// Every size, ascending.
    pub const ALL: [Self; 3] = [Self::Size4K, Self::Size2M, Self::Size1G];

    /// Bytes of one page.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => 4 << 10,
            Self::Size2M => 2 << 20,
            Self::Size1G => 1 << 30,
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size4K => "4k",
            Self::Size2M => "2m",
            Self::Size1G => "1g",
        })
    }
}

/// A name that can be a file name of the ledger.
fn checked_name(name: &str) -> Result<String, SpecError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = (1..=64).contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    match good {
        true => Ok(name.to_owned()),
        false => Err(SpecError::Name {
            name: name.to_owned(),
        }),
    }
}
