//! An IOMMU of 48 bits: what it accepts is seen before anything is placed.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "scene/mod.rs"]
mod scene;

use pellucid_partition::Reach;
use pellucid_passthrough::{Inventory, IoSpace};
use scene::{bdf, driver_of, state};

#[test]
fn a_wider_iommu_is_reported_by_survey_and_container_alike() {
    let (_directory, state) = state();
    let inventory = Inventory::survey().unwrap();
    assert_eq!(inventory.iommu_bits, Some(48));
    let space = IoSpace::open().unwrap();
    let device = "0000:02:00.0";
    let bound = inventory
        .admit(bdf(device))
        .unwrap()
        .claim(&state, "wide")
        .unwrap()
        .bind(&space)
        .unwrap();
    let ranges = space.iova_ranges().unwrap();
    assert_eq!(ranges.last().map(|range| *range.end()), Some((1 << 48) - 1));
    assert!(
        !ranges.iter().any(|range| range.contains(&0xfee0_0000)),
        "the interrupt range is no place for memory"
    );
    let (told, real) = (
        inventory.reach([bdf(device)]).unwrap(),
        Reach::iova(ranges).unwrap(),
    );
    assert_eq!(
        told.address_bits(),
        real.address_bits(),
        "sysfs and the container agree"
    );
    let interrupts = |reach: &Reach| {
        reach
            .reserved()
            .iter()
            .any(|hole| hole.start <= 0xfee0_0000 && hole.end >= 0xfef0_0000)
    };
    assert!(interrupts(&told) && interrupts(&real));
    bound.release().unwrap();
    assert_eq!(driver_of(device).as_deref(), Some("nvme"));
}
