//! What the host has: CPUs, memory nodes, limits, KVM. Reads only, and reads a fixture tree as well as a host.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::SurveyError;

mod list;

pub(crate) use list::{list_text, parse_list};

/// A host at one moment; ordered, so that two surveys of the same host are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// CPUs by number, offline ones included.
    pub cpus: Vec<Cpu>,
    /// Memory nodes by number; one node 0 where the kernel has no NUMA.
    pub nodes: Vec<Node>,
    /// Bytes that could be had without swapping (`MemAvailable`).
    pub memory_available: u64,
    /// Bytes that this process may lock; `None` is no limit.
    pub memlock: Option<u64>,
    /// Controllers of cgroup v2 at the root; empty without cgroup v2.
    pub cgroup_controllers: Vec<String>,
    /// What KVM says of itself, or why it cannot be asked.
    pub kvm: Result<KvmFacts, String>,
}

/// One logical CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Its number.
    pub id: usize,
    /// Whether it is online.
    pub online: bool,
    /// Whether this process may run on it.
    pub allowed: bool,
    /// Whether the kernel keeps tasks off it (`isolcpus`).
    pub isolated: bool,
    /// Its memory node.
    pub node: u32,
    /// Package and core; siblings have both in common.
    pub package: i32,
    /// Core number in the package.
    pub core: i32,
    /// CPUs of the same core, itself included.
    pub siblings: Vec<usize>,
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
    /// Free 2 MiB pages in the pool.
    pub free_2m: u64,
    /// Free 1 GiB pages in the pool.
    pub free_1g: u64,
}

/// The limits of this host's KVM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvmFacts {
    /// vCPUs per VM.
    pub max_vcpus: usize,
    /// Memory slots per VM.
    pub max_slots: usize,
    /// Which exits may be disabled (`KVM_CAP_X86_DISABLE_EXITS` bits).
    pub disable_exits: i32,
    /// Whether counters can be read from a file descriptor (`KVM_CAP_BINARY_STATS_FD`).
    pub binary_stats: bool,
}

impl Inventory {
    /// Surveys this host.
    pub fn survey() -> Result<Self, SurveyError> {
        let mut inventory = Self::survey_at(Path::new("/"))?;
        inventory.kvm = kvm_facts();
        Ok(inventory)
    }

    /// Surveys the tree below `root` (its `sys` and `proc`); KVM is not asked.
    pub fn survey_at(root: &Path) -> Result<Self, SurveyError> {
        let files = Files { root };
        let nodes = nodes(&files)?;
        Ok(Self {
            cpus: cpus(&files)?,
            nodes,
            memory_available: files.kilobytes("proc/meminfo", "MemAvailable:")?,
            memlock: memlock(&files)?,
            cgroup_controllers: files
                .optional("sys/fs/cgroup/cgroup.controllers")
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            kvm: Err(format!("{}: not asked", root.join("dev/kvm").display())),
        })
    }

    /// The CPUs that a partition could be given: online and allowed.
    pub fn usable_cpus(&self) -> impl Iterator<Item = &Cpu> {
        self.cpus.iter().filter(|cpu| cpu.online && cpu.allowed)
    }
}

/// The tree that is read.
struct Files<'r> {
    root: &'r Path,
}

impl Files<'_> {
    fn path(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    fn text(&self, file: &str) -> Result<String, SurveyError> {
        let path = self.path(file);
        std::fs::read_to_string(&path).map_err(|source| SurveyError { path, source })
    }

    fn optional(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap_or_default()
    }

    fn set(&self, file: &str) -> BTreeSet<usize> {
        parse_list(&self.optional(file)).unwrap_or_default()
    }

    fn number<N: std::str::FromStr>(&self, file: &str) -> Option<N> {
        self.optional(file).trim().parse().ok()
    }

    /// The bytes of a line such as `MemFree:  123 kB`, also with a prefix such as `Node 0 MemFree:`.
    fn kilobytes(&self, file: &str, key: &str) -> Result<u64, SurveyError> {
        let text = self.text(file)?;
        let value = text
            .lines()
            .find_map(|line| line.split_once(key).map(|(_, rest)| rest));
        let number = value.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        let missing = || std::io::Error::new(std::io::ErrorKind::InvalidData, format!("no line {key:?}"));
        number
            .map(|kilobytes| kilobytes.saturating_mul(1024))
            .ok_or_else(|| SurveyError {
                path: self.path(file),
                source: missing(),
            })
    }
}

