//! A host's SMBIOS as a guest of it finds it: the same machine, its own share of it, nothing of anybody else.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use pellucid_image::{
    Anchor, EntryPoint, FreeText, Smbios, SmbiosError, SmbiosShare, SmbiosTables, Structure, WhyLeftOut,
};
use pellucid_partition::{Layout, RamRange};
use proptest::prelude::*;
use support::firmware::{self, entry_point, host, legacy_entry_point, missing, share, structure, table};
use support::machine::Machine;

fn guest() -> SmbiosTables {
    host().for_guest(&share(), FreeText::LeftOut).unwrap()
}

fn all(tables: &SmbiosTables, kind: u8) -> Vec<Structure<'_>> {
    tables.structures().filter(|s| s.kind() == kind).collect()
}

fn text<'t>(structure: &Structure<'t>, offset: usize) -> &'t str {
    std::str::from_utf8(structure.string(offset).unwrap_or_default()).unwrap()
}

fn dword(structure: &Structure<'_>, offset: usize) -> u32 {
    u32::from_le_bytes(*structure.formatted()[offset..].first_chunk().unwrap())
}

fn qword(structure: &Structure<'_>, offset: usize) -> u64 {
    u64::from_le_bytes(*structure.formatted()[offset..].first_chunk().unwrap())
}

#[test]
fn a_guest_is_the_machine_that_its_host_is() {
    let (host, guest) = (host(), guest());
    for kind in [0, 1, 3, 32] {
        let of_host: Vec<_> = host.structures().filter(|s| s.kind() == kind).collect();
        assert_eq!(all(&guest, kind), of_host, "type {kind}");
        assert_eq!(of_host.len(), 1);
    }
    let board = all(&guest, 2)[0];
    assert_eq!(
        (text(&board, 0x05), text(&board, 0x07)),
        ("08D89F", ".BOARD-SERIAL.")
    );
    let (said, own) = (host.entry_point(), EntryPoint::parse(guest.anchor()).unwrap());
    assert_eq!(
        (own.anchor, own.version, own.revision),
        (said.anchor, said.version, said.revision)
    );
    assert_eq!(own.table_size as usize, guest.table().len());
}

#[test]
fn a_guest_has_the_structures_of_its_share_and_no_others() {
    let guest = guest();
    let kinds: Vec<_> = guest.structures().map(|s| (s.kind(), s.handle())).collect();
    let expected = [
        (0, 0x0000),
        (1, 0x0100),
        (2, 0x0200),
        (3, 0x0300),
        (4, 0x0400),
        (7, 0x0070),
        (7, 0x0071),
        (7, 0x0072),
        (9, 0x0900),
        (16, 0x1000),
        (17, 0x1100),
        (19, 0x1300),
        (32, 0x2000),
        (41, 0x2900),
        (19, 0x0001),
        (127, 0xfeff),
    ];
    assert_eq!(kinds, expected);
    let left: Vec<_> = guest
        .left_out()
        .iter()
        .map(|left| (left.kind, left.why))
        .collect();
    use WhyLeftOut::*;
    let expected = [
        (4, WholeHost),
        (7, WholeHost),
        (8, NotThere),
        (9, NotLent),
        (11, FreeText),
        (12, FreeText),
        (17, WholeHost),
        (17, WholeHost),
        (20, WholeHost),
        (24, Management),
        (38, Management),
        (41, NotLent),
        (221, Vendor),
    ];
    assert_eq!(left, expected);
}

#[test]
fn cpus_and_memory_are_the_share_as_the_host_has_them() {
    let guest = guest();
    let cpu = all(&guest, 4)[0];
    assert_eq!(
        (text(&cpu, 0x04), text(&cpu, 0x10)),
        ("CPU1", "Intel(R) Xeon(R) Gold 6138")
    );
    assert_eq!(
        (cpu.byte(0x23), cpu.byte(0x24), cpu.byte(0x25)),
        (Some(4), Some(4), Some(4))
    );
    assert_eq!((cpu.word(0x2a), cpu.word(0x2e)), (Some(4), Some(4)));
    let caches: Vec<_> = [0x1a, 0x1c, 0x1e].map(|at| cpu.word(at).unwrap()).into();
    assert_eq!(
        caches,
        all(&guest, 7).iter().map(Structure::handle).collect::<Vec<_>>()
    );
    let array = all(&guest, 16)[0];
    assert_eq!((dword(&array, 0x07), array.word(0x0d)), (5 << 20, Some(1)));
    let dimm = all(&guest, 17)[0];
    assert_eq!(
        (dimm.word(0x0c), dimm.word(0x04)),
        (Some(5 << 10), Some(array.handle()))
    );
    assert_eq!(
        (text(&dimm, 0x10), text(&dimm, 0x17), text(&dimm, 0x1a)),
        ("A1", "Samsung", "M393A4K40BB2")
    );
    let ranges: Vec<_> = all(&guest, 19)
        .iter()
        .map(|range| (dword(range, 0x04), dword(range, 0x08)))
        .collect();
    assert_eq!(ranges, [(0, (3 << 20) - 1), (4 << 20, (6 << 20) - 1)]);
}

