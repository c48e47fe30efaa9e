//! What a capture finds in a tree, whole, partial or hostile.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod fixture;

use std::time::{Duration, Instant};

use fixture::Machine;
use pellucid_partition::Bdf;
use pellucid_twin::{Carries, FORMAT, MOST_BYTES, Twin, TwinError};

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

#[test]
fn a_server_is_captured_with_all_that_its_system_knows_it_by() {
    let twin = Machine::server().capture();
    let function = |text: &str| &twin.pci.functions[&bdf(text)];
    assert_eq!(twin.pci.functions.len(), 7);
    let nvme = function("0000:01:00.0");
    assert_eq!(
        (nvme.upstream.as_slice(), nvme.carries),
        (&[bdf("0000:00:02.0")][..], Carries::Root)
    );
    assert_eq!(
        (nvme.config.bytes, nvme.config.standard.as_slice()),
        (256, &[0x01, 0x10][..])
    );
    assert_eq!(nvme.bars[0].address, 0xfe60_0000);
    let board = function("0000:00:19.0");
    assert_eq!(
        (board.place.onboard(), board.place.label.as_deref()),
        (Some(1), Some("Onboard LAN"))
    );
    assert_eq!(function("0000:02:00.1").config.multifunction, Some(true));
    assert_eq!(twin.pci.slots["2"], "0000:02:00");
    assert_eq!(twin.nics["ens2f1"].pci, Some(bdf("0000:02:00.1")));
    let disk = &twin.disks["nvme0n1"];
    assert_eq!(
        (disk.serial.as_deref(), disk.size, disk.block),
        (Some("PELLUCID-BOOT"), 2 << 30, 512)
    );
    assert_eq!(disk.pci, Some(bdf("0000:01:00.0")));
    assert_eq!((twin.cpus.counts(), twin.cpus.model), ([1, 2, 2], [25, 17, 1]));
    assert!(twin.cpus.flags.contains("avx2") && !twin.origin.guest);
    assert_eq!(twin.memory.total(), 2 << 30);
    assert_eq!(twin.memory.ram(), [[0, 0x9_fbff], [0x10_0000, 0x7fff_ffff]]);
    assert_eq!(twin.smbios.ids["product_serial"], "S-1");
    assert_eq!(twin.acpi.keys().collect::<Vec<_>>(), ["APIC"]);
    assert_eq!(
        (twin.acpi["APIC"].oem.as_str(), twin.acpi["APIC"].length),
        ("EXMPL", 0x78)
    );
    assert_eq!(twin.clock.available, ["tsc", "hpet", "acpi_pm"]);
    assert!(twin.firmware.efi);
    assert_eq!(
        (twin.origin.systemd, twin.scheme().to_string().as_str()),
        (Some(252), "v252")
    );
}

#[test]
fn what_is_written_is_read_again_and_other_formats_are_refused_by_number() {
    let twin = Machine::server().capture();
    let json = twin.to_json().unwrap();
    assert_eq!(Twin::from_json(json.as_bytes()).unwrap(), twin);
    let newer = json.replacen(&format!("\"format\": {FORMAT}"), "\"format\": 7, \"new\": 1", 1);
    let error = Twin::from_json(newer.as_bytes()).unwrap_err();
    assert!(
        matches!(
            error,
            TwinError::Format {
                found: 7,
                known: FORMAT
            }
        ),
        "{error}"
    );
    for wrong in ["", "{}", "[]", "{\"format\": 1}", "{\"format\": -1}"] {
        assert!(
            matches!(Twin::from_json(wrong.as_bytes()), Err(TwinError::Malformed(_))),
            "{wrong}"
        );
    }
    let large = vec![b' '; MOST_BYTES + 1];
    assert!(matches!(Twin::from_json(&large), Err(TwinError::TooLarge { .. })));
    let mut crowded = twin;
    crowded.pci.slots = (0..10_000)
        .map(|slot| (slot.to_string(), String::new()))
        .collect();
    let error = Twin::from_json(crowded.to_json().unwrap().as_bytes()).unwrap_err();
    assert!(
        matches!(error, TwinError::Crowded { count: 10_000, .. }),
        "{error}"
    );
}

#[test]
fn an_empty_tree_is_a_twin_with_notes() {
    let twin = Machine::empty().capture();
    for part in ["cpus", "smbios"] {
        assert!(twin.is_partial(part), "{:?}", twin.notes);
    }
    assert!(twin.pci.functions.is_empty() && twin.nics.is_empty() && !twin.firmware.efi);
}

#[test]
fn a_capture_of_someone_who_is_not_root_says_what_it_lacks() {
    let machine = Machine::server();
    machine.bytes("sys/devices/pci0000:00/0000:00:19.0/config", &[0; 64]);
    machine.write(
        "proc/iomem",
        "00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n",
    );
    let twin = machine.capture();
    let said = |part: &str, words: &str| {
        let found = twin
            .notes
            .iter()
            .any(|note| note.part == part && note.what.contains(words));
        assert!(found, "{words}: {:?}", twin.notes);
    };
    said("pci", "1 of 7 functions");
    said("memory", "root only");
    assert!(twin.memory.map.is_empty());
}

#[test]
fn a_sleeping_device_is_not_woken() {
    let machine = Machine::server();
    machine.write(
        "sys/devices/pci0000:00/0000:02:00.1/power/runtime_status",
        "active\n",
    );
    machine.write(
        "sys/devices/pci0000:00/0000:00:03.0/0000:02:00.1/power/runtime_status",
        "suspended\n",
    );
    let twin = machine.capture();
    let config = &twin.pci.functions[&bdf("0000:02:00.1")].config;
    assert_eq!((config.bytes, config.multifunction), (0, None));
    assert!(
        twin.pci.is_multifunction(bdf("0000:02:00.1")),
        "its sibling tells"
    );
}

#[test]
fn hostile_trees_are_read_in_bounded_time() {
    let machine = Machine::server();
    let long = vec![b'9'; 5 << 20];
    for path in [
        "sys/class/dmi/id/product_name",
        "sys/devices/pci0000:00/0000:00:19.0/label",
        "sys/devices/pci0000:00/0000:00:19.0/net/eno1/dev_port",
        "proc/cmdline",
        "sys/firmware/dmi/tables/DMI",
    ] {
        machine.bytes(path, &long);
    }
    machine.bytes("sys/firmware/acpi/tables/FACP", b"FA");
    machine.bytes(
        "sys/class/dmi/id/board_name",
        &[0xff, 0x00, 0x1b, b'[', b'2', b'J'],
    );
    // A directory where a file should be, a link to itself, and a pipe that nobody writes to.
    machine.write("sys/class/dmi/id/board_vendor/x", "");
    machine.link("sys/class/net/loop", "sys/class/net/loop");
    machine.link("sys/class/net/up", "sys/class/net");
    std::fs::create_dir_all(machine.path("sys/class/rtc/rtc1")).unwrap();
    let pipe = machine.path("sys/class/dmi/id/bios_date");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let start = Instant::now();
    let twin = machine.capture();
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(!twin.smbios.ids.contains_key("product_name") && twin.smbios.table.is_none());
    assert_eq!(twin.nics["eno1"].dev_port, 0);
    assert_eq!(twin.acpi["FACP"].length, 0);
    assert!(twin.is_partial("smbios"), "{:?}", twin.notes);
    // It can be kept, compared and drawn all the same.
    let again = Twin::from_json(twin.to_json().unwrap().as_bytes()).unwrap();
    assert_eq!(again, twin);
    assert!(twin.diff(&again, None).differences.is_empty());
}
