//! Why a function could not be wired to a guest, or placed in it.

use std::io;

use pellucid_partition::{Bdf, BusError, InterruptError, MemoryError, VmError};

/// A function could not be wired to a guest.
#[derive(Debug, thiserror::Error)]
pub enum AssignError {
    /// The IOMMU's address ranges do not hold the guest's memory.
    #[error(
        "guest memory {start:#x}..{end:#x} is outside what this IOMMU maps ({accepted}); give the guest less memory"
    )]
    OutsideIommu {
        /// First byte.
        start: u64,
        /// Byte behind the last.
        end: u64,
        /// The ranges that would do.
        accepted: String,
    },
    /// Too few mappings left.
    #[error(
        "the IOMMU has {available} mappings left and {wanted} are needed; raise vfio_iommu_type1.dma_entry_limit"
    )]
    TooManyMappings {
        /// How many are left.
        available: u32,
        /// How many are needed.
        wanted: usize,
    },
    /// The IOMMU's pages are larger than those of the guest's memory.
    #[error(
        "guest memory {start:#x}..{end:#x} is not whole pages of this IOMMU, the smallest of which is {page:#x} bytes; use huge pages"
    )]
    PageSize {
        /// First byte.
        start: u64,
        /// Byte behind the last.
        end: u64,
        /// The smallest page.
        page: u64,
    },
    /// More than this process may lock.
    #[error(
        "{wanted:#x} bytes of guest memory cannot be mapped for DMA: RLIMIT_MEMLOCK is {limit:#x} and {locked:#x} are locked already; raise it (`ulimit -l`) or run as root"
    )]
    LockLimit {
        /// Bytes of guest memory.
        wanted: u64,
        /// The limit.
        limit: u64,
        /// What is locked.
        locked: u64,
    },
    /// The guest's memory was not mapped.
    #[error("guest memory cannot be mapped for DMA: {0}")]
    Memory(#[from] MemoryError),
    /// Access to the device failed.
    #[error("device {device}: {act}: {source}")]
    Device {
        /// The function.
        device: Bdf,
        /// What was being done.
        act: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Not the configuration space of a function that can be lent.
    #[error("device {device}: its configuration space cannot be shown to a guest: {wrong}")]
    ConfigSpace {
        /// The function.
        device: Bdf,
        /// What is wrong with it, and what to do.
        wrong: &'static str,
    },
    /// A base address register that no function has.
    #[error("device {device}: BAR {bar}: {wrong}; whoever made this list of BARs is at fault, not the guest")]
    Bar {
        /// The function.
        device: Bdf,
        /// The register, 6 for the ROM.
        bar: u8,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// A range is taken.
    #[error("device {device}: {source}")]
    Bus {
        /// The function.
        device: Bdf,
        /// Which range, and by whom.
        source: BusError,
    },
    /// KVM refused a mapping.
    #[error("device {device}: {source}")]
    Vm {
        /// The function.
        device: Bdf,
        /// What KVM said.
        source: VmError,
    },
    /// KVM refused an interrupt.
    #[error("device {device}: {source}")]
    Interrupt {
        /// The function.
        device: Bdf,
        /// What KVM said.
        source: InterruptError,
    },
}

/// BARs that find no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// The window is too small or too full.
    #[error(
        "device {device}: BAR {bar} of {size:#x} bytes does not fit the guest's {window} window {start:#x}..{end:#x}; lend fewer devices or a wider address space"
    )]
    NoRoom {
        /// The function.
        device: Bdf,
        /// Its register.
        bar: u8,
        /// Bytes.
        size: u64,
        /// Which window.
        window: &'static str,
        /// Its start.
        start: u64,
        /// Its end.
        end: u64,
    },
}
