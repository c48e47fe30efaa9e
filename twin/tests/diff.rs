//! What a move does to an operating system, said before it happens.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod fixture;

use fixture::Machine;
use pellucid_partition::Bdf;
use pellucid_twin::{BootEntry, Class, Diff, Twin, Variable};

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

/// The server of the fixture, and the same after something was done to it.
fn changed(change: impl FnOnce(&mut Twin)) -> Diff {
    let before = Machine::server().capture();
    let mut after = before.clone();
    change(&mut after);
    before.diff(&after, None)
}

/// The class of the difference whose subject is `subject`.
#[track_caller]
fn class_of(diff: &Diff, subject: &str) -> Class {
    let found = diff
        .differences
        .iter()
        .find(|difference| difference.subject == subject);
    found
        .unwrap_or_else(|| panic!("{subject}: {:#?}", diff.differences))
        .class
}

/// Puts a function elsewhere, with all that points to it.
fn moves(twin: &mut Twin, from: &str, to: &str, upstream: &[&str]) {
    let (from, to) = (bdf(from), bdf(to));
    let mut function = twin.pci.functions.remove(&from).unwrap();
    function.upstream = upstream.iter().map(|port| bdf(port)).collect();
    twin.pci.functions.insert(to, function);
    for nic in twin.nics.values_mut().filter(|nic| nic.pci == Some(from)) {
        nic.pci = Some(to);
    }
    for disk in twin.disks.values_mut().filter(|disk| disk.pci == Some(from)) {
        disk.pci = Some(to);
    }
}

#[test]
fn a_machine_does_not_differ_from_itself() {
    let diff = changed(|_| ());
    assert!(
        diff.differences.is_empty() && diff.uncompared.is_empty(),
        "{diff:#?}"
    );
    assert_eq!(diff.worst(), Class::None);
    let names: Vec<_> = diff
        .names
        .iter()
        .map(|row| row.after.as_ref().unwrap().name())
        .collect();
    assert_eq!(names, ["eno1", "ens2f0", "ens2f1"]);
}

#[test]
fn a_spoilt_placement_is_told_by_the_names_that_it_breaks() {
    let diff = changed(|twin| {
        moves(twin, "0000:01:00.0", "0000:00:04.0", &[]);
        moves(twin, "0000:00:19.0", "0000:00:02.0", &[]);
        let board = twin.pci.functions.get_mut(&bdf("0000:00:02.0")).unwrap();
        (board.place.index, board.place.label) = (None, None);
        moves(twin, "0000:02:00.0", "0000:00:05.0", &[]);
        moves(twin, "0000:02:00.1", "0000:00:05.1", &[]);
        twin.pci.slots.clear();
    });
    let names: Vec<_> = diff
        .names
        .iter()
        .map(|row| [&row.before, &row.after].map(|side| side.as_ref().unwrap().name().to_owned()))
        .collect();
    assert_eq!(
        names,
        [["eno1", "enp0s2"], ["ens2f0", "enp0s5f0"], ["ens2f1", "enp0s5f1"]]
    );
    assert_eq!(class_of(&diff, "52:54:00:00:00:19: name"), Class::ChangesName);
    assert_eq!(
        class_of(&diff, "0000:01:00.0 NVMe controller: address"),
        Class::ChangesName
    );
    assert_eq!(
        class_of(&diff, "0000:00:19.0 network card: address"),
        Class::Cosmetic
    );
    let why = &diff
        .differences
        .iter()
        .find(|difference| difference.subject.ends_with("19: name"))
        .unwrap()
        .why;
    assert!(
        why.contains("was: by its number on the board; now: by its address"),
        "{why}"
    );
    assert_eq!(
        diff.worst(),
        Class::ChangesName,
        "the disk is found by what is on it"
    );
}

