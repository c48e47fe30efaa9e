//! Stopped: no thread is in the guest any more, and every vCPU's state may be read. Nothing runs again from here.

use kvm_ioctls::VcpuFd;

use crate::event::{Crash, SystemRequest};
use crate::meter::{ExitCounts, Meter};

/// All vCPUs of a partition, out of the guest for good.
#[derive(Debug)]
#[must_use = "it says how each vCPU ended"]
pub struct Stopped {
    pub(crate) vcpus: Vec<StoppedVcpu>,
    pub(crate) meter: Meter,
}

/// One stopped vCPU.
#[derive(Debug)]
pub struct StoppedVcpu {
    pub(crate) index: u32,
    pub(crate) end: End,
    pub(crate) fd: VcpuFd,
}

/// How a vCPU came to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its owner stopped it.
    Requested {
        /// Whether the accesses that the guest had begun were completed, so that its state is consistent.
        io_complete: bool,
    },
    /// It asked the hypervisor for something, which was told as an event.
    System(SystemRequest),
    /// It crashed, which was told as an event.
    Crashed(Crash),
}

impl Stopped {
    /// The vCPUs in order.
    #[must_use]
    pub fn vcpus(&self) -> &[StoppedVcpu] {
        &self.vcpus
    }

    /// Their final counters.
    #[must_use]
    pub fn exits(&self) -> Vec<ExitCounts> {
        self.meter.exits()
    }
}

impl StoppedVcpu {
    /// Its number and APIC id.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// How it came to stop.
    #[must_use]
    pub fn end(&self) -> &End {
        &self.end
    }

    /// The vCPU, for its registers and everything else that KVM tells of it.
    #[must_use]
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }
}
