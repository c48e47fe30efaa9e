//! Parked: every vCPU exists with its CPUID, registers and local APIC, ready to enter the image. None executes yet.

use std::arch::x86_64::__cpuid;
use std::sync::Arc;

use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Cap, VcpuFd};
use pellucid_partition::{CpuHold, Entry, GuestMemory, Populated, Vm};

use crate::cpuid::{CpuidShape, Hypervisor, shape};
use crate::dispatch::Dispatch;
use crate::error::{ParkError, StartError};
use crate::event::VcpuEvent;
use crate::maker::{Maker, os};
use crate::meter::{Gauge, Meter, Metered};
use crate::running::Running;
use crate::seat::{Line, Seat};
use crate::stats::StatsFile;
use crate::stop_word::StopWord;
use crate::sys::run_page::RunPage;
use crate::topology::Topology;

/// What the owner decides about its vCPUs, besides how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VcpuPolicy {
    /// Whether the guest is told that it runs on a hypervisor.
    pub hypervisor: Hypervisor,
    /// Cores and threads; one thread per core if `None`.
    pub topology: Option<Topology>,
}

/// vCPUs that have been made and have not run.
///
/// They run once, and are not parked any more:
/// ```compile_fail,E0382
/// # fn run_twice(parked: pellucid_vcpu::Parked) {
/// let running = parked.run(|_| {});
/// let registers = parked.vcpu(0);
/// # }
/// ```
#[must_use = "parked vCPUs do nothing until they run"]
pub struct Parked {
    // Teardown order: the vCPUs, the memory and the VM underneath.
    vcpus: Vec<ParkedVcpu>,
    memory: GuestMemory,
    vm: Arc<Vm>,
}

/// One of them.
pub(crate) struct ParkedVcpu {
    pub(crate) fd: VcpuFd,
    pub(crate) page: RunPage,
    pub(crate) stats: Option<StatsFile>,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) dispatch: Dispatch,
    pub(crate) cpus: Arc<CpuHold>,
}

impl Parked {
    /// Makes the plan's vCPUs. The first will begin at `entry`; the others wait for it to start them.
    pub fn create(partition: &Populated, entry: Entry, policy: &VcpuPolicy) -> Result<Self, ParkError> {
        let vm = partition.vm();
        let plan = partition.plan().vcpus() as u32;
        let topology = policy.topology.unwrap_or_else(|| Topology::flat(plan));
        if topology.vcpus() != plan {
            return Err(ParkError::Topology {
                topology: topology.vcpus(),
                plan,
            });
        }
        let supported = vm.kvm().get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let supported = supported.map_err(|error| ParkError::Supported { source: os(error) })?;
        let cpuid_shape = CpuidShape {
            hypervisor: policy.hypervisor,
            topology,
            tsc_deadline: vm.kvm().check_extension(Cap::TscDeadlineTimer),
            brand: host_brand(),
        };
        let mut vcpus = Vec::new();
        for vcpu in 0..plan {
            let maker = Maker::create(vm, vcpu)?;
            maker.show_cpuid(&shape(supported.as_slice(), &cpuid_shape, vcpu))?;
            maker.reset_units(entry)?;
            if vcpu == 0 {
                maker.begin_at(entry, partition.memory())?;
            }
            vcpus.push(maker.finish(partition)?);
        }
        tracing::debug!(vcpus = plan, ?entry, "vCPUs are parked");
        Ok(Self {
            vcpus,
            memory: partition.memory().clone(),
            vm: Arc::clone(vm),
        })
    }

    /// Lets the vCPUs run, each in a thread of its own, pinned where the plan says so.
    ///
    /// `events` is called on a vCPU's thread when that vCPU ends without having been stopped; it must not wait for the vCPUs.
    pub fn run(self, events: impl Fn(VcpuEvent) + Send + Sync + 'static) -> Result<Running, StartError> {
        Running::start(self, Arc::new(events))
    }

    /// A vCPU, to see or to change what it will begin with.
    #[must_use]
    pub fn vcpu(&self, index: u32) -> Option<&VcpuFd> {
        self.vcpus.get(index as usize).map(|vcpu| &vcpu.fd)
    }

    pub(crate) fn into_seats(self) -> (Vec<Seat>, Meter) {
        let Self { vcpus, memory, vm } = self;
        let (mut seats, mut metered) = (Vec::new(), Vec::new());
        for (
            index,
            ParkedVcpu {
                fd,
                page,
                stats,
                gauge,
                dispatch,
                cpus,
            },
        ) in (0..).zip(vcpus)
        {
            metered.push(Metered {
                gauge: Arc::clone(&gauge),
                stats,
            });
            let line = Arc::new(Line {
                word: StopWord::new(),
                page,
                gauge,
            });
            seats.push(Seat {
                index,
                fd,
                line,
                dispatch,
                cpus,
                _memory: memory.clone(),
                _vm: Arc::clone(&vm),
            });
        }
        (
            seats,
            Meter {
                vcpus: metered.into(),
            },
        )
    }
}

/// Leaves 0x80000002 to 0x80000004 of the processor this runs on.
fn host_brand() -> [[u32; 4]; 3] {
    [2, 3, 4].map(|leaf| {
        let leaf = __cpuid(0x8000_0000 + leaf);
        [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
    })
}

/// The width of a guest's physical addresses: as wide as those of the processor this runs on (leaf 0x80000008).
#[must_use]
pub fn address_bits() -> u8 {
    (__cpuid(0x8000_0008).eax & 0xff).clamp(36, 52) as u8
}
