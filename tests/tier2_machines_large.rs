//! The machine of docs/machines.md with room for a guest that has memory above 4 GiB.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use support::lent::{Card, Disk, lent_with, powers_off};
use support::{Server, Vmm};

/// The upper half of an address that a device's register holds.
#[track_caller]
fn upper_half(server: &mut Server, device: &str, register: u64) -> String {
    let bar = format!("$(head -n 1 /sys/bus/pci/devices/{device}/resource | cut -d' ' -f1)");
    server.asks(&format!("devmem $(({bar} + {register:#x})) 32"))
}

#[test]
fn a_controller_and_a_card_reach_memory_above_4_gib() {
    let (disk, card) = (Disk::of("PELLUCID-BOOT"), Card::of("0x8086", "0x10d3", None));
    let vmm = Vmm::new();
    let devices = [disk.at.as_str(), card.at.as_str()];
    let mut server = lent_with(&vmm, ("a", "4G"), &devices, "iomem=relaxed");
    card.reaches_by(&mut server, &card.at, "10.0.2.15");
    let digest = disk.is_written_by(&mut server);

    // The rings of commands and completions, and of packets received and sent, are above.
    for (device, register) in [
        (&disk.at, ASQ),
        (&disk.at, ACQ),
        (&card.at, RDBAH),
        (&card.at, TDBAH),
    ] {
        assert_eq!(
            upper_half(&mut server, device, register),
            "0x00000001",
            "{device}, register {register:#x}"
        );
    }
    powers_off(server);
    disk.holds(&digest);
    card.is_back();
}

/// Upper halves of the administration queues' bases (NVM Express 1.4, 3.1.9 and 3.1.10).
const ASQ: u64 = 0x2c;
const ACQ: u64 = 0x34;
/// Upper halves of the descriptor rings' bases (82574 datasheet, 10.2.5.6 and 10.2.6.5).
const RDBAH: u64 = 0x2804;
const TDBAH: u64 = 0x3804;