#[test]
fn a_disk_that_is_gone_breaks_the_boot_only_where_it_was_in_use() {
    let diff = changed(|twin| {
        twin.pci.functions.remove(&bdf("0000:01:00.0"));
        twin.disks.clear();
    });
    assert_eq!(class_of(&diff, "0000:01:00.0 NVMe controller"), Class::BreaksBoot);
    assert_eq!(class_of(&diff, "nvme0n1"), Class::BreaksBoot);
    let before = {
        let mut twin = Machine::server().capture();
        twin.pci.functions.get_mut(&bdf("0000:01:00.0")).unwrap().carries = Default::default();
        twin
    };
    let mut after = before.clone();
    after.pci.functions.remove(&bdf("0000:01:00.0"));
    after.disks.clear();
    let diff = before.diff(&after, None);
    assert_eq!(class_of(&diff, "0000:01:00.0 NVMe controller"), Class::Cosmetic);
    assert_eq!(diff.worst(), Class::ChangesName);
}

#[test]
fn what_was_withheld_on_purpose_is_said_to_be() {
    let diff = changed(|twin| {
        twin.pci.functions.remove(&bdf("0000:00:19.0"));
        twin.nics.remove("eno1");
        twin.origin.withheld = vec![bdf("0000:00:19.0")];
    });
    let gone = diff
        .differences
        .iter()
        .find(|difference| difference.subject.starts_with("0000:00:19.0"))
        .unwrap();
    assert!(gone.why.contains("withheld on purpose"), "{}", gone.why);
    assert_eq!(
        class_of(&diff, "52:54:00:00:00:19: interface"),
        Class::ChangesName
    );
}

#[test]
fn what_licences_are_bound_to_is_a_risk() {
    let diff = changed(|twin| {
        twin.smbios.ids.insert("product_uuid".to_owned(), "0".to_owned());
        twin.smbios.ids.insert("bios_version".to_owned(), "9".to_owned());
        twin.cpus.threads.truncate(1);
        twin.cpus.flags.insert("hypervisor".to_owned());
        twin.nics.get_mut("eno1").unwrap().mac = "52:54:00:00:00:99".to_owned();
    });
    assert_eq!(class_of(&diff, "product_uuid"), Class::LicenceRisk);
    assert_eq!(class_of(&diff, "bios_version"), Class::Cosmetic);
    assert_eq!(class_of(&diff, "cores"), Class::LicenceRisk);
    assert_eq!(class_of(&diff, "features new"), Class::LicenceRisk);
    assert_eq!(
        class_of(&diff, "eno1: hardware address"),
        Class::LicenceRisk,
        "it is recognized by its place"
    );
    assert_eq!(diff.worst(), Class::LicenceRisk);
}

#[test]
fn what_programs_were_built_for_must_be_there() {
    let diff = changed(|twin| {
        twin.cpus.flags.remove("avx2");
        twin.cpus.flags.remove("constant_tsc");
    });
    let gone: Vec<_> = diff
        .differences
        .iter()
        .map(|gone| (gone.class, gone.before.as_deref().unwrap()))
        .collect();
    assert_eq!(
        gone,
        [(Class::BreaksBoot, "avx2"), (Class::Cosmetic, "constant_tsc")]
    );
}

#[test]
fn a_disk_is_recognized_by_its_serial_number_and_measured() {
    let diff = changed(|twin| {
        let mut disk = twin.disks.remove("nvme0n1").unwrap();
        (disk.size, disk.block, disk.firmware) = (disk.size - 512, 4096, Some("2".to_owned()));
        twin.disks.insert("nvme1n1".to_owned(), disk);
    });
    for (what, class) in [
        ("name", Class::ChangesName),
        ("size", Class::BreaksBoot),
        ("logical block", Class::BreaksBoot),
        ("firmware", Class::Cosmetic),
    ] {
        assert_eq!(class_of(&diff, &format!("nvme0n1: {what}")), class);
    }
    let diff = changed(|twin| twin.disks.get_mut("nvme0n1").unwrap().serial = Some("OTHER".to_owned()));
    assert_eq!(class_of(&diff, "nvme0n1: serial number"), Class::ChangesName);
}

