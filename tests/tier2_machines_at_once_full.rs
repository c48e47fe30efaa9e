//! Machines of docs/machines.md with more than one device or server at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use support::Vmm;
use support::lent::{Card, Disk, lent, powers_off};

#[test]
fn two_servers_at_once() {
    let (disk, card) = (Disk::of("PELLUCID-BOOT"), Card::of("0x8086", "0x10d3", None));
    let vmm = Vmm::new();
    let mut first = lent(&vmm, "a", "256M", &[&disk.at]);
    let mut second = lent(&vmm, "b", "256M", &[&card.at]);
    let digest = disk.is_written_by(&mut first);
    card.reaches_by(&mut second, &card.at, "10.0.2.15");
    powers_off(first);
    disk.holds(&digest);
    card.reaches_by(&mut second, &card.at, "10.0.2.15");
    powers_off(second);
    card.is_back();
}
