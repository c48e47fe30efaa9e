//! What KVM and interrupt wiring refuse.

use std::io;
use std::path::PathBuf;

/// KVM refused.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// KVM's device cannot be opened.
    #[error("{path}: {source}; {remedy}", path = path.display(), remedy = open_remedy(source))]
    Open {
        /// The device.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A KVM of another interface version.
    #[error("KVM has interface version {version}, only 12 is supported; use a Linux kernel from 2.6.22 on")]
    Version {
        /// What KVM_GET_API_VERSION said.
        version: i32,
    },
    /// A capability is missing.
    #[error("this host's KVM lacks {capability}; use a newer kernel")]
    Lacks {
        /// Its name in linux/kvm.h.
        capability: &'static str,
    },
    /// A step of creating the VM failed.
    #[error("{ioctl}: {source}")]
    Refused {
        /// The ioctl.
        ioctl: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A memory slot was refused.
    #[error("KVM refused memory at {guest:#x}, {size:#x} bytes: {source}")]
    Slot {
        /// Guest-physical address.
        guest: u64,
        /// Bytes.
        size: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No memory slot is left.
    #[error("all {most} memory slots of KVM are in use")]
    NoSlot {
        /// How many this KVM has.
        most: usize,
    },
}

impl VmError {
    pub(crate) fn refused(ioctl: &'static str, error: kvm_ioctls::Error) -> Self {
        Self::Refused {
            ioctl,
            source: crate::vm::errno(error),
        }
    }
}

/// Interrupt wiring refused.
#[derive(Debug, thiserror::Error)]
pub enum InterruptError {
    /// A line beyond the I/O APIC.
    #[error("GSI {gsi} is not a line; lines are the I/O APIC's pins 0 to 23")]
    NoSuchPin {
        /// The interrupt.
        gsi: u32,
    },
    /// No eventfd.
    #[error("no eventfd for GSI {gsi}: {source}; raise the open file limit (ulimit -n)")]
    Eventfd {
        /// The interrupt.
        gsi: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// KVM_IRQFD refused.
    #[error("KVM_IRQFD for GSI {gsi}: {source}")]
    Connect {
        /// The interrupt.
        gsi: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// KVM_SET_GSI_ROUTING refused.
    #[error("KVM_SET_GSI_ROUTING for GSI {gsi}: {source}")]
    Route {
        /// The interrupt.
        gsi: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// KVM_SIGNAL_MSI refused.
    #[error("KVM_SIGNAL_MSI to {address:#x}: {source}")]
    Send {
        /// Where the message was to be written.
        address: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Every route is taken.
    #[error("all {most} message-signalled routes of this VM are in use")]
    NoRoute {
        /// How many there are.
        most: u32,
    },
}

fn open_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "load the kvm_amd or kvm_intel module and enable virtualization in the firmware"
        }
        io::ErrorKind::PermissionDenied => "join the group kvm or run as root",
        _ => "is this a KVM device?",
    }
}
