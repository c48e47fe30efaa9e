//! Base address registers as a guest sees them, and the one state machine that says which of them are open to it:
//! a function of memory, I/O and ROM enable, power state and register values.

use pellucid_partition::Bdf;

use crate::config::ConfigTable;
use crate::inventory::BarKind;

mod shape;

pub use shape::BarShape;

/// What the registers say at one moment. The default is a function that answers nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decode {
    /// Memory decoding is enabled.
    pub memory: bool,
    /// I/O decoding is enabled.
    pub io: bool,
    /// The expansion ROM is enabled.
    pub rom: bool,
    /// The function is in power state D0.
    pub awake: bool,
    /// The value of each register of [`BarShape`], in the same order: the address, without type bits.
    pub addresses: Vec<u64>,
}

/// An open BAR: its number and where.
pub type Open = (u8, u64);

impl Decode {
    /// What the registers in `table` say, with the command register and the power state as the hardware has them.
    #[must_use]
    pub fn of(table: &ConfigTable, bars: &[BarShape], command: u16, power: u16) -> Decode {
        // A function that is gone reads all ones.
        if command == u16::MAX {
            return Decode::default();
        }
        let register = |bar: &BarShape| {
            let low = u64::from(table.dword(bar.place()));
            let high = if bar.is_64bit() {
                table.dword(bar.place() + 4)
            } else {
                0
            };
            u64::from(high) << 32 | low
        };
        Decode {
            memory: command & 2 != 0,
            io: command & 1 != 0,
            rom: bars
                .iter()
                .any(|bar| bar.is_rom() && table.dword(bar.place()) & 1 != 0),
            awake: power & 3 == 0,
            addresses: bars
                .iter()
                .map(|bar| register(bar) & bar.address_mask())
                .collect(),
        }
    }

    /// The BARs that are open to the guest in this state. Not those whose address is no place for a device; of two at one place,
    /// which on hardware would answer both, the one with the lower number.
    #[must_use]
    pub fn open(&self, bars: &[BarShape], allowed: &Allowed) -> Vec<Open> {
        let mut open: Vec<(&BarShape, u64)> = Vec::new();
        for (bar, address) in bars.iter().zip(&self.addresses) {
            let enabled = match bar.kind {
                BarKind::Io => self.io,
                _ if bar.is_rom() => self.memory && self.rom,
                _ => self.memory,
            };
            let decodes = enabled && self.awake && allowed.holds(bar, *address);
            if decodes && !open.iter().any(|other| bar.meets(*address, *other)) {
                open.push((bar, *address));
            }
        }
        open.iter().map(|(bar, address)| (bar.index, *address)).collect()
    }
}

/// The guest's device windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// Memory, below or above 4 GiB.
    pub memory: Vec<std::ops::Range<u64>>,
    /// I/O ports.
    pub io: std::ops::Range<u64>,
}

impl Allowed {
    /// Whether a BAR at `address` lies in a window whole.
    #[must_use]
    pub fn holds(&self, bar: &BarShape, address: u64) -> bool {
        let Some(end) = address.checked_add(bar.size) else {
            return false;
        };
        let inside = |window: &std::ops::Range<u64>| window.start <= address && end <= window.end;
        if bar.kind == BarKind::Io {
            inside(&self.io)
        } else {
            self.memory.iter().any(inside)
        }
    }
}

/// The difference between two states: what to close before the hardware is told, and what to open after.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// Closed first: otherwise the guest would reach a range that the device no longer answers in, which is SIGBUS.
    pub close: Vec<Open>,
    /// Opened last.
    pub open: Vec<Open>,
}

impl Change {
    /// From what is open now to what shall be.
    #[must_use]
    pub fn between(now: &[Open], wanted: &[Open]) -> Change {
        Change {
            close: now
                .iter()
                .filter(|open| !wanted.contains(open))
                .copied()
                .collect(),
            open: wanted
                .iter()
                .filter(|open| !now.contains(open))
                .copied()
                .collect(),
        }
    }
}

/// Names a range of a device on a bus.
pub(crate) fn range_name(device: Bdf, bar: u8) -> String {
    if bar == BarShape::ROM {
        return format!("{device} ROM");
    }
    format!("{device} BAR {bar}")
}
