//! Two functions of one slot in one guest: they leave and come together, whichever is named.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use support::Vmm;
use support::host::driver_of;
use support::lent::{Card, Disk, lent, powers_off};
use support::plug::does;

#[test]
fn two_functions_of_one_slot_leave_and_come_together() {
    let vmm = Vmm::new();
    let disk = Disk::of("PELLUCID-SLOT");
    let card = Card::at(&disk.at.replace(".0", ".1"));
    assert_ne!(card.at, disk.at);
    let mut server = lent(&vmm, "a", "256M", &[&format!("{},hotplug", disk.at), &card.at]);
    card.reaches_by(&mut server, &card.at, "10.0.2.15");
    let digest = disk.is_written_by(&mut server);
    let bus = disk.at.trim_end_matches(".0");
    let power =
        format!("/sys/bus/pci/slots/$(grep -l {bus} /sys/bus/pci/slots/*/address | cut -d/ -f6)/power");

    server.asks(&format!("echo 0 >{power}"));
    does(&vmm, &["unplug", "a", &card.at]);
    let claims = vmm.claims();
    let device = |row: &serde_json::Value| row["claim"]["resource"]["kind"] == "device";
    assert!(!claims.iter().any(device), "{claims:?}");
    disk.holds(&digest);
    card.is_back();

    does(&vmm, &["plug", "a", &disk.at]);
    server.asks(&format!("echo 1 >{power}"));
    for device in [&disk.at, &card.at] {
        assert_eq!(driver_of(device).as_deref(), Some("vfio-pci"));
    }
    card.reaches_by(&mut server, &card.at, "10.0.2.15");
    let digest = disk.is_written_by(&mut server);
    does(&vmm, &["unplug", "a", &disk.at, "--force"]);
    disk.holds(&digest);
    card.is_back();
    powers_off(server);
    assert!(vmm.claims().is_empty());
}
