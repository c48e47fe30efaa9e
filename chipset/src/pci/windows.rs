//! What a root port is built from: identity, bus numbers, link, and the address windows that it forwards, with their encoding.

use std::ops::Range;

use crate::error::PciError;

/// What `lspci -n` shows of a port: mirrored from the host's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortIdentity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision id.
    pub revision: u8,
    /// Subsystem vendor and device id, where the host's port has them.
    pub subsystem: Option<(u16, u16)>,
}

/// A port's three bus numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusNumbers {
    /// The bus that the port is on.
    pub primary: u8,
    /// The bus right behind it.
    pub secondary: u8,
    /// The last bus behind it.
    pub subordinate: u8,
}

/// The addresses that a port forwards at power on; empty ranges are closed windows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Windows {
    /// I/O ports: multiples of 4 KiB below 64 KiB.
    pub io: Range<u32>,
    /// 32-bit memory: multiples of 1 MiB below 4 GiB.
    pub memory: Range<u64>,
    /// 64-bit prefetchable memory: multiples of 1 MiB.
    pub prefetchable: Range<u64>,
}

/// The link behind a port, as its capability and status registers report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// 1 for 2.5 GT/s to 6 for 64 GT/s.
    pub speed: u8,
    /// Lanes: 1, 2, 4, 8, 12, 16 or 32.
    pub width: u8,
}

/// What kind of port it is (PCI Express base 5.0, 7.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PortKind {
    /// Of the root complex.
    #[default]
    Root,
    /// Of a switch, towards the root.
    Upstream,
    /// Of a switch, towards a device.
    Downstream,
}

/// Everything a port shows at power on: a root port, or one of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootPortSpec {
    /// Of the root complex or of a switch.
    pub kind: PortKind,
    /// Whose port it looks like.
    pub identity: PortIdentity,
    /// Its bus numbers.
    pub buses: BusNumbers,
    /// Its address windows.
    pub windows: Windows,
    /// Its link, taken to be up.
    pub link: Link,
    /// The physical slot behind it, 1 to 8191; none for an onboard device.
    pub slot: Option<u16>,
    /// Whether that slot is a hot-plug slot, with something in it at first.
    pub hot_plug: bool,
    /// The port number in its link capabilities.
    pub number: u8,
}

impl BusNumbers {
    pub(crate) fn of_register(register: u32) -> Self {
        let [primary, secondary, subordinate, _] = register.to_le_bytes();
        Self {
            primary,
            secondary,
            subordinate,
        }
    }

    pub(crate) fn register(self) -> u32 {
        u32::from_le_bytes([self.primary, self.secondary, self.subordinate, 0])
    }
}

impl RootPortSpec {
    /// Refuses what no port can be programmed to.
    pub(crate) fn check(&self) -> Result<(), PciError> {
        let BusNumbers {
            primary,
            secondary,
            subordinate,
        } = self.buses;
        if secondary <= primary || subordinate < secondary {
            return Err(PciError::Buses {
                primary,
                secondary,
                subordinate,
            });
        }
        let Windows {
            io,
            memory,
            prefetchable,
        } = &self.windows;
        let io = u64::from(io.start)..u64::from(io.end);
        check_window("I/O", &io, 0x1000, 1 << 16)?;
        check_window("memory", memory, MIB, 1 << 32)?;
        check_window("prefetchable", prefetchable, MIB, 1 << 52)?;
        let no_slot = self.kind == PortKind::Upstream;
        if self
            .slot
            .is_some_and(|slot| slot == 0 || slot > 0x1fff || no_slot)
        {
            return Err(PciError::Slot {
                slot: self.slot.unwrap_or(0),
            });
        }
        if self.hot_plug && self.slot.is_none() {
            return Err(PciError::NoSlot);
        }
        let Link { speed, width } = self.link;
        match (1..=6).contains(&speed) && [1, 2, 4, 8, 12, 16, 32].contains(&width) {
            true => Ok(()),
            false => Err(PciError::Link { speed, width }),
        }
    }
}

impl Windows {
    /// I/O base in bits 7:0, limit in bits 15:8; 16-bit decoding.
    pub(crate) fn io_register(&self) -> u16 {
        match self.io.is_empty() {
            true => 0x00f0,
            false => (self.io.start >> 8) as u16 & 0xf0 | (self.io.end - 1) as u16 & 0xf000,
        }
    }

    /// Memory base and limit.
    pub(crate) fn memory_register(&self) -> u32 {
        window_register(&self.memory)
    }

    /// Prefetchable base and limit, 64-bit decoding, and the two upper halves.
    pub(crate) fn prefetchable_registers(&self) -> [u32; 3] {
        let window = &self.prefetchable;
        match window.is_empty() {
            true => [window_register(window) | 0x0001_0001, 0, 0],
            false => {
                let upper = |address: u64| (address >> 32) as u32;
                [
                    window_register(window) | 0x0001_0001,
                    upper(window.start),
                    upper(window.end - 1),
                ]
            }
        }
    }
}

/// Base in bits 15:0, limit in bits 31:16, each the address bits 31:20; closed is a base above the limit.
fn window_register(window: &Range<u64>) -> u32 {
    match window.is_empty() {
        true => 0x0000_fff0,
        false => (window.start >> 16) as u32 & 0xfff0 | (window.end - 1) as u32 & 0xfff0_0000,
    }
}

fn check_window(kind: &'static str, window: &Range<u64>, granule: u64, limit: u64) -> Result<(), PciError> {
    let even = window.start.is_multiple_of(granule) && window.end.is_multiple_of(granule);
    match window.is_empty() || even && window.end <= limit {
        true => Ok(()),
        false => Err(PciError::Window {
            kind,
            start: window.start,
            end: window.end,
            granule,
            limit,
        }),
    }
}

const MIB: u64 = 1 << 20;
