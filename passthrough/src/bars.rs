//! Base address registers as a guest sees them, and the one state machine that says which of them are open to it:
//! a function of memory and I/O enable, power state and register values.

use pellucid_partition::Bdf;

use crate::inventory::{Bar, BarKind};

/// A base address register with the address that it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarShape {
    /// 0 to 5.
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Bytes, a power of two.
    pub size: u64,
    /// Where the guest finds it at first; 0: nowhere, the guest is to place it.
    pub address: u64,
}

impl BarShape {
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

    /// Whether it takes two registers.
    #[must_use]
    pub fn is_64bit(&self) -> bool {
        matches!(self.kind, BarKind::Memory64 { .. })
    }

    /// The register's value for an address, with its type bits (PCI 3.0, 6.2.5.1).
    #[must_use]
    pub fn register(&self, address: u64) -> u64 {
        let kind = match self.kind {
            BarKind::Io => 1,
            BarKind::Memory32 { prefetchable } => u64::from(prefetchable) << 3,
            BarKind::Memory64 { prefetchable } => 4 | u64::from(prefetchable) << 3,
        };
        (address & self.write_mask()) | kind
    }

    /// The bits that a guest can write: those above the size.
    #[must_use]
    pub fn write_mask(&self) -> u64 {
        let above = !(self.size.max(self.least()) - 1);
        if self.is_64bit() {
            above
        } else {
            above & 0xffff_ffff
        }
    }

    fn least(&self) -> u64 {
        if self.kind == BarKind::Io { 4 } else { 16 }
    }
}

/// What the registers say at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decode {
    /// Memory decoding is enabled.
    pub memory: bool,
    /// I/O decoding is enabled.
    pub io: bool,
    /// The function is in power state D0.
    pub awake: bool,
    /// The value of each register of [`BarShape`], in the same order: the address, without type bits.
    pub addresses: Vec<u64>,
}

/// An open BAR: its number and where.
pub type Open = (u8, u64);

impl Decode {
    /// The BARs that are open to the guest in this state. Those whose address is no place for a device are not.
    #[must_use]
    pub fn open(&self, bars: &[BarShape], allowed: &Allowed) -> Vec<Open> {
        let mut open: Vec<Open> = Vec::new();
        for (bar, address) in bars.iter().zip(&self.addresses) {
            let enabled = if bar.kind == BarKind::Io {
                self.io
            } else {
                self.memory
            };
            if enabled && self.awake && allowed.holds(bar, *address) {
                open.push((bar.index, *address));
            }
        }
        open
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
    format!("{device} BAR {bar}")
}
