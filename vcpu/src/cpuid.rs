//! The CPUID table of one vCPU: a pure function of what KVM supports, the topology and the policy.
//!
//! What is not named here stays as KVM supports it. Sources: Intel SDM vol. 2A "CPUID", AMD APM vol. 3 appendix E, and
//! `arch/x86/kvm/cpuid.c`, which zeroes topology and leaves it to user space.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use crate::topology::Topology;

/// Whether the guest is told that it runs on a hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hypervisor {
    /// The hypervisor bit and KVM's paravirtual leaves (kvm-clock among them) are shown.
    #[default]
    Visible,
    /// Neither is shown: the guest finds the bare processor, and must calibrate its TSC against a timer.
    Hidden,
}

/// What a vCPU's table is shaped by, besides KVM's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuidShape {
    /// Hypervisor bit and leaves.
    pub hypervisor: Hypervisor,
    /// Cores and threads.
    pub topology: Topology,
    /// Whether KVM emulates the local APIC's TSC-deadline timer (`KVM_CAP_TSC_DEADLINE_TIMER`).
    pub tsc_deadline: bool,
    /// The host's brand string as leaves 0x80000002 to 0x80000004 give it; used where KVM's table has none.
    pub brand: [[u32; 4]; 3],
}

/// The table of vCPU `vcpu`, whose APIC id is its number.
#[must_use]
pub fn shape(supported: &[kvm_cpuid_entry2], shape: &CpuidShape, vcpu: u32) -> Vec<kvm_cpuid_entry2> {
    let table = Shaping {
        amd: is_amd(supported),
        shape,
        vcpu,
    };
    let mut entries: Vec<_> = supported
        .iter()
        .filter(|e| !table.is_replaced(e.function))
        .copied()
        .collect();
    for entry in &mut entries {
        table.adjust(entry);
    }
    let most = |leaf| supported.iter().find(|e| e.function == leaf).map_or(0, |e| e.eax);
    if most(BASIC) >= TOPOLOGY {
        entries.extend(table.levels(TOPOLOGY));
    }
    if most(BASIC) >= TOPOLOGY_V2 && !table.amd {
        entries.extend(table.levels(TOPOLOGY_V2));
    }
    entries.sort_by_key(|entry| (entry.function, entry.index));
    entries
}

/// One table under work.
struct Shaping<'a> {
    amd: bool,
    shape: &'a CpuidShape,
    vcpu: u32,
}

