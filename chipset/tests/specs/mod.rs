//! Root ports for tests.
#![allow(dead_code, reason = "each test binary uses some of them")]

use pellucid_chipset::{BusNumbers, Link, PortIdentity, PortKind, RootPortSpec, Windows};

/// A port on bus 0 to the buses from `secondary` to `subordinate`, with slot 5 and an 8 GT/s x4 link.
pub(crate) fn port(secondary: u8, subordinate: u8) -> RootPortSpec {
    RootPortSpec {
        kind: PortKind::Root,
        identity: PortIdentity {
            vendor: 0x8086,
            device: 0x1234,
            revision: 3,
            subsystem: Some((0x1028, 0x0a1b)),
        },
        buses: BusNumbers {
            primary: 0,
            secondary,
            subordinate,
        },
        windows: Windows {
            io: 0x2000..0x4000,
            memory: 0xc010_0000..0xc030_0000,
            prefetchable: 0x40_0010_0000..0x40_4000_0000,
        },
        link: Link { speed: 3, width: 4 },
        slot: Some(5),
        hot_plug: false,
        number: 1,
    }
}

/// A port on bus `primary` to the one bus `secondary`.
pub(crate) fn behind(primary: u8, secondary: u8) -> RootPortSpec {
    let mut spec = port(secondary, secondary);
    spec.buses.primary = primary;
    spec
}

/// A port for an onboard device: no slot, no subsystem, closed windows.
pub(crate) fn onboard() -> RootPortSpec {
    let mut spec = port(1, 1);
    (spec.slot, spec.identity.subsystem, spec.windows) = (None, None, Windows::default());
    spec
}
