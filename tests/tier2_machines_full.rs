//! Machines of docs/machines.md with one device: each kind in each kind of place, driven by a guest and used by the host afterwards.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::os::unix::fs::FileExt;

use pellucid::passthrough::Capabilities;
use support::lent::{Card, Disk, lent, powers_off};
use support::{Vmm, tiny};

#[track_caller]
fn one_disk(disk: &Disk) {
    let vmm = Vmm::new();
    let mut server = lent(&vmm, "a", "256M", &[&disk.at]);
    // Its own address, behind the same ports at their own.
    let path = server.asks("readlink -f /sys/class/nvme/nvme0/device");
    let on_host = std::fs::canonicalize(format!("/sys/bus/pci/devices/{}", disk.at)).unwrap();
    assert_eq!(path, on_host.to_string_lossy());
    let digest = disk.is_written_by(&mut server);
    powers_off(server);
    disk.holds(&digest);
}

/// Lends the card, returns how its interrupts came.
#[track_caller]
fn one_card(card: &Card) -> String {
    let vmm = Vmm::new();
    let mut server = lent(&vmm, "a", "256M", &[&card.at]);
    let line = card.reaches_by(&mut server, &card.at, "10.0.2.15");
    powers_off(server);
    card.is_back();
    line
}

#[test]
fn a_controller_alone_on_the_root_bus() {
    one_disk(&Disk::of("PELLUCID-ROOT"));
}

#[test]
fn a_controller_behind_a_root_port() {
    one_disk(&Disk::of("PELLUCID-DATA"));
}

#[test]
fn a_controller_behind_a_switch() {
    one_disk(&Disk::of("PELLUCID-SWITCH"));
}

#[test]
fn a_card_whose_only_reset_is_that_of_power_management() {
    let card = Card::of("0x8086", "0x10d3", None);
    let methods = std::fs::read_to_string(format!("/sys/bus/pci/devices/{}/reset_method", card.at));
    assert_eq!(methods.unwrap().trim(), "pm");
    let line = one_card(&card);
    assert!(line.contains("PCI-MSI"), "{line}");
}

#[test]
fn a_card_with_a_level_triggered_line_and_ports() {
    let card = Card::of("0x8086", "0x100e", None);
    let line = one_card(&card);
    assert!(line.contains("IO-APIC") && line.contains("fasteoi"), "{line}");
}

#[test]
fn a_card_with_virtual_functions_as_a_whole() {
    let line = one_card(&Card::of("0x8086", "0x10c9", Some("0000:00:04.0")));
    assert!(line.contains("PCI-MSI"), "{line}");
}

/// The host takes the controller's resets away and turns its MSI-X on behind its guest's back, which nothing turns off then.
#[test]
fn a_controller_that_cannot_be_proved_well_is_kept_from_everybody_until_a_reset_is_proved() {
    let disk = Disk::of("PELLUCID-ROOT");
    let (vmm, folder) = (Vmm::new(), format!("/sys/bus/pci/devices/{}", disk.at));
    let kernel = vmm.file("tiny", &tiny::kernel());
    let words = ["--kernel", kernel.to_str().unwrap(), "--device", &disk.at];
    std::fs::write(format!("{folder}/reset_method"), "\n").unwrap();
    let mut server = vmm.start("a", "64M", &words);
    server.says(tiny::GREETING.trim_end());
    turn_messages_on(&folder);
    server.types("q");
    let (status, said) = server.ends();
    assert_eq!(status, Some(1), "{said}");
    let fault = "MSI-X is still enabled";
    assert!(said.contains(&disk.at) && said.contains(fault), "{said}");

    // Neither the next server nor a look without a reset gets it.
    let run = ["run", "--name", "b", "--cpus", "1", "--memory", "64M"];
    let refused = || vmm.ask(run.iter().chain(&words));
    let listed = vmm.ask(["list"]).out;
    assert!(
        listed.contains("in quarantine since") && listed.contains(fault),
        "{listed}"
    );
    refused().refuses(&[&disk.at, "quarantine", "vmm heal"]);
    let healed = vmm.ask(["heal"]);
    assert_eq!(healed.status, Some(1), "{healed:?}");
    assert!(
        healed.out.contains(&disk.at) && healed.out.contains(fault),
        "{healed:?}"
    );
    refused().refuses(&[&disk.at, "quarantine", "vmm heal"]);

    std::fs::write(format!("{folder}/reset_method"), "default\n").unwrap();
    let healed = vmm.ask(["heal"]);
    assert_eq!(healed.status, Some(0), "{healed:?}");
    assert!(vmm.claims().is_empty());
    one_disk(&disk);
}

/// Sets the enable bit of a function's MSI-X capability.
fn turn_messages_on(folder: &str) {
    let config = std::fs::read(format!("{folder}/config")).unwrap();
    let control = Capabilities::walk(&config).find(MSIX).unwrap() + 2;
    let high = config[usize::from(control) + 1] | 0x80;
    let file = std::fs::File::options()
        .write(true)
        .open(format!("{folder}/config"))
        .unwrap();
    file.write_all_at(&[high], u64::from(control) + 1).unwrap();
}

const MSIX: u8 = 0x11;