fn cpus(files: &Files<'_>) -> Result<Vec<Cpu>, SurveyError> {
    let base = "sys/devices/system/cpu";
    let text = files.text(&format!("{base}/online"))?;
    let online = parse_list(&text).unwrap_or_default();
    let status = files.optional("proc/self/status");
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .and_then(parse_list);
    let isolated = files.set(&format!("{base}/isolated"));
    let mut present = files.set(&format!("{base}/present"));
    present.extend(&online);
    Ok(present
        .into_iter()
        .map(|id| {
            let topology = format!("{base}/cpu{id}/topology");
            let mut siblings = files.set(&format!("{topology}/thread_siblings_list"));
            siblings.insert(id);
            Cpu {
                id,
                online: online.contains(&id),
                allowed: allowed.as_ref().is_none_or(|set| set.contains(&id)),
                isolated: isolated.contains(&id),
                node: node_of(files, id),
                package: files
                    .number(&format!("{topology}/physical_package_id"))
                    .unwrap_or(0),
                core: files.number(&format!("{topology}/core_id")).unwrap_or(id as i32),
                siblings: siblings.into_iter().collect(),
            }
        })
        .collect())
}

fn node_of(files: &Files<'_>, cpu: usize) -> u32 {
    let mut nodes = files.set("sys/devices/system/node/online").into_iter();
    let holds = |node: &usize| {
        files
            .set(&format!("sys/devices/system/node/node{node}/cpulist"))
            .contains(&cpu)
    };
    nodes.find(holds).unwrap_or(0) as u32
}

fn nodes(files: &Files<'_>) -> Result<Vec<Node>, SurveyError> {
    let numbers = files.set("sys/devices/system/node/online");
    if numbers.is_empty() {
        let pool = "sys/kernel/mm/hugepages";
        let total = files.kilobytes("proc/meminfo", "MemTotal:")?;
        let free = files.kilobytes("proc/meminfo", "MemFree:")?;
        return Ok(vec![node(files, 0, pool, (total, free))]);
    }
    let of = |number: usize| {
        let base = format!("sys/devices/system/node/node{number}");
        let meminfo = format!("{base}/meminfo");
        let sizes = (
            files.kilobytes(&meminfo, "MemTotal:")?,
            files.kilobytes(&meminfo, "MemFree:")?,
        );
        Ok(node(files, number as u32, &format!("{base}/hugepages"), sizes))
    };
    numbers.into_iter().map(of).collect()
}

fn node(files: &Files<'_>, id: u32, pool: &str, (total, free): (u64, u64)) -> Node {
    let pages = |kib: u32| {
        files
            .number(&format!("{pool}/hugepages-{kib}kB/free_hugepages"))
            .unwrap_or(0)
    };
    Node {
        id,
        total,
        free,
        free_2m: pages(2048),
        free_1g: pages(1_048_576),
    }
}

/// RLIMIT_MEMLOCK, which a process with CAP_IPC_LOCK (bit 14) does not have.
fn memlock(files: &Files<'_>) -> Result<Option<u64>, SurveyError> {
    let status = files.text("proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
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

fn kvm_facts() -> Result<KvmFacts, String> {
    let kvm = crate::vm::open(Path::new("/dev/kvm")).map_err(|error| error.to_string())?;
    Ok(KvmFacts {
        max_vcpus: kvm.get_max_vcpus(),
        max_slots: kvm.get_nr_memslots(),
        disable_exits: kvm.check_extension_raw(KVM_CAP_X86_DISABLE_EXITS),
        binary_stats: kvm.check_extension_raw(KVM_CAP_BINARY_STATS_FD) > 0,
    })
}

// Numbers of include/uapi/linux/kvm.h that kvm-ioctls has no name for.
const KVM_CAP_X86_DISABLE_EXITS: std::ffi::c_ulong = 143;
const KVM_CAP_BINARY_STATS_FD: std::ffi::c_ulong = 203;