#[test]
fn serial_numbers_of_parts_and_free_text_stay_with_the_host() {
    let secrets = [
        "CPU-SERIAL-1",
        "CPU-TAG",
        "DIMM-SERIAL",
        "DIMM-TAG",
        "1234-5678",
        "maker's own",
    ];
    let said = |tables: &SmbiosTables, secret: &str| {
        tables
            .table()
            .windows(secret.len())
            .any(|bytes| bytes == secret.as_bytes())
    };
    for secret in secrets {
        assert!(!said(&guest(), secret), "{secret}");
    }
    let open = host().for_guest(&share(), FreeText::Kept).unwrap();
    assert!(said(&open, "1234-5678") && !said(&open, "DIMM-SERIAL"));
}

#[test]
fn devices_are_labelled_where_the_guest_finds_them() {
    let guest = guest();
    let nic = all(&guest, 41)[0];
    assert_eq!((text(&nic, 0x04), nic.byte(0x06)), ("Integrated NIC 1", Some(1)));
    assert_eq!(nic.formatted()[0x07..], [0, 0, 0x00, 0xc8]);
    let slot = all(&guest, 9)[0];
    assert_eq!((text(&slot, 0x04), slot.word(0x09)), ("SLOT 3", Some(3)));
    assert_eq!(
        slot.formatted()[0x0d..],
        [0, 0, 2, 1, 16, 0],
        "the function that is lent; no peers"
    );
    let mut moved = share();
    moved
        .devices
        .insert("00:19.0".parse().unwrap(), "05:00.3".parse().unwrap());
    let guest = host().for_guest(&moved, FreeText::LeftOut).unwrap();
    assert_eq!(all(&guest, 41)[0].formatted()[0x07..], [0, 0, 5, 3]);
}

#[test]
fn memory_beyond_the_old_fields_is_said_in_the_new_ones() {
    let range = |start: u64, end: u64, node| RamRange {
        start: start << 30,
        end: end << 30,
        node,
    };
    let share = SmbiosShare {
        cores: 300,
        threads_per_core: 2,
        ram: vec![range(0, 3, 0), range(4, 40, 0), range(40, 5000, 1)],
        devices: Default::default(),
    };
    let guest = host().for_guest(&share, FreeText::LeftOut).unwrap();
    let dimms: Vec<_> = all(&guest, 17)
        .iter()
        .map(|d| (d.word(0x0c), dword(d, 0x1c), text(d, 0x10)))
        .collect();
    assert_eq!(
        dimms,
        [(Some(0x7fff), 39 << 10, "A1"), (Some(0x7fff), 4960 << 10, "B1")]
    );
    let array = all(&guest, 16)[0];
    assert_eq!(
        (dword(&array, 0x07), qword(&array, 0x0f)),
        (0x8000_0000, 4999 << 30)
    );
    let last = *all(&guest, 19).last().unwrap();
    assert_eq!(dword(&last, 0x08), u32::MAX);
    assert_eq!(
        (qword(&last, 0x0f), qword(&last, 0x17)),
        (40 << 30, (5000 << 30) - 1)
    );
    let cpu = all(&guest, 4)[0];
    assert_eq!(
        (cpu.byte(0x23), cpu.word(0x2a), cpu.word(0x2e)),
        (Some(0xff), Some(300), Some(600))
    );
    assert_eq!(cpu.word(0x26), Some(0xfc), "cores and threads");
}

#[test]
fn a_node_without_a_device_of_the_host_has_one_like_the_first() {
    let ram = (0..3).map(|node| RamRange {
        start: u64::from(node) << 30,
        end: u64::from(node + 1) << 30,
        node,
    });
    let share = SmbiosShare {
        ram: ram.collect(),
        ..share()
    };
    let guest = host().for_guest(&share, FreeText::LeftOut).unwrap();
    let names: Vec<_> = all(&guest, 17).iter().map(|d| text(d, 0x10)).collect();
    assert_eq!(names, ["A1", "B1", "A1"]);
    assert_eq!(all(&guest, 16)[0].word(0x0d), Some(3));
}

