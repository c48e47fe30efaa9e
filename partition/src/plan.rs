//! What is asked of a host, and what it comes to. Pure: a plan touches nothing, so a dry run is the real thing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::PlanError;
use crate::inventory::{Inventory, parse_list};
use crate::layout::Layout;

mod fit;

/// A logical server's CPUs and memory as its owner asks for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSpec {
    /// Its name on this host.
    pub name: String,
    /// Its CPUs.
    pub cpus: CpuRequest,
    /// How it holds them.
    pub mode: CpuMode,
    /// Bytes of memory, whole 2 MiB pages.
    pub memory: u64,
    /// The pages that back it.
    pub pages: PageSize,
    /// The node that its memory and CPUs must come from; any if `None`.
    pub node: Option<u32>,
    /// Whether a device will do DMA, so that all memory must be locked.
    pub locked: bool,
    /// Physical address width that CPU and IOMMU both reach.
    pub address_bits: u8,
}

/// How many CPUs, or which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuRequest {
    /// That many, chosen by the plan.
    Count(usize),
    /// These, each once, in this order; who names CPUs may name all there are.
    List(Vec<usize>),
}

/// How a partition holds its CPUs. The guest sees no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CpuMode {
    /// One vCPU on one CPU that no other partition gets.
    Dedicated,
    /// vCPUs run where the host's scheduler puts them.
    Shared,
}

/// The pages behind guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageSize {
    /// 4 KiB, transparent huge pages where the kernel gives them.
    Size4K,
    /// 2 MiB from the hugetlb pool.
    Size2M,
    /// 1 GiB from the hugetlb pool.
    Size1G,
}

/// A partition that fits the surveyed host. Nothing is held yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "a plan holds nothing until it is reserved"]
pub struct Plan {
    name: String,
    vcpus: usize,
    pinned: Vec<usize>,
    mode: CpuMode,
    pages: PageSize,
    node: Option<u32>,
    locked: bool,
    layout: Layout,
}

impl PartitionSpec {
    /// A shared partition with that many vCPUs and bytes of memory in ordinary pages.
    #[must_use]
    pub fn new(name: &str, vcpus: usize, memory: u64) -> Self {
        Self {
            name: name.to_owned(),
            cpus: CpuRequest::Count(vcpus),
            mode: CpuMode::Shared,
            memory,
            pages: PageSize::Size4K,
            node: None,
            locked: false,
            address_bits: Layout::MIN_ADDRESS_BITS,
        }
    }
}

impl Plan {
    /// Fits `spec` into `inventory`, or says what does not fit and what would.
    pub fn fit(inventory: &Inventory, spec: &PartitionSpec) -> Result<Self, PlanError> {
        fit::name(spec)?;
        let layout = Layout::new(spec.memory, spec.address_bits)?;
        let (vcpus, pinned) = fit::cpus(inventory, spec)?;
        fit::memory(inventory, spec)?;
        Ok(Self {
            name: spec.name.clone(),
            vcpus,
            pinned,
            mode: spec.mode,
            pages: spec.pages,
            node: spec.node,
            locked: spec.locked,
            layout,
        })
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

    /// How it holds its CPUs.
    #[must_use]
    pub fn mode(&self) -> CpuMode {
        self.mode
    }

    /// The pages behind its memory.
    #[must_use]
    pub fn pages(&self) -> PageSize {
        self.pages
    }

    /// The memory node it is bound to, if any.
    #[must_use]
    pub fn node(&self) -> Option<u32> {
        self.node
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

impl std::str::FromStr for CpuRequest {
    type Err = String;

    /// A count (`2`) or a list with a comma or a dash (`2-5,8`, `3,`).
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(count) = text.parse() {
            return Ok(Self::Count(count));
        }
        let wrong =
            || format!("{text:?} is neither a number of CPUs nor a list such as 2-5,8 (a single CPU: 3,)");
        let list = parse_list(text).ok_or_else(wrong)?;
        if list.is_empty() {
            Err(wrong())
        } else {
            Ok(Self::List(list.into_iter().collect()))
        }
    }
}

impl PageSize {
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
