//! One port of a guest's tree: what it looks like, after the host's or by itself. Pure.

use pellucid_chipset::{BusNumbers, Link, PortIdentity, PortKind, RootPortSpec, Windows};
use pellucid_passthrough::{Ids, Inventory};

/// The kind of a host's port. One whose own word is not known is taken for what ports at its depth are: below a root port, switches
/// have one towards the root and some towards devices.
pub(super) fn kind(express: Option<u8>, depth: usize) -> PortKind {
    match (express, depth) {
        (Some(4), _) | (_, 0) => PortKind::Root,
        (Some(5), _) => PortKind::Upstream,
        (Some(6), _) => PortKind::Downstream,
        (_, depth) if depth % 2 == 1 => PortKind::Upstream,
        _ => PortKind::Downstream,
    }
}

pub(super) fn port(
    kind: PortKind,
    identity: PortIdentity,
    buses: BusNumbers,
    slot: Option<u16>,
) -> RootPortSpec {
    RootPortSpec {
        kind,
        identity,
        buses,
        windows: Windows::default(),
        link: WIDE,
        slot,
        hot_plug: false,
        number: buses.secondary,
    }
}

pub(super) fn identity(ids: &Ids) -> PortIdentity {
    let [vendor, device] = ids.subsystem;
    let subsystem = (vendor != 0).then_some((vendor, device));
    PortIdentity {
        vendor: ids.vendor,
        device: ids.device,
        revision: ids.revision,
        subsystem,
    }
}

/// The number of the slot that the functions of a bus are in, if it is one.
pub(super) fn slot_behind(host: &Inventory, bus: u8) -> Option<u16> {
    let behind = host
        .functions
        .values()
        .find(|f| f.bdf.domain() == 0 && f.bdf.bus() == bus)?;
    slot_number(behind.place.slot.as_deref()?)
}

/// A slot's name as the number that a port can have.
pub(super) fn slot_number(name: &str) -> Option<u16> {
    name.parse().ok().filter(|slot| (1..0x2000).contains(slot))
}

/// Wider than any device behind it, so that no driver believes itself throttled by a port that does not carry its traffic.
const WIDE: Link = Link { speed: 6, width: 32 };
/// A port that no host port stands for: the identity of QEMU's generic one, which every kernel takes without quirks.
pub(super) const PLAIN_PORT: PortIdentity = PortIdentity {
    vendor: 0x1b36,
    device: 0x000c,
    revision: 0,
    subsystem: None,
};
