//! The machine of docs/machines.md with a slot of two functions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use support::lent::{Card, Disk, together};

#[test]
fn both_functions_of_one_slot_in_one_server() {
    let (disk, card) = (
        Disk::of("PELLUCID-SLOT"),
        Card::of("0x8086", "0x10d3", Some("0000:00:07.0")),
    );
    let slot = |at: &str| at.rsplit_once('.').unwrap().0.to_owned();
    assert_eq!(slot(&disk.at), slot(&card.at));
    let group = |at: &str| std::fs::read_link(format!("/sys/bus/pci/devices/{at}/iommu_group")).unwrap();
    assert_eq!(group(&disk.at), group(&card.at));
    together("256M", &disk, &card);
}
