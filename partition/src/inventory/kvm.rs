//! What KVM can do on this host, and how much of it.

use std::collections::BTreeMap;
use std::ffi::c_ulong;
use std::path::Path;

use kvm_bindings as kvm;
use kvm_ioctls::Kvm;
use serde::{Deserialize, Serialize};

/// The limits of this host's KVM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KvmFacts {
    /// vCPUs per VM.
    pub max_vcpus: usize,
    /// vCPUs per VM that its makers advise at most.
    pub recommended_vcpus: usize,
    /// vCPU ids (APIC ids) are below this.
    pub max_vcpu_id: usize,
    /// Memory slots per VM.
    pub max_slots: usize,
    /// Interrupt routes per VM.
    pub max_routes: usize,
    /// Bytes of the largest ring of dirty pages of a vCPU; 0 without such rings.
    pub max_dirty_ring: usize,
    /// Which exits may be disabled (`KVM_CAP_X86_DISABLE_EXITS` bits).
    pub disable_exits: i32,
    /// Whether counters can be read from a file descriptor (`KVM_CAP_BINARY_STATS_FD`).
    pub binary_stats: bool,
    /// What `KVM_CHECK_EXTENSION` answers for capabilities that this library may use, by their name after `KVM_CAP_`.
    pub capabilities: BTreeMap<String, i32>,
}

impl KvmFacts {
    /// Asks `/dev/kvm`, or says why it cannot be asked.
    pub(super) fn survey() -> Result<Self, String> {
        let kvm = crate::vm::open(Path::new("/dev/kvm")).map_err(|error| error.to_string())?;
        let ask = |(name, number): &(&str, u32)| ((*name).to_owned(), answer(&kvm, *number));
        Ok(Self {
            max_vcpus: kvm.get_max_vcpus(),
            recommended_vcpus: kvm.get_nr_vcpus(),
            max_vcpu_id: kvm.get_max_vcpu_id(),
            max_slots: kvm.get_nr_memslots(),
            max_routes: count(&kvm, kvm::KVM_CAP_IRQ_ROUTING),
            max_dirty_ring: count(&kvm, kvm::KVM_CAP_DIRTY_LOG_RING)
                .max(count(&kvm, kvm::KVM_CAP_DIRTY_LOG_RING_ACQ_REL)),
            disable_exits: answer(&kvm, kvm::KVM_CAP_X86_DISABLE_EXITS),
            binary_stats: answer(&kvm, kvm::KVM_CAP_BINARY_STATS_FD) > 0,
            capabilities: CAPABILITIES.iter().map(ask).collect(),
        })
    }

    /// The answer for a capability by its name after `KVM_CAP_`; 0 for one that this KVM lacks or that was not asked for.
    #[must_use]
    pub fn capability(&self, name: &str) -> i32 {
        self.capabilities.get(name).copied().unwrap_or(0)
    }
}

fn answer(kvm: &Kvm, capability: u32) -> i32 {
    kvm.check_extension_raw(c_ulong::from(capability))
}

fn count(kvm: &Kvm, capability: u32) -> usize {
    usize::try_from(answer(kvm, capability)).unwrap_or(0)
}

const CAPABILITIES: [(&str, u32); 24] = [
    ("ADJUST_CLOCK", kvm::KVM_CAP_ADJUST_CLOCK),
    ("EXCEPTION_PAYLOAD", kvm::KVM_CAP_EXCEPTION_PAYLOAD),
    ("GUEST_MEMFD", kvm::KVM_CAP_GUEST_MEMFD),
    ("HALT_POLL", kvm::KVM_CAP_HALT_POLL),
    ("IMMEDIATE_EXIT", kvm::KVM_CAP_IMMEDIATE_EXIT),
    ("IOEVENTFD", kvm::KVM_CAP_IOEVENTFD),
    ("IRQFD", kvm::KVM_CAP_IRQFD),
    ("IRQFD_RESAMPLE", kvm::KVM_CAP_IRQFD_RESAMPLE),
    (
        "MANUAL_DIRTY_LOG_PROTECT2",
        kvm::KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
    ),
    ("MCE", kvm::KVM_CAP_MCE),
    ("MSI_DEVID", kvm::KVM_CAP_MSI_DEVID),
    ("PMU_CAPABILITY", kvm::KVM_CAP_PMU_CAPABILITY),
    ("PRE_FAULT_MEMORY", kvm::KVM_CAP_PRE_FAULT_MEMORY),
    ("READONLY_MEM", kvm::KVM_CAP_READONLY_MEM),
    ("SPLIT_IRQCHIP", kvm::KVM_CAP_SPLIT_IRQCHIP),
    ("STEAL_TIME", kvm::KVM_CAP_STEAL_TIME),
    ("TSC_CONTROL", kvm::KVM_CAP_TSC_CONTROL),
    ("TSC_DEADLINE_TIMER", kvm::KVM_CAP_TSC_DEADLINE_TIMER),
    ("VM_TSC_CONTROL", kvm::KVM_CAP_VM_TSC_CONTROL),
    ("X2APIC_API", kvm::KVM_CAP_X2APIC_API),
    ("X86_BUS_LOCK_EXIT", kvm::KVM_CAP_X86_BUS_LOCK_EXIT),
    ("X86_NOTIFY_VMEXIT", kvm::KVM_CAP_X86_NOTIFY_VMEXIT),
    ("X86_USER_SPACE_MSR", kvm::KVM_CAP_X86_USER_SPACE_MSR),
    ("XSAVE2", kvm::KVM_CAP_XSAVE2),
];
