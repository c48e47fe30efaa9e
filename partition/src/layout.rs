//! The guest-physical map. Pure, and a persisted ABI: a saved guest finds its memory where it was.
//!
//! RAM fills 0 to 3 GiB, then 4 GiB up. Between lie the 32-bit BAR window, ECAM and the board's fixed addresses. The 64-bit BAR
//! window is the upper half of the address space that CPU and IOMMU both reach, so a 39-bit IOMMU is no special case.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use vm_memory::GuestAddress;

use crate::error::LayoutError;

/// Where everything lies in a guest's physical address space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    ram_below: u64,
    ram_above: u64,
    address_bits: u8,
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
    pub const ACPI: Range<u64> = 0xe_0000..0x10_0000;
    /// Where kernels may be loaded.
    pub const HIGH_MEMORY: GuestAddress = GuestAddress(0x10_0000);
    /// The 32-bit BAR window.
    pub const MMIO32: Range<u64> = 0xc000_0000..0xe000_0000;
    /// The PCI configuration window: 256 buses of 1 MiB.
    pub const ECAM: Range<u64> = 0xe000_0000..0xf000_0000;
    /// Three pages for KVM's task state segment (Intel hosts without unrestricted guest).
    pub const KVM_TSS: u64 = 0xfffb_d000;
    /// One page for KVM's identity map, below its TSS.
    pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
    /// The narrowest address width that is planned for: a common older or emulated IOMMU.
    pub const MIN_ADDRESS_BITS: u8 = 39;

    /// A map for `memory` bytes of RAM (a multiple of 2 MiB) inside `address_bits` of physical address space.
    ///
    /// Refuses sizes that no kernel boots in, that are not whole 2 MiB pages, or that reach the 64-bit BAR window.
    pub fn new(memory: u64, address_bits: u8) -> Result<Self, LayoutError> {
        if memory < MIN_MEMORY {
            return Err(LayoutError::TooSmall {
                memory,
                least: MIN_MEMORY,
            });
        }
        if !memory.is_multiple_of(GRANULE) {
            let lower = memory / GRANULE * GRANULE;
            return Err(LayoutError::Uneven {
                memory,
                lower,
                upper: lower.saturating_add(GRANULE),
            });
        }
        if !(Self::MIN_ADDRESS_BITS..=52).contains(&address_bits) {
            return Err(LayoutError::AddressBits { bits: address_bits });
        }
        let ram_below = memory.min(Self::MMIO32.start);
        let layout = Self {
            ram_below,
            ram_above: memory - ram_below,
            address_bits,
        };
        let most = layout.mmio64().start - FOUR_GIB + Self::MMIO32.start;
        if memory > most {
            return Err(LayoutError::TooLarge {
                memory,
                most,
                bits: address_bits,
            });
        }
        Ok(layout)
    }

    /// RAM in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.ram_below + self.ram_above
    }

    /// RAM below 4 GiB in bytes; it starts at 0.
    #[must_use]
    pub fn ram_below(&self) -> u64 {
        self.ram_below
    }

    /// RAM above 4 GiB in bytes; it starts at 4 GiB.
    #[must_use]
    pub fn ram_above(&self) -> u64 {
        self.ram_above
    }

    /// Physical address width that the map keeps to.
    #[must_use]
    pub fn address_bits(&self) -> u8 {
        self.address_bits
    }

    /// The ranges that are RAM, ascending.
    #[must_use]
    pub fn ram(&self) -> Vec<Range<u64>> {
        let mut ranges = vec![Range {
            start: 0,
            end: self.ram_below,
        }];
        if self.ram_above > 0 {
            ranges.push(FOUR_GIB..FOUR_GIB + self.ram_above);
        }
        ranges
    }

    /// The 64-bit BAR window: the upper half of the address space.
    #[must_use]
    pub fn mmio64(&self) -> Range<u64> {
        1 << (self.address_bits - 1)..1 << self.address_bits
    }
}

const FOUR_GIB: u64 = 1 << 32;
const GRANULE: u64 = 2 << 20;
const MIN_MEMORY: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn four_gibibytes_leave_a_hole_for_devices() {
        let layout = Layout::new(4 << 30, 39).unwrap();
        assert_eq!(layout.ram(), vec![0..0xc000_0000, 0x1_0000_0000..0x1_4000_0000]);
    }

    #[test]
    fn a_size_without_its_unit_is_told_as_it_was_given() {
        let refusal = Layout::new(64, 39).unwrap_err().to_string();
        assert!(refusal.starts_with("64 bytes of memory"), "{refusal}");
    }

    #[test]
    fn a_refusal_says_what_would_have_been_accepted() {
        assert!(
            Layout::new(1 << 20, 39)
                .unwrap_err()
                .to_string()
                .contains("16 MiB")
        );
        let uneven = Layout::new((64 << 20) + 1, 39).unwrap_err();
        assert_eq!(
            uneven,
            LayoutError::Uneven {
                memory: (64 << 20) + 1,
                lower: 64 << 20,
                upper: 66 << 20
            }
        );
        assert!(Layout::new(1 << 40, 39).unwrap_err().to_string().contains("GiB"));
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_all_memory_is_there(mebibytes in 8u64..400_000, bits in 39u8..=52) {
            let Ok(layout) = Layout::new((mebibytes * 2) << 20, bits) else { return Ok(()) };
            let mut all = layout.ram();
            prop_assert_eq!(all.iter().map(|r| r.end - r.start).sum::<u64>(), (mebibytes * 2) << 20);
            all.extend([Layout::MMIO32, Layout::ECAM, layout.mmio64()]);
            all.sort_by_key(|range| range.start);
            prop_assert!(all.windows(2).all(|pair| pair[0].end <= pair[1].start));
            prop_assert!(all.iter().all(|range| range.end <= 1 << bits));
        }
    }
}
