//! What the host has: CPUs, memory nodes, control groups, limits, KVM; and who holds what. Reads only, and reads a fixture tree as
//! well as a host.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cgroup::Isolation;
use crate::error::SurveyError;
use crate::spec::PageSize;

mod cgroup;
mod cpus;
mod files;
mod held;
mod kvm;
mod list;
mod nodes;

pub use cgroup::{Cgroup, CgroupHome, CgroupVersion};
pub use held::{Held, HeldMemory, Holder};
pub use kvm::KvmFacts;
pub(crate) use list::{list_text, parse_list};

use files::Files;

/// A host at one moment; ordered, so that two surveys of the same host are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// CPUs by number, offline ones included.
    pub cpus: Vec<Cpu>,
    /// Caches by level, kind and first CPU.
    pub caches: Vec<Cache>,
    /// Memory nodes by number; one node 0 where the kernel has no NUMA.
    pub nodes: Vec<Node>,
    /// Bytes that could be had without swapping (`MemAvailable`).
    pub memory_available: u64,
    /// Bytes that this process may lock; `None` is no limit.
    pub memlock: Option<u64>,
    /// Control groups as this process sees them.
    pub cgroup: Cgroup,
    /// The kernel's release (`6.1.0-18-amd64`); empty where it cannot be read.
    pub kernel: String,
    /// The physical address width of the CPUs.
    pub address_bits: Option<u8>,
    /// What KVM says of itself, or why it cannot be asked.
    pub kvm: Result<KvmFacts, String>,
    /// What logical servers hold, ordered; empty until [`Inventory::with_claims`].
    pub held: Vec<Held>,
}

/// One logical CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its number.
    pub id: usize,
    /// Whether it is online.
    pub online: bool,
    /// Whether the cpuset of this process's control group has it. An affinity mask says less: with `isolcpus` it lacks CPUs that
    /// can be had by asking.
    pub allowed: bool,
    /// Whether the kernel keeps tasks off it (`isolcpus`).
    pub isolated: bool,
    /// What kind of core it is a thread of.
    pub kind: CoreKind,
    /// Its memory node.
    pub node: u32,
    /// Package and core; siblings have both in common.
    pub package: i32,
    /// Core number in the package.
    pub core: i32,
    /// CPUs of the same core, itself included.
    pub siblings: Vec<usize>,
}

/// The kinds of cores of a hybrid host; all are performance cores on any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum CoreKind {
    /// The fastest that the host has.
    #[default]
    Performance,
    /// Smaller and slower.
    Efficiency,
}

/// One cache and the CPUs that share it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cache {
    /// 1 is nearest to the CPU.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// CPUs that share it, ascending.
    pub cpus: Vec<usize>,
    /// Bytes.
    pub size: u64,
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CacheKind {
    /// Data only.
    Data,
    /// Instructions only.
    Instruction,
    /// Both.
    Unified,
}

/// One memory node. Sizes in bytes, pages in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its number.
    pub id: u32,
    /// Bytes of memory.
    pub total: u64,
    /// Bytes unused.
    pub free: u64,
    /// Bytes that could be had without swapping: unused, file cache, reclaimable kernel memory.
    pub available: u64,
    /// Free 2 MiB pages in the pool.
    pub free_2m: u64,
    /// Free 1 GiB pages in the pool.
    pub free_1g: u64,
    /// Relative cost of access to each node in the inventory's order, 10 to itself; empty where the kernel does not say.
    pub distances: Vec<u32>,
}

impl Inventory {
    /// Surveys this host.
    pub fn survey() -> Result<Self, SurveyError> {
        let mut inventory = Self::survey_at(Path::new("/"))?;
        inventory.kvm = KvmFacts::survey();
        Ok(inventory)
    }

    /// Surveys the tree below `root` (its `sys` and `proc`); KVM is not asked.
    pub fn survey_at(root: &Path) -> Result<Self, SurveyError> {
        let files = Files { root };
        let cgroup = cgroup::survey(&files);
        let cpus = cpus::survey(&files, &cgroup)?;
        Ok(Self {
            caches: cpus::caches(&files, &cpus),
            cpus,
            nodes: nodes::survey(&files)?,
            memory_available: files.kilobytes("proc/meminfo", "MemAvailable:")?,
            memlock: memlock(&files)?,
            cgroup,
            kernel: kernel(&files),
            address_bits: address_bits(&files),
            kvm: Err(format!("{}: not asked", root.join("dev/kvm").display())),
            held: Vec::new(),
        })
    }

    /// The CPUs that a partition could be given if nobody held them: online and in this process's cpuset.
    pub fn usable_cpus(&self) -> impl Iterator<Item = &Cpu> {
        self.cpus.iter().filter(|cpu| cpu.online && cpu.allowed)
    }

    /// What keeps others off `cpus` if a partition dedicates them now, and why nothing stronger does.
    #[must_use]
    pub fn isolation(&self, cpus: &[usize]) -> Isolation {
        Isolation::judged(&self.cgroup, &self.kernel, cpus)
    }
}

impl Node {
    /// Free pages of that size; of 4 KiB, those that could be had without swapping.
    #[must_use]
    pub fn free_pages(&self, pages: PageSize) -> u64 {
        match pages {
            PageSize::Size4K => self.available / PageSize::Size4K.bytes(),
            PageSize::Size2M => self.free_2m,
            PageSize::Size1G => self.free_1g,
        }
    }
}

/// Control groups and the kernel's release, without all the rest.
pub(crate) fn control_groups(root: &Path) -> (Cgroup, String) {
    let files = Files { root };
    (cgroup::survey(&files), kernel(&files))
}

fn kernel(files: &Files<'_>) -> String {
    files.optional("proc/sys/kernel/osrelease").trim().to_owned()
}

/// RLIMIT_MEMLOCK, which a process with CAP_IPC_LOCK (bit 14) does not have.
fn memlock(files: &Files<'_>) -> Result<Option<u64>, SurveyError> {
    let effective = files.status("CapEff:")?;
    let effective = effective
        .and_then(|hex| u64::from_str_radix(&hex, 16).ok())
        .unwrap_or(0);
    if effective >> 14 & 1 == 1 {
        return Ok(None);
    }
    let limits = files.text("proc/self/limits")?;
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"));
    Ok(soft.and_then(|rest| rest.split_whitespace().next()?.parse().ok()))
}

/// From `address sizes : 46 bits physical, 48 bits virtual`.
fn address_bits(files: &Files<'_>) -> Option<u8> {
    let text = files.optional("proc/cpuinfo");
    let line = text.lines().find_map(|line| line.strip_prefix("address sizes"))?;
    line.split_whitespace().find_map(|word| word.parse().ok())
}