#[test]
fn handles_that_a_host_gives_twice_are_given_once() {
    let board = [0, 0, 0, 0, 0, 0, 0, 3, 0, 10, 3, 5, 0, 6, 0, 9, 0];
    let table = [
        structure(1, 5, &[0; 23], &[]),
        structure(0, 5, &[0; 20], &[]),
        structure(3, 3, &[0; 9], &[]),
        structure(2, 0xffff, &board, &[]),
        structure(38, 6, &[0; 14], &[]),
    ]
    .concat();
    let host = Smbios::parse(&entry_point(&table), &table).unwrap();
    let guest = host.for_guest(&share(), FreeText::LeftOut).unwrap();
    let handles: Vec<_> = guest.structures().map(|s| (s.kind(), s.handle())).collect();
    assert_eq!(handles, [(1, 5), (0, 0), (3, 3), (2, 1), (127, 0xfeff)]);
    let board = all(&guest, 2)[0];
    assert_eq!(
        board.formatted()[0x0b..],
        [3, 0, 10, 1, 5, 0],
        "what is left of what is on it"
    );
}

#[test]
fn both_entry_points_are_read_and_made() {
    let table = table();
    let legacy = Smbios::parse(&legacy_entry_point(&table), &table).unwrap();
    assert_eq!(
        (legacy.entry_point().anchor, legacy.entry_point().version),
        (Anchor::Bits32, [2, 8])
    );
    let guest = legacy.for_guest(&share(), FreeText::LeftOut).unwrap();
    let anchor = guest.anchor();
    assert_eq!(
        (anchor.len(), anchor[5], missing(anchor), missing(&anchor[16..])),
        (31, 31, 0, 0)
    );
    assert_eq!(u32::from_le_bytes(*anchor[24..].first_chunk().unwrap()), 0xf0020);
    assert_eq!(anchor[28..30], 16u16.to_le_bytes());
    let largest = guest
        .structures()
        .map(|s| s.formatted().len() + s.strings().map(|t| t.len() + 1).sum::<usize>() + 1);
    assert_eq!(
        u16::from_le_bytes([anchor[8], anchor[9]]),
        largest.max().unwrap() as u16
    );
    for anchor in [guest.anchor().to_vec(), entry_point(&table)] {
        for at in 0..anchor.len() {
            let mut bad = anchor.clone();
            bad[at] ^= 0x10;
            assert!(
                matches!(EntryPoint::parse(&bad), Err(SmbiosError::EntryPoint { .. })),
                "byte {at}"
            );
        }
        assert!(EntryPoint::parse(&anchor[..anchor.len() - 1]).is_err());
    }
}

/// As Linux does: 16 bytes at a time through the last 64 KiB below 1 MiB (`dmi_scan_machine`).
#[test]
fn an_operating_system_finds_them_in_guest_memory() {
    let machine = Machine::of(64);
    let guest = guest();
    guest.write(&machine.memory).unwrap();
    let found = (0xf0000..0x100000_u64)
        .step_by(16)
        .find(|at| machine.bytes(*at, 5) == b"_SM3_")
        .unwrap();
    let anchor = machine.bytes(found, 24);
    assert_eq!(missing(&anchor), 0);
    let (size, at) = (
        u32::from_le_bytes(*anchor[12..].first_chunk().unwrap()),
        u64::from_le_bytes(*anchor[16..].first_chunk().unwrap()),
    );
    assert!(at >= Layout::SMBIOS.start && at + u64::from(size) <= Layout::SMBIOS.end);
    assert_eq!(machine.bytes(at, size as usize), guest.table());
}

#[test]
fn a_host_without_tables_and_one_with_wrong_ones_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let refusal = Smbios::survey_at(root.path()).unwrap_err().to_string();
    assert!(
        refusal.contains("sys/firmware/dmi/tables/smbios_entry_point") && refusal.contains("root"),
        "{refusal}"
    );
    let folder = root.path().join("sys/firmware/dmi/tables");
    std::fs::create_dir_all(&folder).unwrap();
    let table = table();
    std::fs::write(folder.join("smbios_entry_point"), entry_point(&table)).unwrap();
    std::fs::write(folder.join("DMI"), &table).unwrap();
    assert_eq!(Smbios::survey_at(root.path()).unwrap(), host());
    std::fs::write(folder.join("DMI"), b"").unwrap();
    assert!(matches!(
        Smbios::survey_at(root.path()),
        Err(SmbiosError::Empty { size: 0 })
    ));
    std::fs::write(folder.join("DMI"), vec![0; (1 << 20) + 1]).unwrap();
    let mut long = entry_point(&vec![0; 2 << 20]);
    assert!(matches!(
        Smbios::parse(&long, &vec![0; (1 << 20) + 1]),
        Err(SmbiosError::TooLarge { .. })
    ));
    long[0] = b'-';
    assert!(matches!(
        Smbios::parse(&long, &table),
        Err(SmbiosError::EntryPoint { .. })
    ));
}

