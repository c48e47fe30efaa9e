//! The machine of docs/machines.md whose card shares itself among servers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use support::host::driver_of;
use support::lent::{Card, lent, powers_off, run};
use support::{Server, Vmm};

/// The guest's virtual function has the address that the host gave it, and a packet crosses, by MSI-X.
#[track_caller]
fn reaches(card: &Card, server: &mut Server, mac: &str, own: &str) {
    let line = card.reaches_by(server, AT, own);
    assert!(line.contains("PCI-MSI"), "{line}");
    let address = server.asks(&format!("cat /sys/bus/pci/devices/{AT}/net/*/address"));
    assert_eq!(address, mac);
}

#[test]
fn one_virtual_function_each_to_two_servers_at_once() {
    let card = Card::of("0x8086", "0x10c9", Some("0000:00:04.0"));
    // So that it answers its virtual functions.
    run(&["ifconfig", &card.name(), "up"]);
    let vmm = Vmm::new();
    let function = |number, mac| format!("{},vf={number},vfs=2,mac={mac},at={AT}", card.at);
    let mut first = lent(&vmm, "a", "256M", &[&function(0, FIRST)]);
    let mut second = lent(&vmm, "b", "256M", &[&function(1, SECOND)]);
    reaches(&card, &mut first, FIRST, "10.0.2.15");
    reaches(&card, &mut second, SECOND, "10.0.2.16");
    powers_off(first);
    reaches(&card, &mut second, SECOND, "10.0.2.16");
    powers_off(second);
    let made = std::fs::read_to_string(format!("/sys/bus/pci/devices/{}/sriov_numvfs", card.at));
    assert_eq!(made.unwrap().trim(), "0");
    card.is_back();
}

#[test]
fn a_virtual_function_that_the_host_drives_is_lent_and_driven_again() {
    let card = Card::of("0x8086", "0x10c9", Some("0000:00:04.0"));
    run(&["ifconfig", &card.name(), "up"]);
    let folder = format!("/sys/bus/pci/devices/{}", card.at);
    std::fs::write(format!("{folder}/sriov_numvfs"), "2").unwrap();
    let at = std::fs::read_link(format!("{folder}/virtfn1")).unwrap();
    let function = Card::at(at.file_name().unwrap().to_str().unwrap());
    assert_eq!(driver_of(&function.at).as_deref(), Some("igbvf"));
    function.is_back();
    let vmm = Vmm::new();
    let mut server = lent(&vmm, "a", "256M", &[&format!("{},at={AT}", function.at)]);
    let line = function.reaches_by(&mut server, AT, "10.0.2.15");
    assert!(line.contains("PCI-MSI"), "{line}");
    powers_off(server);
    function.is_back();
    let there = std::fs::read_to_string(format!("{folder}/sriov_numvfs"));
    assert_eq!(there.unwrap().trim(), "2", "they are the host's");
    std::fs::write(format!("{folder}/sriov_numvfs"), "0").unwrap();
    card.is_back();
}

/// Where each guest sees its own.
const AT: &str = "0000:00:05.0";
const FIRST: &str = "52:54:00:0a:00:01";
const SECOND: &str = "52:54:00:0a:00:02";
