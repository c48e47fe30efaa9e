//! The machine that a guest would find, told from the machine whose share it has.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod fixture;

use std::collections::BTreeMap;

use fixture::Machine;
use pellucid_partition::Bdf;
use pellucid_passthrough::{Bridge, Ids};
use pellucid_twin::{Bytes, Class, Diff, GuestPort, GuestShare, Twin};

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

/// A record of type 41 for an address, and its strings.
fn onboard(number: u8, bdf: Bdf, kind: u8) -> Vec<u8> {
    let mut record = vec![41, 11, number, 0, 1, kind, number, 0, 0, bdf.bus(), bdf.devfn()];
    record.extend(b"Onboard LAN\0\0");
    record
}

/// Entry point (DSP0134, 5.2.2) and table of these records.
fn tables(records: &[Vec<u8>]) -> [Vec<u8>; 2] {
    let table = [&records.concat()[..], &[127, 4, 0xff, 0, 0, 0]].concat();
    let mut entry = b"_SM3_\0\x18\x03\x03\0\x01\0".to_vec();
    entry.extend(u32::try_from(table.len()).unwrap().to_le_bytes());
    entry.extend([0; 8]);
    entry[5] = entry.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    [entry, table]
}

fn text() -> Vec<u8> {
    let mut record = vec![11, 5, 9, 0, 1];
    record.extend(b"a password\0\0");
    record
}

fn server() -> Twin {
    let mut twin = Machine::server().capture();
    let [entry, table] = tables(&[onboard(1, bdf("0000:00:19.0"), 0x85), text()]);
    (twin.smbios.entry_point, twin.smbios.table) = (Some(Bytes(entry)), Some(Bytes(table)));
    twin
}

fn port(secondary: u8, slot: Option<u16>) -> GuestPort {
    let ids = Ids {
        vendor: 0x1b36,
        device: 0xc,
        class: 0x06_0400,
        revision: 0,
        subsystem: [0, 0],
    };
    let bridge = Bridge {
        secondary,
        subordinate: secondary,
        express: Some(4),
    };
    GuestPort { ids, bridge, slot }
}

/// The whole machine but a CPU, lent to where it is.
fn mirrored() -> GuestShare {
    let lent = ["0000:01:00.0", "0000:00:19.0", "0000:02:00.0", "0000:02:00.1"];
    GuestShare {
        devices: lent.map(|at| (bdf(at), bdf(at))).into(),
        ports: [
            (bdf("0000:00:02.0"), port(1, None)),
            (bdf("0000:00:03.0"), port(2, Some(2))),
        ]
        .into(),
        board: BTreeMap::new(),
        cpus: 1,
        threads_per_core: 1,
        memory: 1 << 30,
        smbios: Some(tables(&[onboard(1, bdf("0000:00:19.0"), 0x85)])),
    }
}

fn names(diff: &Diff) -> Vec<[&str; 2]> {
    diff.names
        .iter()
        .map(|row| [&row.before, &row.after].map(|side| side.as_ref().map_or("-", |side| side.name())))
        .collect()
}

#[test]
fn a_mirrored_guest_keeps_every_name_and_its_disk() {
    let host = server();
    let guest = host.as_guest(&mirrored());
    let diff = host.diff(&guest, None);
    assert_eq!(
        names(&diff),
        [["eno1", "eno1"], ["ens2f0", "ens2f0"], ["ens2f1", "ens2f1"]]
    );
    assert_eq!(diff.worst(), Class::LicenceRisk, "{:#?}", diff.differences);
    assert_eq!(guest.origin.withheld, [], "bridges are the board's");
    let mut less = mirrored();
    less.devices.remove(&bdf("0000:02:00.1"));
    assert_eq!(host.as_guest(&less).origin.withheld, [bdf("0000:02:00.1")]);
    let again = Twin::from_json(guest.to_json().unwrap().as_bytes()).unwrap();
    assert_eq!(again, guest);
}

#[test]
fn a_spoilt_placement_is_predicted_before_anything_is_touched() {
    let host = server();
    let mut share = mirrored();
    share.devices = [
        ("0000:01:00.0", "0000:01:00.0"),
        ("0000:00:19.0", "0000:00:02.0"),
        ("0000:02:00.0", "0000:00:03.0"),
    ]
    .map(|(from, to)| (bdf(from), bdf(to)))
    .into();
    share.ports = [(bdf("0000:00:04.0"), port(1, None))].into();
    // Its record was not taken along to the new address.
    let diff = host.diff(&host.as_guest(&share), None);
    assert_eq!(
        names(&diff),
        [["eno1", "enp0s2"], ["ens2f0", "enp0s3"], ["ens2f1", "-"]]
    );
    assert_eq!(diff.worst(), Class::ChangesName);
    share.smbios = Some(tables(&[onboard(1, bdf("0000:00:02.0"), 0x85)]));
    let diff = host.diff(&host.as_guest(&share), None);
    assert_eq!(names(&diff)[0], ["eno1", "eno1"], "the number follows its record");
    share.smbios = Some(tables(&[onboard(1, bdf("0000:00:02.0"), 0x05)]));
    let diff = host.diff(&host.as_guest(&share), None);
    assert_eq!(
        names(&diff)[0],
        ["eno1", "enp0s2"],
        "the record says that it is switched off"
    );
    share.devices.remove(&bdf("0000:01:00.0"));
    assert_eq!(host.diff(&host.as_guest(&share), None).worst(), Class::BreaksBoot);
}

#[test]
fn cpus_are_cores_of_one_package_with_equal_threads() {
    let mut share = mirrored();
    for (cpus, threads_per_core, counts) in [(4, 2, [1, 2, 4]), (3, 0, [1, 3, 3]), (0, 1, [0, 0, 0])] {
        (share.cpus, share.threads_per_core) = (cpus, threads_per_core);
        assert_eq!(server().as_guest(&share).cpus.counts(), counts);
    }
}

#[test]
fn what_the_owner_wrote_is_withheld_and_its_words_are_not_told() {
    let host = server();
    let diff = host.diff(&host.as_guest(&mirrored()), None);
    let subject = "type 11, free text";
    let text = diff
        .differences
        .iter()
        .find(|difference| difference.subject == subject)
        .unwrap();
    assert_eq!(
        (text.before.as_deref(), text.after.as_deref()),
        (Some("1 records"), None)
    );
    assert!(text.why.contains("by a policy"), "{}", text.why);
    let page = diff.html(&host, &host, ["a", "b"]);
    assert!(!page.contains("password") && !serde_json::to_string(&diff).unwrap().contains("password"));
}

#[test]
fn ports_that_lead_to_each_other_are_walked_once() {
    let mut share = mirrored();
    share.ports = [
        (bdf("0000:02:00.0"), port(3, None)),
        (bdf("0000:03:00.0"), port(2, None)),
    ]
    .into();
    share.devices = [(bdf("0000:00:19.0"), bdf("0000:02:01.0"))].into();
    let guest = server().as_guest(&share);
    assert_eq!(guest.pci.functions[&bdf("0000:02:01.0")].upstream.len(), 2);
}
