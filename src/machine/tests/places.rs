//! Captures of machines that have the devices at many places.

use super::*;

/// Bridges from bus 00 down, each with its first and last bus; the devices' addresses, the card behind the bridges if
/// it is not on bus 00, else the controller; the slot behind the last bridge.
pub(super) struct Place {
    pub(super) bridges: Vec<(&'static str, u8, u8)>,
    pub(super) nvme: &'static str,
    pub(super) card: &'static str,
    pub(super) slot: Option<u16>,
    /// The card's number on the board.
    pub(super) index: Option<u32>,
}

pub(super) fn plain() -> Place {
    Place {
        bridges: vec![("0000:00:1c.4", 1, 1)],
        nvme: "0000:01:00.0",
        card: "0000:00:1f.6",
        slot: Some(2),
        index: Some(3),
    }
}

/// An entry point (DSP0134, 5.2.2) with a system and perhaps an onboard device, its number and address.
pub(super) fn tables(onboard: Option<(u32, Bdf)>) -> [Vec<u8>; 2] {
    let mut table = vec![1, 8, 1, 0, 1, 2, 3, 4];
    table.extend(b"Example\0Server 1\0v1\0P1\0\0");
    if let Some((index, at)) = onboard {
        table.extend([41, 11, 2, 0, 1, 0x85, index as u8, 0, 0, at.bus(), at.devfn()]);
        table.extend(b"LAN\0\0");
    }
    table.extend([127, 4, 0xff, 0, 0, 0]);
    let mut entry = b"_SM3_\0\x18\x03\x03\0\x01\0".to_vec();
    entry.extend((table.len() as u32).to_le_bytes());
    entry.extend([0; 8]);
    entry[5] = entry.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    [entry, table]
}

/// Devices behind a port, behind ports that have the host's addresses, behind the last bus, inside a switch, below
/// another root bus, and on the root bus.
pub(super) fn places() -> Vec<Place> {
    let switch = vec![
        ("0000:00:03.0", 1, 4),
        ("0000:01:00.0", 2, 4),
        ("0000:02:05.0", 4, 4),
    ];
    let mut places = Vec::new();
    for (bridges, behind) in [
        (vec![("0000:00:1c.4", 1, 1)], "0000:01:00.0"),
        (vec![("0000:00:02.0", 5, 9)], "0000:05:00.0"),
        (vec![("0000:00:01.0", 0x80, 0xff)], "0000:80:00.0"),
        (switch, "0000:04:00.0"),
        (vec![("0000:5d:00.0", 0x5e, 0x5f)], "0000:5e:00.0"),
        (vec![], "0000:00:04.0"),
    ] {
        for beside in ["0000:00:1f.6", "0000:00:19.0", "0000:00:05.0"] {
            for (nvme, card) in [(behind, beside), (beside, behind)] {
                for (slot, index) in [
                    (None, None),
                    (Some(7), None),
                    (Some(8191), Some(3)),
                    (None, Some(4)),
                ] {
                    let bridges = bridges.clone();
                    places.push(Place {
                        bridges,
                        nvme,
                        card,
                        slot,
                        index,
                    });
                }
            }
        }
    }
    places
}
