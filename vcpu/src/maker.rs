//! The making of one vCPU: each part of its state, and KVM's refusal of it by name.

use std::ptr::NonNull;
use std::sync::Arc;

use kvm_bindings::{CpuId, Msrs, kvm_cpuid_entry2, kvm_fpu, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use pellucid_partition::{Entry, GuestAddress, GuestMemory, Layout, Populated, Vm, keep_from_children};

use crate::dispatch::Dispatch;
use crate::error::ParkError;
use crate::machine_check::{banks_of_host, limit_banks};
use crate::meter::Gauge;
use crate::parked::ParkedVcpu;
use crate::registers::entry_state;
use crate::stats::StatsFile;
use crate::sys::run_page::RunPage;

/// One vCPU under work.
pub(crate) struct Maker {
    vcpu: u32,
    fd: VcpuFd,
}

impl Maker {
    /// A new vCPU of `vm`, with as many error banks as the host's processors.
    pub(crate) fn create(vm: &Vm, vcpu: u32) -> Result<Self, ParkError> {
        let refused = |source| ParkError::Create { vcpu, source };
        let size = vm.kvm().get_vcpu_mmap_size().map_err(os).map_err(refused)?;
        let mut fd = vm
            .fd()
            .create_vcpu(u64::from(vcpu))
            .map_err(os)
            .map_err(refused)?;
        // They hold the virtual machine open, and so the VFIO groups that it knows.
        let page = NonNull::from(fd.get_kvm_run()).cast();
        keep_from_children(page, size).map_err(refused)?;
        if let Some(banks) = banks_of_host() {
            limit_banks(&fd, banks);
        }
        Ok(Self { vcpu, fd })
    }

    pub(crate) fn show_cpuid(&self, entries: &[kvm_cpuid_entry2]) -> Result<(), ParkError> {
        let table = CpuId::from_entries(entries);
        let table = table.map_err(|_| self.state("KVM_SET_CPUID2")(kvm_ioctls::Error::new(libc::E2BIG)))?;
        self.fd.set_cpuid2(&table).map_err(self.state("KVM_SET_CPUID2"))
    }

    /// FPU, MSRs and local APIC as firmware would have left them.
    pub(crate) fn reset_units(&self, entry: Entry) -> Result<(), ParkError> {
        // KVM_SET_FPU does not look at MXCSR, which KVM resets to its default by itself.
        let fpu = kvm_fpu {
            fcw: 0x37f,
            ..Default::default()
        };
        self.fd.set_fpu(&fpu).map_err(self.state("KVM_SET_FPU"))?;
        if entry == Entry::Reset {
            return Ok(());
        }
        self.write_msr(MTRR_DEF_TYPE, MTRR_ENABLED | MTRR_WRITE_BACK)?;
        self.write_msr(MISC_ENABLE, self.read_msr(MISC_ENABLE)? | FAST_STRINGS)?;
        let mut lapic = self.fd.get_lapic().map_err(self.state("KVM_GET_LAPIC"))?;
        for (register, mode) in [(LVT_LINT0, EXT_INT), (LVT_LINT1, NMI)] {
            for (to, byte) in lapic.regs[register..].iter_mut().zip(mode.to_le_bytes()) {
                *to = byte as _;
            }
        }
        self.fd.set_lapic(&lapic).map_err(self.state("KVM_SET_LAPIC"))
    }

    pub(crate) fn begin_at(&self, entry: Entry, memory: &GuestMemory) -> Result<(), ParkError> {
        let regs = self.fd.get_regs().map_err(self.state("KVM_GET_REGS"))?;
        let sregs = self.fd.get_sregs().map_err(self.state("KVM_GET_SREGS"))?;
        let Some(state) = entry_state(entry, (regs, sregs)) else {
            let cs_base = if let Entry::Real { cs_base, .. } = entry {
                cs_base.0
            } else {
                0
            };
            return Err(ParkError::RealEntry { cs_base });
        };
        let address = Layout::ENTRY_PAGES.start;
        memory
            .write(GuestAddress(address), &state.tables)
            .map_err(|source| ParkError::Memory { address, source })?;
        self.fd
            .set_sregs(&state.sregs)
            .map_err(self.state("KVM_SET_SREGS"))?;
        self.fd.set_regs(&state.regs).map_err(self.state("KVM_SET_REGS"))
    }

    pub(crate) fn finish(self, partition: &Populated) -> Result<ParkedVcpu, ParkError> {
        let page = RunPage::map(&self.fd);
        let page = page.map_err(|source| ParkError::State {
            vcpu: self.vcpu,
            step: "mmap of kvm_run",
            source,
        })?;
        // Kernels before 5.14 have none: the counters then tell only what reached this process.
        let stats = StatsFile::open(&self.fd)
            .inspect_err(
                |error| tracing::debug!(%error, vcpu = self.vcpu, "no kernel statistics of this vCPU"),
            )
            .ok();
        let gauge = Arc::new(Gauge::default());
        let dispatch = Dispatch::new(partition, Arc::clone(&gauge));
        let cpus = Arc::clone(partition.reserved().cpus());
        Ok(ParkedVcpu {
            fd: self.fd,
            page,
            stats,
            gauge,
            dispatch,
            cpus,
        })
    }

    fn read_msr(&self, index: u32) -> Result<u64, ParkError> {
        let mut msrs = self.msrs(index, 0)?;
        // A register that this processor does not have reads as nothing set.
        let read = self.fd.get_msrs(&mut msrs).map_err(self.state("KVM_GET_MSRS"))?;
        Ok(msrs
            .as_slice()
            .first()
            .filter(|_| read == 1)
            .map_or(0, |entry| entry.data))
    }

    fn write_msr(&self, index: u32, data: u64) -> Result<(), ParkError> {
        let msrs = self.msrs(index, data)?;
        match self.fd.set_msrs(&msrs).map_err(self.state("KVM_SET_MSRS"))? {
            1 => Ok(()),
            _ => Err(ParkError::Msr {
                vcpu: self.vcpu,
                msr: index,
                value: data,
            }),
        }
    }

    fn msrs(&self, index: u32, data: u64) -> Result<Msrs, ParkError> {
        let one = [kvm_msr_entry {
            index,
            data,
            ..Default::default()
        }];
        Msrs::from_entries(&one).map_err(|_| self.state("KVM_SET_MSRS")(kvm_ioctls::Error::new(libc::E2BIG)))
    }

    fn state(&self, step: &'static str) -> impl Fn(kvm_ioctls::Error) -> ParkError + use<> {
        let vcpu = self.vcpu;
        move |error| ParkError::State {
            vcpu,
            step,
            source: os(error),
        }
    }
}

pub(crate) fn os(error: kvm_ioctls::Error) -> std::io::Error {
    std::io::Error::from_raw_os_error(error.errno())
}

/// Intel SDM vol. 4: IA32_MTRR_DEF_TYPE and IA32_MISC_ENABLE.
const MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLED: u64 = 1 << 11;
const MTRR_WRITE_BACK: u64 = 6;
const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
/// Intel SDM vol. 3, "Local Vector Table": virtual wire mode.
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
const EXT_INT: u32 = 0x700;
const NMI: u32 = 0x400;
