//! A host's SMBIOS made in memory: a two-socket server with what such machines tell of themselves.

use pellucid_image::{Smbios, SmbiosShare};
use pellucid_partition::{Bdf, Layout};

/// A structure: type, handle, the bytes behind the header, strings.
pub(crate) fn structure(kind: u8, handle: u16, body: &[u8], strings: &[&str]) -> Vec<u8> {
    let mut bytes = vec![kind, body.len() as u8 + 4];
    bytes.extend(handle.to_le_bytes());
    bytes.extend(body);
    for text in strings {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }
    bytes.extend(if strings.is_empty() { &[0, 0][..] } else { &[0] });
    bytes
}

fn body(length: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for (offset, field) in fields {
        bytes[*offset..offset + field.len()].copy_from_slice(field);
    }
    bytes[4..].to_vec()
}

fn processor(handle: u16, socket: &str, status: u8) -> Vec<u8> {
    let fields: &[(usize, &[u8])] = &[
        (0x04, &[1, 3, 0xb3, 2]),
        (0x08, &[0x54, 0x06, 0x05, 0, 0xff, 0xfb, 0xeb, 0xbf]),
        (0x10, &[3, 0x92]),
        (0x14, &[0xa0, 0x0f, 0xb8, 0x0b, status, 0x37]),
        (0x1a, &[0x70, 0, 0x71, 0, 0x72, 0, 4, 5, 6, 20, 20, 40, 0xfc]),
        (0x28, &[0xb3, 0, 20, 0, 20, 0, 40, 0]),
    ];
    structure(
        4,
        handle,
        &body(0x30, fields),
        &[
            socket,
            "Intel(R) Corporation",
            "Intel(R) Xeon(R) Gold 6138",
            "CPU-SERIAL-1",
            "CPU-TAG",
            "P/N 7",
        ],
    )
}

fn cache(handle: u16, level: u8) -> Vec<u8> {
    let fields: &[(usize, &[u8])] = &[(
        0x04,
        &[1, 0x80 | level, 1, 0, 4, 0, 4, 0x20, 0, 0x20, 0, 0, 4, 5, 7],
    )];
    structure(
        7,
        handle,
        &body(0x13, fields),
        &[&format!("CPU Internal L{}", level + 1)],
    )
}

fn dimm(handle: u16, locator: &str, mebibytes: u16) -> Vec<u8> {
    let fields: &[(usize, &[u8])] = &[
        (0x04, &[0x00, 0x10, 0xfe, 0xff, 72, 0, 64, 0]),
        (0x0c, &mebibytes.to_le_bytes()),
        (0x0e, &[9, 1, 1, 2, 0x1a, 0x80, 0, 0x6a, 0x0a, 3, 4, 5, 6, 2]),
    ];
    structure(
        17,
        handle,
        &body(0x28, fields),
        &[
            locator,
            "BANK 0",
            "Samsung",
            "DIMM-SERIAL",
            "DIMM-TAG",
            "M393A4K40BB2",
        ],
    )
}

fn onboard(handle: u16, name: &str, instance: u8, address: [u8; 4]) -> Vec<u8> {
    structure(
        41,
        handle,
        &[&[1, 0x85, instance][..], &address].concat(),
        &[name],
    )
}

fn slot(handle: u16, number: u8, address: [u8; 4]) -> Vec<u8> {
    let fields: &[(usize, &[u8])] = &[
        (0x04, &[1, 0xa5, 0x0b, 4, 4, number, 0, 0x0c, 1]),
        (0x0d, &address),
        (0x11, &[16, 1, 0, 0, 0x81, 0, 8]),
    ];
    structure(9, handle, &body(0x18, fields), &[&format!("SLOT {number}")])
}

/// What the machine is called.
fn identity() -> Vec<u8> {
    let firmware = body(
        0x18,
        &[
            (0x04, &[1, 2, 0, 0xf0, 3, 0xff]),
            (0x12, &[3, 0x0d, 2, 10, 0xff, 0xff]),
        ],
    );
    let system = body(0x1b, &[(0x04, &[1, 2, 3, 4]), (0x08, &UUID), (0x18, &[6, 5, 6])]);
    let board = body(
        0x15,
        &[
            (0x04, &[1, 2, 3, 4, 5, 9, 6]),
            (0x0b, &[0x00, 0x03]),
            (0x0d, &[10, 3, 0, 4, 1, 4, 1, 0x10]),
        ],
    );
    let chassis = body(
        0x16,
        &[(0x04, &[1, 0x17, 2, 3, 4, 3, 3, 3, 2]), (0x11, &[2, 2, 0, 3, 5])],
    );
    [
        structure(0, 0x0000, &firmware, &["Maker Inc.", "2.19.1", "06/04/2026"]),
        structure(
            1,
            0x0100,
            &system,
            &[
                "Maker Inc.",
                "PowerServer R740",
                "A07",
                "SVC-TAG-42",
                "SKU=07",
                "PowerServer",
            ],
        ),
        structure(
            2,
            0x0200,
            &board,
            &[
                "Maker Inc.",
                "08D89F",
                "A07",
                ".BOARD-SERIAL.",
                "asset-7",
                "Slot 00",
            ],
        ),
        structure(
            3,
            0x0300,
            &chassis,
            &["Maker Inc.", "19", "CHASSIS-SERIAL", "rack-12", "chassis-sku"],
        ),
    ]
    .concat()
}

