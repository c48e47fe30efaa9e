//! Processors: who made them, how many in which arrangement, what they can do.

use std::arch::x86_64::__cpuid_count;
use std::collections::BTreeSet;

use pellucid_partition::{Cache, Inventory};
use serde::{Deserialize, Serialize};

use crate::files::Files;

/// The processors of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Cpus {
    /// `GenuineIntel`, `AuthenticAMD`.
    pub vendor: String,
    /// The brand string.
    pub name: String,
    /// Family, model and stepping, as Linux counts them.
    pub model: [u32; 3],
    /// The revision of the microcode.
    pub microcode: Option<String>,
    /// The physical address width in bits.
    pub address_bits: Option<u8>,
    /// Threads that are online, by number.
    pub threads: Vec<Thread>,
    /// Caches by level, kind and first thread.
    pub caches: Vec<Cache>,
    /// Features by Linux's names.
    pub flags: BTreeSet<String>,
    /// What CPUID answers, without what differs from thread to thread; empty: not asked.
    pub leaves: Vec<Leaf>,
}

/// A thread of a core: what an operating system calls a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Thread {
    /// Its number.
    pub id: usize,
    /// Its package (socket).
    pub package: i32,
    /// Its core in the package.
    pub core: i32,
    /// Its memory node.
    pub node: u32,
}

/// One answer of CPUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Leaf {
    /// EAX asked.
    pub leaf: u32,
    /// ECX asked.
    pub subleaf: u32,
    /// EAX, EBX, ECX, EDX answered.
    pub answer: [u32; 4],
}

impl Cpus {
    pub(crate) fn read(files: &Files<'_>, host: Option<&Inventory>, live: bool) -> Cpus {
        let text = files.bytes("proc/cpuinfo", CPUINFO_LIMIT).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        // All processors of a server are alike.
        let first = text.split("\n\n").next().unwrap_or_default();
        let field = |name: &str| {
            let mut lines = first.lines().filter_map(|line| line.split_once(':'));
            lines
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim())
        };
        let number = |name| field(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        if first.is_empty() {
            files.note("/proc/cpuinfo is not there: model and features are not known".to_owned());
        }
        if !live {
            files.note("CPUID was not asked: only a capture of the running machine can".to_owned());
        }
        let threads = host
            .into_iter()
            .flat_map(|host| &host.cpus)
            .filter(|cpu| cpu.online);
        Cpus {
            vendor: field("vendor_id").unwrap_or_default().to_owned(),
            name: field("model name").unwrap_or_default().to_owned(),
            model: [number("cpu family"), number("model"), number("stepping")],
            microcode: field("microcode").map(str::to_owned),
            address_bits: host.and_then(|host| host.address_bits),
            threads: threads
                .map(|cpu| Thread {
                    id: cpu.id,
                    package: cpu.package,
                    core: cpu.core,
                    node: cpu.node,
                })
                .collect(),
            caches: host.map(|host| host.caches.clone()).unwrap_or_default(),
            flags: field("flags")
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            leaves: if live { leaves() } else { Vec::new() },
        }
    }

    /// How many packages, cores and threads there are.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        let packages: BTreeSet<_> = self.threads.iter().map(|thread| thread.package).collect();
        let cores: BTreeSet<_> = self
            .threads
            .iter()
            .map(|thread| (thread.package, thread.core))
            .collect();
        [packages.len(), cores.len(), self.threads.len()]
    }
}

/// What CPUID answers on the processor that this runs on.
fn leaves() -> Vec<Leaf> {
    let mut found = Vec::new();
    for base in [0, 0x4000_0000, 0x8000_0000] {
        let most = __cpuid_count(base, 0).eax;
        // Where there is no hypervisor, its range repeats the highest basic leaf.
        if !(base..base + MOST_LEAVES).contains(&most) {
            continue;
        }
        for leaf in base..=most {
            subleaves(leaf, &mut found);
        }
    }
    found
}

fn subleaves(leaf: u32, found: &mut Vec<Leaf>) {
    for subleaf in 0..MOST_SUBLEAVES {
        let answer = __cpuid_count(leaf, subleaf);
        let answer = [answer.eax, answer.ebx, answer.ecx, answer.edx];
        let is_last = match leaf {
            // Caches, until one of type 0; topology, until a level of type 0.
            4 | 0x8000_001d => answer[0] & 0x1f == 0,
            0xb | 0x1f => answer[2] >> 8 & 0xff == 0,
            7 => subleaf >= __cpuid_count(7, 0).eax,
            0xd => subleaf >= 1,
            _ => true,
        };
        found.push(Leaf {
            leaf,
            subleaf,
            answer: masked(leaf, answer),
        });
        if is_last {
            break;
        }
    }
}

/// An answer without what is the asked thread's own: its APIC id, core and node.
fn masked(leaf: u32, [mut eax, mut ebx, mut ecx, mut edx]: [u32; 4]) -> [u32; 4] {
    match leaf {
        1 => ebx &= 0x00ff_ffff,
        0xb | 0x1f => edx = 0,
        0x8000_001e => {
            eax = 0;
            ebx &= !0xff;
            ecx &= !0xff;
        }
        _ => {}
    }
    [eax, ebx, ecx, edx]
}

/// Of 4,096 processors with 200 features each.
const CPUINFO_LIMIT: u64 = 32 << 20;
const MOST_LEAVES: u32 = 0x100;
const MOST_SUBLEAVES: u32 = 16;
/// Three ranges of leaves, most of which have one answer.
pub(crate) const MOST_ANSWERS: usize = 4096;
