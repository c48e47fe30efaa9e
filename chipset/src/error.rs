//! What a board cannot be built from, and what refused it.

use pellucid_partition::{Bdf, BusError, InterruptError, VmError};

/// A file that fw_cfg cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fw_cfg cannot have a file {name:?}: {reason}")]
pub struct FwCfgError {
    /// Its name.
    pub name: String,
    /// What is wrong, and what would be right.
    pub reason: &'static str,
}

/// A function or a port that could not be made or placed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PciError {
    /// Another function is there.
    #[error("{bdf} is taken by another function; place this one at a free address")]
    FunctionTaken {
        /// The address.
        bdf: Bdf,
    },
    /// Nothing leads to the function's bus.
    #[error("{bdf} cannot be reached: no root port leads to its bus; place the port first")]
    NoBus {
        /// The address.
        bdf: Bdf,
    },
    /// Another port leads to the port's secondary bus.
    #[error(
        "the port {bdf} cannot have secondary bus {bus:02x}: another port leads there; choose a free bus number"
    )]
    BusTaken {
        /// The port.
        bdf: Bdf,
        /// The bus.
        bus: u8,
    },
    /// The function's domain is not this one.
    #[error("{bdf} is not in domain {domain:04x}, the only one here; change its domain")]
    OtherDomain {
        /// The address.
        bdf: Bdf,
        /// The domain served.
        domain: u16,
    },
    /// Bus numbers that no configuration request would follow.
    #[error(
        "bus numbers {primary:02x}/{secondary:02x}/{subordinate:02x} (primary/secondary/subordinate) must rise: \
         primary below secondary, secondary at most subordinate"
    )]
    Buses {
        /// The bus of the port.
        primary: u8,
        /// The bus behind it.
        secondary: u8,
        /// The last bus behind it.
        subordinate: u8,
    },
    /// An address window that the registers cannot express.
    #[error(
        "the {kind} window {start:#x}..{end:#x} must be made of multiples of {granule:#x} up to {limit:#x}"
    )]
    Window {
        /// Which window.
        kind: &'static str,
        /// First address.
        start: u64,
        /// The address after the last.
        end: u64,
        /// What both must be multiples of.
        granule: u64,
        /// What the end may be at most.
        limit: u64,
    },
    /// A physical slot number that the register cannot express.
    #[error(
        "slot {slot} cannot be shown: slot numbers are 1 to 8191, and a port towards the root has none; leave it out"
    )]
    Slot {
        /// The number.
        slot: u16,
    },
    /// A hot-plug slot without a number.
    #[error("a hot-plug slot must have a slot number, 1 to 8191; give the port one")]
    NoSlot,
    /// A link that PCI Express does not have.
    #[error(
        "a link of speed {speed} and width {width} does not exist: speeds are 1 to 6, widths 1, 2, 4, 8, 12, 16, 32"
    )]
    Link {
        /// The speed code.
        speed: u8,
        /// The lanes.
        width: u8,
    },
}

/// A board that could not be built; whatever was registered has been taken away again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BoardError {
    /// An interrupt line could not be connected.
    #[error("the board's {device} has no interrupt")]
    Interrupt {
        /// The device.
        device: &'static str,
        /// Why.
        source: InterruptError,
    },
    /// A range of ports or addresses could not be registered.
    #[error("the board's {device} has no place on the bus")]
    Bus {
        /// The device.
        device: &'static str,
        /// Why.
        source: BusError,
    },
    /// A PCI function could not be made or placed.
    #[error("the board's function {bdf} cannot be placed")]
    Pci {
        /// The function.
        bdf: Bdf,
        /// Why.
        source: PciError,
    },
    /// Memory for a device could not be had.
    #[error(
        "the board's {device} has no memory: {source}; it is whole pages, and with its variables at most 16 MiB"
    )]
    Memory {
        /// The device.
        device: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// KVM does not do its part of a device.
    #[error("the board's {device} is refused by KVM")]
    Kvm {
        /// The device.
        device: &'static str,
        /// Why.
        source: VmError,
    },
    /// A file for the guest's firmware could not be made.
    #[error(transparent)]
    FwCfg(#[from] FwCfgError),
}