/// The table, all types that matter in it.
pub(crate) fn table() -> Vec<u8> {
    let array = body(
        0x0f,
        &[
            (0x04, &[3, 3, 6]),
            (0x07, &(1u32 << 28).to_le_bytes()),
            (0x0b, &[0xfe, 0xff, 4, 0]),
        ],
    );
    let range = body(
        0x0f,
        &[(0x08, &0x3f_ffff_u32.to_le_bytes()), (0x0c, &[0x00, 0x10, 2])],
    );
    [
        identity(),
        processor(0x0400, "CPU1", 0x41),
        processor(0x0401, "CPU2", 0x41),
        cache(0x0070, 0),
        cache(0x0071, 1),
        cache(0x0072, 2),
        cache(0x0073, 0),
        structure(8, 0x0800, &[1, 0, 2, 7, 5], &["Int", "VGA"]),
        slot(0x0900, 3, [0, 0, 0x3b, 0x00]),
        slot(0x0901, 4, [0, 0, 0x5e, 0x00]),
        structure(11, 0x0b00, &[2], &["licence key 1234-5678", "Dell System"]),
        structure(12, 0x0c00, &[1], &["NVRAM_CLR: clear settings"]),
        structure(16, 0x1000, &array, &[]),
        dimm(0x1100, "A1", 0x8000 - 0x4000),
        dimm(0x1101, "A2", 0),
        dimm(0x1102, "B1", 0x8000 - 0x4000),
        structure(19, 0x1300, &range, &[]),
        structure(20, 0x1400, &[0; 15], &[]),
        structure(24, 0x1800, &[0x55], &[]),
        structure(32, 0x2000, &[0; 7], &[]),
        structure(
            38,
            0x2600,
            &[1, 0x20, 0x20, 0xff, 0xa9, 0x0c, 0, 0, 0, 0, 0, 0, 1, 0],
            &[],
        ),
        onboard(0x2900, "Integrated NIC 1", 1, [0, 0, 0x00, 0xc8]),
        onboard(0x2901, "Integrated NIC 2", 2, [0, 0, 0x19, 0x01]),
        structure(221, 0xdd00, &[1, 2, 3], &["maker's own"]),
        structure(127, 0x7f00, &[], &[]),
    ]
    .concat()
}

/// An `_SM3_` entry point for `table`.
pub(crate) fn entry_point(table: &[u8]) -> Vec<u8> {
    let mut bytes = b"_SM3_\0\x18\x03\x03\0\x01\0".to_vec();
    bytes.extend((table.len() as u32).to_le_bytes());
    bytes.extend(0x6f5c_b000_u64.to_le_bytes());
    bytes[5] = missing(&bytes);
    bytes
}

/// An `_SM_` entry point for `table`.
pub(crate) fn legacy_entry_point(table: &[u8]) -> Vec<u8> {
    let mut bytes = b"_SM_\0\x1f\x02\x08\x80\0\0\0\0\0\0\0_DMI_\0".to_vec();
    bytes.extend((table.len() as u16).to_le_bytes());
    bytes.extend(0xf_1000_u32.to_le_bytes());
    bytes.extend([28, 0, 0x28]);
    bytes[21] = missing(&bytes[16..]);
    bytes[4] = missing(&bytes);
    bytes
}

pub(crate) fn missing(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}

pub(crate) fn host() -> Smbios {
    let table = table();
    Smbios::parse(&entry_point(&table), &table).unwrap()
}

/// Four CPUs, 5 GiB, the first onboard NIC where it is on the host, and what is in slot 3 elsewhere.
pub(crate) fn share() -> SmbiosShare {
    let mut share = SmbiosShare::new(&Layout::new(5 << 30, 39).unwrap(), 4);
    let at = |text: &str| -> Bdf { text.parse().unwrap() };
    share.devices.insert(at("00:19.0"), at("00:19.0"));
    share.devices.insert(at("3b:00.1"), at("02:00.1"));
    share
}

pub(crate) const UUID: [u8; 16] = *b"\x44\x45\x4c\x4c\x35\x00\x10\x36\x80\x4a\xb9\xc0\x4f\x4d\x34\x32";

/// Whether guests may have structures of this type.
pub(crate) fn is_listed(kind: u8) -> bool {
    matches!(kind, 0..=4 | 7 | 9 | 11..=13 | 16 | 17 | 19 | 32 | 41 | 127)
}
