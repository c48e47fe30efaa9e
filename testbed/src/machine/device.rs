//! The PCI devices a machine can have and the places they can be in.

use std::path::PathBuf;

/// A PCI device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// An NVMe controller with one namespace. Reset methods: FLR.
    Nvme {
        /// Where it is.
        place: Place,
        /// Its serial number.
        serial: String,
        /// What its namespace holds.
        disk: Disk,
    },
    /// An Intel 82574L network controller on a user-mode network. Reset methods: PM.
    E1000e {
        /// Where it is.
        place: Place,
    },
    /// An Intel 82576 network controller with SR-IOV; needs QEMU 8.
    Igb {
        /// Where it is.
        place: Place,
    },
    /// QEMU's device for teaching: a BAR, DMA and an interrupt.
    Edu {
        /// Where it is.
        place: Place,
    },
}

/// Where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the root bus: `00:slot.function`.
    Root {
        /// The slot, 1 to 30.
        slot: u8,
        /// The function, 0 to 7.
        function: u8,
    },
    /// Alone behind a root port at `00:slot.0`. The firmware numbers the buses in the
    /// order of the slots: the first port's device is `01:00.0`.
    Port {
        /// The slot of the port, which is also its physical slot number.
        slot: u8,
    },
}

/// What a disk holds and what becomes of what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disk {
    /// An empty disk, made for this run.
    Scratch {
        /// Its size.
        mebibytes: u32,
    },
    /// A raw image that is written to.
    Kept(PathBuf),
    /// A raw image; what is written is gone when the machine ends.
    Discarded(PathBuf),
}

impl Place {
    /// The place `00:slot.0`.
    pub fn root(slot: u8) -> Self {
        Self::Root { slot, function: 0 }
    }

    /// The place behind a root port at `00:slot.0`.
    pub fn port(slot: u8) -> Self {
        Self::Port { slot }
    }

    /// The address on the root bus that this place takes.
    pub(crate) fn on_root(self) -> (u8, u8) {
        match self {
            Self::Root { slot, function } => (slot, function),
            Self::Port { slot } => (slot, 0),
        }
    }
}

impl Device {
    /// Where it is.
    pub fn place(&self) -> Place {
        match self {
            Self::Nvme { place, .. } | Self::E1000e { place } | Self::Igb { place } | Self::Edu { place } => {
                *place
            }
        }
    }
}