impl Shaping<'_> {
    /// Leaves that are made anew, or left out.
    fn is_replaced(&self, leaf: u32) -> bool {
        let paravirtual = (0x4000_0000..0x5000_0000).contains(&leaf);
        matches!(leaf, TOPOLOGY | TOPOLOGY_V2 | TOPOLOGY_AMD)
            || paravirtual && self.shape.hypervisor == Hypervisor::Hidden
    }

    fn adjust(&self, entry: &mut kvm_cpuid_entry2) {
        match entry.function {
            FEATURES => self.features(entry),
            CACHES if !self.amd => self.intel_cache(entry),
            BRAND..=BRAND_LAST => self.brand(entry),
            EXTENDED_FEATURES if self.amd => {
                entry.ecx = with_bit(entry.ecx, CMP_LEGACY, self.shape.topology.vcpus() > 1);
            }
            SIZES if self.amd => {
                let cores = (self.shape.topology.vcpus() - 1).min(0xff);
                entry.ecx = entry.ecx & !0xf0ff | self.shape.topology.package_bits().min(15) << 12 | cores;
            }
            CACHES_AMD if self.amd => self.amd_cache(entry),
            NODE_AMD if self.amd => self.amd_node(entry),
            _ => {}
        }
    }

    /// Leaf 1: APIC id, logical processors, and the feature bits that are KVM's own work.
    fn features(&self, entry: &mut kvm_cpuid_entry2) {
        let topology = self.shape.topology;
        let logical = if self.amd {
            topology.vcpus()
        } else {
            1 << topology.package_bits()
        };
        entry.ebx = entry.ebx & 0xffff | logical.min(0xff) << 16 | (self.vcpu & 0xff) << 24;
        entry.edx = with_bit(entry.edx, HTT, topology.vcpus() > 1);
        entry.ecx = with_bit(entry.ecx, X2APIC, true);
        entry.ecx = with_bit(entry.ecx, TSC_DEADLINE, self.shape.tsc_deadline);
        entry.ecx = with_bit(
            entry.ecx,
            HYPERVISOR,
            self.shape.hypervisor == Hypervisor::Visible,
        );
    }

    /// Leaf 4: a cache is shared by at most as many as on the host, and by no more than there are.
    fn intel_cache(&self, entry: &mut kvm_cpuid_entry2) {
        if entry.eax & 0x1f == 0 {
            return;
        }
        let topology = self.shape.topology;
        let sharing = self.sharing(entry.eax, 1 << topology.package_bits());
        let cores = (1u32 << (topology.package_bits() - topology.thread_bits())).min(64);
        entry.eax = entry.eax & 0x3fff | (sharing - 1) << 14 | (cores - 1) << 26;
    }

    /// Leaf 0x8000001D: as leaf 4, without the count of cores.
    fn amd_cache(&self, entry: &mut kvm_cpuid_entry2) {
        if entry.eax & 0x1f != 0 {
            let sharing = self.sharing(entry.eax, self.shape.topology.vcpus());
            entry.eax = entry.eax & !(0xfff << 14) | (sharing - 1) << 14;
        }
    }

    /// Logical processors behind one cache: those of a core up to level 2, above as on the host but at most `all`.
    fn sharing(&self, eax: u32, all: u32) -> u32 {
        let on_host = (eax >> 14 & 0xfff) + 1;
        if eax >> 5 & 7 <= 2 {
            self.shape.topology.threads_per_core()
        } else {
            on_host.min(all)
        }
    }

    /// Leaf 0x8000001E: APIC id, core and threads, in the one node.
    fn amd_node(&self, entry: &mut kvm_cpuid_entry2) {
        let topology = self.shape.topology;
        entry.eax = self.vcpu;
        entry.ebx = (self.vcpu >> topology.thread_bits()) & 0xff | (topology.threads_per_core() - 1) << 8;
        entry.ecx = 0;
    }

    fn brand(&self, entry: &mut kvm_cpuid_entry2) {
        if [entry.eax, entry.ebx, entry.ecx, entry.edx] == [0; 4] {
            let [eax, ebx, ecx, edx] = self.shape.brand[(entry.function - BRAND) as usize];
            *entry = kvm_cpuid_entry2 {
                eax,
                ebx,
                ecx,
                edx,
                ..*entry
            };
        }
    }

    /// Leaves 0xB and 0x1F: threads, cores, end.
    fn levels(&self, function: u32) -> [kvm_cpuid_entry2; 3] {
        let topology = self.shape.topology;
        let level = |index: u32, shift: u32, logical: u32, kind: u32| kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: logical.min(0xffff),
            ecx: index | kind << 8,
            edx: self.vcpu,
            ..Default::default()
        };
        [
            level(0, topology.thread_bits(), topology.threads_per_core(), 1),
            level(1, topology.package_bits(), topology.vcpus(), 2),
            level(2, 0, 0, 0),
        ]
    }
}

fn is_amd(supported: &[kvm_cpuid_entry2]) -> bool {
    // "Auth…" (AMD) and "Hygo…" (Hygon) number their leaves alike.
    supported
        .iter()
        .any(|e| e.function == BASIC && matches!(&e.ebx.to_le_bytes(), b"Auth" | b"Hygo"))
}

fn with_bit(register: u32, bit: u32, on: bool) -> u32 {
    register & !(1 << bit) | u32::from(on) << bit
}

const BASIC: u32 = 0;
const FEATURES: u32 = 1;
const CACHES: u32 = 4;
const TOPOLOGY: u32 = 0xb;
const TOPOLOGY_V2: u32 = 0x1f;
const EXTENDED_FEATURES: u32 = 0x8000_0001;
const BRAND: u32 = 0x8000_0002;
const BRAND_LAST: u32 = 0x8000_0004;
const SIZES: u32 = 0x8000_0008;
const CACHES_AMD: u32 = 0x8000_001d;
const NODE_AMD: u32 = 0x8000_001e;
/// AMD's later topology leaf: left out, so that guests read 0xB.
const TOPOLOGY_AMD: u32 = 0x8000_0026;
const X2APIC: u32 = 21;
const TSC_DEADLINE: u32 = 24;
const HYPERVISOR: u32 = 31;
const HTT: u32 = 28;
const CMP_LEGACY: u32 = 1;