#[test]
fn the_entry_that_was_booted_must_be_in_the_variables() {
    let mut before = Machine::server().capture();
    let entry = |title: &str| BootEntry {
        title: title.to_owned(),
        active: true,
        path: "HD(x)/\\EFI\\debian\\shimx64.efi".to_owned(),
    };
    before.firmware.entries = [(0, entry("setup")), (3, entry("debian"))].into();
    before
        .firmware
        .variables
        .insert("BootOrder-x".to_owned(), Variable::default());
    (before.firmware.order, before.firmware.current) = (vec![3, 0], Some(3));
    let mut after = before.clone();
    after.firmware.entries.clear();
    let diff = before.diff(&after, None);
    assert_eq!(
        [class_of(&diff, "Boot0003"), class_of(&diff, "Boot0000")],
        [Class::BreaksBoot, Class::Cosmetic]
    );
    after.firmware = Default::default();
    assert_eq!(
        class_of(&before.diff(&after, None), "boot mode"),
        Class::BreaksBoot
    );
    after.origin.guest = true;
    assert_eq!(
        class_of(&before.diff(&after, None), "boot mode"),
        Class::Cosmetic,
        "it was booted directly"
    );
}

#[test]
fn what_a_capture_lacks_is_not_called_a_difference() {
    let mut before = Machine::server().capture();
    before.smbios.table = Some(pellucid_twin::Bytes(vec![1]));
    let mut after = before.clone();
    after.smbios.table = None;
    after.memory.firmware.clear();
    for function in after.pci.functions.values_mut() {
        function.config.bytes = 64;
        function.config.standard.clear();
    }
    let diff = before.diff(&after, None);
    assert!(diff.differences.is_empty(), "{:#?}", diff.differences);
    assert_eq!(diff.uncompared.len(), 3, "{:?}", diff.uncompared);
}

#[test]
fn foreign_text_is_only_text_in_the_page_and_on_a_terminal() {
    let hostile = "<script>alert(1)</script>\"'&\u{1b}[2J\u{202e}";
    let mut before = Machine::server().capture();
    let mut after = before.clone();
    for twin in [&mut before, &mut after] {
        let nic = twin.nics.remove("eno1").unwrap();
        twin.nics.insert(hostile.to_owned(), nic);
        let board = twin.pci.functions.get_mut(&bdf("0000:00:19.0")).unwrap();
        board.driver = Some(hostile.to_owned());
        board.place.label = Some(hostile.to_owned());
        twin.disks.get_mut("nvme0n1").unwrap().serial = Some(hostile.to_owned());
        twin.notes.push(pellucid_twin::Note {
            part: hostile.to_owned(),
            what: hostile.to_owned(),
        });
    }
    after
        .pci
        .functions
        .get_mut(&bdf("0000:00:19.0"))
        .unwrap()
        .place
        .label = None;
    after.smbios.ids.insert(hostile.to_owned(), hostile.to_owned());
    let diff = before.diff(&after, None);
    let page = diff.html(&before, &after, [hostile, hostile]);
    assert!(!page.contains("<script") && !page.contains('\u{1b}'), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    for difference in &diff.differences {
        let values = [
            Some(&difference.subject),
            difference.before.as_ref(),
            difference.after.as_ref(),
        ];
        for text in values.into_iter().flatten() {
            assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        }
    }
}

#[test]
fn the_page_shows_each_function_of_both_trees_and_needs_nothing_else() {
    let before = Machine::server().capture();
    let mut after = before.clone();
    moves(&mut after, "0000:00:19.0", "0000:00:04.0", &[]);
    let diff = before.diff(&after, None);
    let page = diff.html(&before, &after, ["physical", "logical"]);
    assert_eq!(page.matches("class=\"what\"").count(), 14);
    for part in [
        "<code>0000:00:04.0</code>",
        "prefers-color-scheme",
        "address: 0000:00:19.0 → 0000:00:04.0",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for foreign in ["http:", "https:", "src=", "url(", "<link"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let depth = page.matches("<ul").count() - page.matches("</ul>").count();
    assert_eq!(
        (depth, page.matches("<div").count()),
        (0, page.matches("</div>").count())
    );
}
