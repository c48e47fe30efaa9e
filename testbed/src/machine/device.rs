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
    /// An Intel 82540EM network controller on a user-mode network: conventional PCI with INTx only, and ports in a BAR.
    /// Reset methods: none.
    E1000 {
        /// Where it is.
        place: Place,
    },
    /// An Intel 82576 network controller with SR-IOV on a user-mode network; needs QEMU 8.
    Igb {
        /// Where it is.
        place: Place,
    },
    /// QEMU's device for teaching: a BAR, DMA to any address, and an interrupt.
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
    /// Behind a root port at `00:slot.0`. The firmware numbers the buses in the
    /// order of the slots: the first port's device is `01:00.0`.
    Port {
        /// The slot of the port, which is also its physical slot number.
        slot: u8,
        /// The function, 0 to 7.
        function: u8,
    },
    /// Behind a switch that is behind a root port at `00:slot.0`. The firmware gives the switch's own two levels a bus each.
    Switch {
        /// The slot of the root port.
        slot: u8,
        /// Which downstream port of the switch, 0 to 31.
        downstream: u8,
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

    /// The place behind a root port at `00:slot.0`, as function 0 there.
    pub fn port(slot: u8) -> Self {
        Self::Port { slot, function: 0 }
    }

    /// The place behind the first downstream port of a switch behind a root port at `00:slot.0`.
    pub fn switch(slot: u8) -> Self {
        Self::Switch { slot, downstream: 0 }
    }

    /// The same place as another function of it.
    #[must_use]
    pub fn function(self, function: u8) -> Self {
        match self {
            Self::Root { slot, .. } => Self::Root { slot, function },
            Self::Port { slot, .. } => Self::Port { slot, function },
            Self::Switch { .. } => self,
        }
    }
}

impl Device {
    /// Where it is.
    pub fn place(&self) -> Place {
        match self {
            Self::Nvme { place, .. }
            | Self::E1000 { place }
            | Self::E1000e { place }
            | Self::Igb { place }
            | Self::Edu { place } => *place,
        }
    }
}