#[test]
fn more_than_there_is_room_for_is_refused() {
    let table = structure(1, 0, &[0; 23], &[&"x".repeat(2000)]).repeat(40);
    let host = Smbios::parse(&entry_point(&table), &table).unwrap();
    let refusal = host.for_guest(&share(), FreeText::LeftOut).unwrap_err();
    assert!(
        matches!(refusal, SmbiosError::TooLarge { size, limit: 65504 } if size > 80_000),
        "{refusal}"
    );
    let tiny = structure(1, 0, &[], &[]).repeat(100_000);
    let host = Smbios::parse(&entry_point(&tiny), &tiny).unwrap();
    assert!(matches!(
        host.for_guest(&share(), FreeText::LeftOut),
        Err(SmbiosError::TooLarge { .. })
    ));
}

#[test]
fn a_value_from_outside_is_checked_like_a_file() {
    let json = serde_json::to_string(&host()).unwrap();
    assert_eq!(serde_json::from_str::<Smbios>(&json).unwrap(), host());
    let empty =
        r#"{"entry_point":{"anchor":"Bits64","version":[3,3],"revision":0,"table_size":4},"table":[1,2,3]}"#;
    assert!(
        serde_json::from_str::<Smbios>(empty)
            .unwrap_err()
            .to_string()
            .contains("no whole structure")
    );
}

/// dmidecode's own reading of a dump: anchor at 0, table where the anchor says.
#[test]
fn dmidecode_has_no_complaint() {
    let legacy = Smbios::parse(&legacy_entry_point(&table()), &table()).unwrap();
    for (host, address) in [(host(), 16), (legacy, 24)] {
        let guest = host.for_guest(&share(), FreeText::Kept).unwrap();
        let mut dump = guest.anchor().to_vec();
        dump[address..address + 4].copy_from_slice(&32u32.to_le_bytes());
        if address == 24 {
            dump[21] = 0;
            dump[21] = missing(&dump[16..]);
            dump[4] = 0;
            dump[4] = missing(&dump);
        } else {
            dump[5] = 0;
            dump[5] = missing(&dump);
        }
        dump.resize(32, 0);
        dump.extend(guest.table());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump");
        std::fs::write(&path, dump).unwrap();
        let output = match Command::new("dmidecode").arg("--from-dump").arg(&path).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("dmidecode is not installed: the tables were not decoded (package dmidecode)");
                return;
            }
            output => output.unwrap(),
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        for complaint in [
            "WARNING",
            "BAD INDEX",
            "OUT OF SPEC",
            "TRUNCATED",
            "Wrong",
            "Invalid",
            "broken",
        ] {
            assert!(!said.contains(complaint), "{complaint}: {said}");
        }
        for line in [
            "Serial Number: SVC-TAG-42",
            "Core Count: 4",
            "Size: 5 GB",
            "Bus Address: 0000:00:19.0",
            "Bus Address: 0000:02:00.1",
            "L3 Cache Handle: 0x0072",
            "Array Handle: 0x1000",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
    }
}

proptest! {
    /// Handles are unique, references lead somewhere, the table ends, whatever a host says.
    #[test]
    fn hostile_tables_make_sound_ones(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..64),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut table = table();
        for (at, value) in changes {
            let at = at.index(table.len());
            table[at] = value;
        }
        table.truncate(cut.index(table.len() * 2).min(table.len()));
        sound(&table)?;
    }

    #[test]
    fn noise_makes_sound_tables(table in prop::collection::vec(prop_oneof![Just(0u8), Just(4), Just(2), Just(17), any::<u8>()], 0..600)) {
        sound(&table)?;
    }
}

fn sound(table: &[u8]) -> Result<(), TestCaseError> {
    let Ok(host) = Smbios::parse(&entry_point(table), table) else {
        return Ok(());
    };
    let guest = host.for_guest(&share(), FreeText::Kept).unwrap();
    let handles: BTreeSet<u16> = guest.structures().map(|s| s.handle()).collect();
    prop_assert_eq!(handles.len(), guest.structures().count());
    prop_assert_eq!(guest.structures().last().unwrap().kind(), 127);
    prop_assert!(guest.structures().all(|s| firmware::is_listed(s.kind())));
    for device in guest.structures().filter(|s| s.kind() == 17) {
        let array = device.word(4).unwrap();
        prop_assert!(array == 0xffff || guest.structures().any(|s| s.kind() == 16 && s.handle() == array));
    }
    Ok(())
}
