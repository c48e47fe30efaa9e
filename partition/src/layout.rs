//! The guest-physical map. Pure, and a persisted ABI: a saved guest finds its memory where it was.
//!
//! RAM fills 0 to 3 GiB, then 4 GiB up, node by node. Between lie the 32-bit BAR window, ECAM and the board's fixed addresses. The
//! 64-bit BAR window is the upper half of the address space that CPU and IOMMU both reach. What the IOMMU keeps for itself is
//! avoided.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use vm_memory::GuestAddress;

use crate::error::LayoutError;

mod fit;
mod reach;
mod record;

pub use reach::{Reach, ReservedRange};

/// Where everything lies in a guest's physical address space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "record::Record", into = "record::Record")]
pub struct Layout {
    ram: Vec<RamRange>,
    mmio32: Range<u64>,
    mmio64: Range<u64>,
    address_bits: u8,
}

/// Addresses that are RAM of one of the guest's memory nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RamRange {
    /// First address.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
    /// The guest's node, from 0. Which node of the host backs it is not part of the map.
    pub node: u32,
}

impl Layout {
    /// Page tables and descriptors of the entry state, written by the run loops.
    pub const ENTRY_PAGES: Range<u64> = 0x9000..0x1_0000;
    /// The Linux boot parameters, or PVH's start info.
    pub const BOOT_PARAMS: GuestAddress = GuestAddress(0x1_0000);
    /// The kernel's command line, up to [`Layout::COMMAND_LINE_LIMIT`] bytes.
    pub const COMMAND_LINE: GuestAddress = GuestAddress(0x2_0000);
    /// Bytes that the command line may take, its end mark included.
    pub const COMMAND_LINE_LIMIT: u64 = 0x1_0000;
    /// Legacy video and option ROM space: no RAM is described from here to 1 MiB.
    pub const LEGACY: Range<u64> = 0xa_0000..0x10_0000;
    /// The ACPI root pointer and tables.
    pub const ACPI: Range<u64> = 0xe_0000..0xf_0000;
    /// SMBIOS: the entry point, which operating systems look for here, and the table behind it.
    pub const SMBIOS: Range<u64> = 0xf_0000..0x10_0000;
    /// Where kernels may be loaded.
    pub const HIGH_MEMORY: GuestAddress = GuestAddress(0x10_0000);
    /// What is set aside for the 32-bit BAR window; [`Layout::mmio32`] is the part of it that devices reach.
    pub const MMIO32: Range<u64> = 0xc000_0000..0xe000_0000;
    /// The PCI configuration window: 256 buses of 1 MiB.
    pub const ECAM: Range<u64> = 0xe000_0000..0xf000_0000;
    /// Three pages for KVM's task state segment (Intel hosts without unrestricted guest).
    pub const KVM_TSS: u64 = 0xfeff_d000;
    /// One page for KVM's identity map, below its TSS.
    pub const KVM_IDENTITY_MAP: u64 = 0xfeff_c000;
    /// Where firmware may be: it ends at 4 GiB, below its reset vector.
    pub const FIRMWARE: Range<u64> = 0xff00_0000..0x1_0000_0000;
    /// The PCI configuration window that older builds of OVMF program; a server that boots by firmware has no RAM here.
    pub const FIRMWARE_ECAM: Range<u64> = 0xb000_0000..0xc000_0000;
    /// The narrowest address width that is planned for: a common older or emulated IOMMU.
    pub const MIN_ADDRESS_BITS: u8 = 39;

    /// A map for `memory` bytes of RAM on one node inside `address_bits` of physical address space.
    ///
    /// Refuses sizes that no kernel boots in, that are not whole 2 MiB pages, or that reach the 64-bit BAR window.
    pub fn new(memory: u64, address_bits: u8) -> Result<Self, LayoutError> {
        Self::check_size(memory)?;
        Self::fit(&[memory], GRANULE, &Reach::bits(address_bits)?)
    }

    /// RAM in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.ram.iter().map(RamRange::size).sum()
    }

    /// RAM from address 0 up to the first hole, in bytes: what a boot loader may use.
    #[must_use]
    pub fn ram_below(&self) -> u64 {
        let grow = |end, range: &RamRange| if range.start == end { range.end } else { end };
        self.ram.iter().fold(0, grow)
    }

    /// Physical address width that the map keeps to.
    #[must_use]
    pub fn address_bits(&self) -> u8 {
        self.address_bits
    }

    /// The addresses that are RAM, ascending.
    #[must_use]
    pub fn ram(&self) -> &[RamRange] {
        &self.ram
    }

    /// The BAR window below 4 GiB.
    #[must_use]
    pub fn mmio32(&self) -> Range<u64> {
        self.mmio32.clone()
    }

    /// The 64-bit BAR window, in the upper half of the address space.
    #[must_use]
    pub fn mmio64(&self) -> Range<u64> {
        self.mmio64.clone()
    }
}

impl RamRange {
    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.end - self.start
    }
}

const FOUR_GIB: u64 = 1 << 32;
const GRANULE: u64 = 2 << 20;
const MIN_MEMORY: u64 = 16 << 20;
