//! `vmm twin` on a real machine: what a capture finds is what is there, and the names that it predicts are udev's own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use pellucid::twin::Twin;
use support::host::{BOOT, DATA};
use support::{Vmm, linux};

fn captured(vmm: &Vmm) -> Twin {
    let answer = vmm.ask(["twin", "capture"]);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    Twin::from_json(answer.out.as_bytes()).unwrap()
}

#[test]
fn a_capture_is_what_is_there() {
    let vmm = Vmm::new();
    let twin = captured(&vmm);
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let functions: Vec<String> = twin.pci.functions.keys().map(ToString::to_string).collect();
    assert_eq!(functions, names("/sys/bus/pci/devices"));
    for (bdf, function) in &twin.pci.functions {
        let size = fs::metadata(format!("/sys/bus/pci/devices/{bdf}/config"))
            .unwrap()
            .len();
        assert_eq!(
            u64::from(function.config.bytes),
            size,
            "{bdf}: root reads all of it"
        );
    }
    assert!(
        twin.pci
            .functions
            .values()
            .any(|function| function.config.extended.contains(&0x10)),
        "the igb has SR-IOV"
    );
    assert_eq!(
        twin.pci.slots.keys().cloned().collect::<Vec<_>>(),
        names("/sys/bus/pci/slots")
    );
    for (serial, at) in [("PELLUCID-BOOT", BOOT), ("PELLUCID-DATA", DATA)] {
        let disk = twin
            .disks
            .values()
            .find(|disk| disk.serial.as_deref() == Some(serial))
            .unwrap();
        assert_eq!(disk.pci.unwrap().to_string(), at);
        assert!(
            disk.wwid.is_some() && disk.size > 0 && disk.block == 512,
            "{disk:?}"
        );
    }
}

#[test]
fn what_is_not_on_pci_is_captured_too() {
    let twin = captured(&Vmm::new());
    for (name, nic) in &twin.nics {
        let address = fs::read_to_string(format!("/sys/class/net/{name}/address")).unwrap();
        assert_eq!(nic.mac, address.trim());
    }
    assert_eq!(
        twin.smbios.table.unwrap().0,
        fs::read("/sys/firmware/dmi/tables/DMI").unwrap()
    );
    let vendor = fs::read_to_string("/sys/class/dmi/id/sys_vendor").unwrap();
    assert_eq!(twin.smbios.ids["sys_vendor"], vendor.trim());
    assert!(
        twin.acpi["DMAR"].length > 0 && twin.acpi["APIC"].oem == "BOCHS",
        "{:?}",
        twin.acpi
    );
    let vendor = twin.cpus.leaves.first().unwrap();
    let letters = [1, 3, 2]
        .map(|register| vendor.answer[register].to_le_bytes())
        .concat();
    assert_eq!(String::from_utf8(letters).unwrap(), twin.cpus.vendor);
    assert_eq!(
        twin.cpus.counts()[2],
        std::thread::available_parallelism().map_or(0, usize::from) + 1,
        "all but the first are ours"
    );
    assert!(
        twin.clock.rtc_offset.is_some_and(|seconds| seconds.abs() < 3600),
        "{:?}",
        twin.clock
    );
    assert!(!twin.firmware.efi, "it was booted directly");
    assert!(!twin.memory.map.is_empty() && twin.memory.total() > 1 << 30);
}

#[test]
fn two_captures_in_a_row_do_not_differ_but_in_the_clock() {
    let vmm = Vmm::new();
    let (one, other) = (vmm.file("one", &[]), vmm.file("other", &[]));
    for path in [&one, &other] {
        fs::write(path, captured(&vmm).to_json().unwrap()).unwrap();
    }
    let words = [
        "twin".as_ref(),
        "diff".as_ref(),
        one.as_os_str(),
        other.as_os_str(),
    ];
    let answer = vmm.ask(words);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    assert!(answer.out.contains("worst: none"), "{answer:?}");
}

#[test]
fn a_placement_that_changes_a_name_is_known_before_it_is_tried() {
    let vmm = Vmm::new();
    let host = captured(&vmm);
    let card = "0000:00:19.0";
    let (nic, _) = host
        .nics
        .iter()
        .find(|(_, nic)| nic.pci.is_some_and(|pci| pci.to_string() == card))
        .unwrap();
    let kernel = linux::named("PELLUCID_KERNEL");
    let predicted = |device: &str| {
        let words = [
            "twin", "predict", "--name", "a", "--cpus", "1", "--memory", "256M", "--kernel", &kernel,
        ];
        let answer = vmm.ask(words.into_iter().chain(["--device", device]));
        assert_eq!((answer.status, answer.err.as_str()), (Some(0), ""), "{answer:?}");
        Twin::from_json(answer.out.as_bytes()).unwrap()
    };
    let names = |twin: &Twin| twin.names(host.scheme()).remove(nic).unwrap();
    let (own, mirrored) = (names(&host), predicted(card));
    assert_eq!(names(&mirrored).chosen, own.chosen, "{own:?}");
    assert!(mirrored.origin.withheld.contains(&DATA.parse().unwrap()));
    let moved = names(&predicted(&format!("{card},at=0000:00:10.0")));
    assert_eq!(moved.path.as_deref(), Some("enp0s16"));
    assert_eq!(moved.onboard, own.onboard, "its record goes along");
    let mut told = host.diff(&mirrored, None).names.into_iter();
    let told = told.find(|row| row.nic == host.nics[nic].mac).unwrap();
    assert_eq!(
        told.before.unwrap().names.chosen,
        told.after.unwrap().names.chosen
    );
}

/// What udev's own builtin says of an interface by a naming scheme.
fn told_by_udev(nic: &str, scheme: &str) -> BTreeMap<String, String> {
    let device = format!("/sys/class/net/{nic}");
    let mut command = Command::new("udevadm");
    command
        .args(["test-builtin", "net_id", &device])
        .env("NET_NAMING_SCHEME", scheme);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// By hardware address, by address, and where the server's firmware has a number for it, by that.
#[test]
fn names_are_udevs_own_by_every_scheme_that_it_knows() {
    let twin = captured(&Vmm::new());
    assert!(twin.nics.len() >= 5, "{:?}", twin.nics);
    for scheme in [
        "v238", "v239", "v240", "v243", "v247", "v249", "v250", "v251", "v252",
    ] {
        for (nic, names) in twin.names(scheme.parse().unwrap()) {
            let told = told_by_udev(&nic, scheme);
            assert_eq!(told["ID_NET_NAMING_SCHEME"], scheme);
            let of = |key: &str| told.get(&format!("ID_NET_NAME_{key}")).cloned();
            let own = [of("ONBOARD"), of("SLOT"), of("PATH"), of("MAC")];
            assert!(names.path.is_some());
            let predicted = [names.onboard, names.slot, names.path, names.mac];
            assert_eq!(predicted, own, "{nic} by {scheme}");
        }
    }
}
