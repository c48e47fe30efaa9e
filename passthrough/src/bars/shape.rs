//! One base address register: its kind, its size, and what its bits mean.

use crate::inventory::{Bar, BarKind};
use crate::transport::{RegionIndex, Transport};

/// A base address register with the address that it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarShape {
    /// 0 to 5, or [`BarShape::ROM`].
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Bytes, a power of two.
    pub size: u64,
    /// Where the guest finds it at first; 0: nowhere, the guest is to place it.
    pub address: u64,
}

impl BarShape {
    /// The index that stands for the expansion ROM.
    pub const ROM: u8 = 6;

    /// The host's register with another address.
    #[must_use]
    pub fn of(bar: &Bar, address: u64) -> BarShape {
        BarShape {
            index: bar.index,
            kind: bar.kind,
            size: bar.size,
            address,
        }
    }

    /// An expansion ROM of `size` bytes; None if no register could say so (PCI 3.0, 6.2.5.2: 2 KiB to 16 MiB).
    #[must_use]
    pub fn rom(size: u64, address: u64) -> Option<BarShape> {
        let possible = size.is_power_of_two() && (0x800..=0x100_0000).contains(&size);
        possible.then_some(BarShape {
            index: BarShape::ROM,
            kind: BarKind::Memory32 { prefetchable: false },
            size,
            address,
        })
    }

    /// The expansion ROM of a device, where its register says; 0: the host has not placed it. None: it has none that can be shown.
    #[must_use]
    pub fn rom_of(transport: &dyn Transport) -> Option<BarShape> {
        let size = transport.region(RegionIndex::Rom)?.size;
        let mut register = [0; 4];
        let read = transport.read(RegionIndex::Config, ROM_REGISTER.into(), &mut register);
        let register = read.map_or(0, |()| u32::from_le_bytes(register));
        let rom = BarShape::rom(size, 0)?;
        Some(BarShape {
            address: u64::from(register) & rom.address_mask(),
            ..rom
        })
    }

    /// Whether it is the expansion ROM, which has an enable bit of its own.
    #[must_use]
    pub fn is_rom(&self) -> bool {
        self.index == BarShape::ROM
    }

    /// Whether it takes two registers.
    #[must_use]
    pub fn is_64bit(&self) -> bool {
        matches!(self.kind, BarKind::Memory64 { .. })
    }

    /// The region of the device behind it.
    #[must_use]
    pub fn region(&self) -> RegionIndex {
        if self.is_rom() {
            RegionIndex::Rom
        } else {
            RegionIndex::Bar(self.index)
        }
    }

    /// Where its register is in configuration space.
    #[must_use]
    pub fn place(&self) -> u16 {
        if self.is_rom() {
            ROM_REGISTER
        } else {
            0x10 + u16::from(self.index) * 4
        }
    }

    /// The register's value for an address, with its type bits (PCI 3.0, 6.2.5.1). A ROM's enable bit is off.
    #[must_use]
    pub fn register(&self, address: u64) -> u64 {
        let kind = match self.kind {
            BarKind::Io => 1,
            BarKind::Memory32 { prefetchable } => u64::from(prefetchable) << 3,
            BarKind::Memory64 { prefetchable } => 4 | u64::from(prefetchable) << 3,
        };
        (address & self.address_mask()) | kind
    }

    /// The bits that are an address: those above the size.
    #[must_use]
    pub fn address_mask(&self) -> u64 {
        let above = !(self.size.max(self.least()) - 1);
        if self.is_64bit() {
            above
        } else {
            above & 0xffff_ffff
        }
    }

    /// The bits that a guest can write: the address, and a ROM's enable bit.
    #[must_use]
    pub fn write_mask(&self) -> u64 {
        self.address_mask() | u64::from(self.is_rom())
    }

    /// Refuses registers that no function has: the number of the first, and what is wrong with it.
    pub(crate) fn check(bars: &[BarShape]) -> Result<(), (u8, &'static str)> {
        let mut taken = [false; 7];
        for bar in bars {
            let last = bar.index + u8::from(bar.is_64bit());
            let wrong = match bar.kind {
                _ if bar.index > BarShape::ROM => Some("there is no such register"),
                BarKind::Io | BarKind::Memory64 { .. } if bar.is_rom() => Some("a ROM is 32-bit memory"),
                BarKind::Memory64 { .. } if last > 5 => Some("a 64-bit register needs the one behind it"),
                _ if !bar.size.is_power_of_two() => Some("its size is not a power of two"),
                _ if bar.size < bar.least() => Some("it is smaller than its register can say"),
                BarKind::Io | BarKind::Memory32 { .. } if bar.size > 1 << 31 => {
                    Some("it is larger than a 32-bit register can say")
                }
                _ => None,
            };
            if let Some(wrong) = wrong {
                return Err((bar.index, wrong));
            }
            for index in bar.index..=last {
                if std::mem::replace(&mut taken[usize::from(index)], true) {
                    return Err((bar.index, "it overlaps another register"));
                }
            }
        }
        Ok(())
    }

    fn least(&self) -> u64 {
        match self.kind {
            BarKind::Io => 4,
            _ if self.is_rom() => 0x800,
            _ => 16,
        }
    }

    /// Whether the two, at these addresses, decode an address both.
    pub(super) fn meets(&self, address: u64, (other, elsewhere): (&BarShape, u64)) -> bool {
        let same_space = (self.kind == BarKind::Io) == (other.kind == BarKind::Io);
        same_space && address < elsewhere + other.size && elsewhere < address + self.size
    }
}

/// PCI 3.0, 6.2.5.2.
const ROM_REGISTER: u16 = 0x30;
