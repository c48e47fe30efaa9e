//! Machines of docs/machines.md with one device: each kind in each kind of place, driven by a guest and used by the host afterwards.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use support::Vmm;
use support::lent::{Card, Disk, lent, powers_off};

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
