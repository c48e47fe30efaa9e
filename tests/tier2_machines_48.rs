//! The machine of docs/machines.md whose IOMMU has 48 bits.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use support::lent::{Card, Disk, together};

#[test]
fn a_controller_and_a_card_together_behind_an_iommu_of_48_bits() {
    together(
        "256M",
        &Disk::of("PELLUCID-BOOT"),
        &Card::of("0x8086", "0x10d3", None),
    );
}
