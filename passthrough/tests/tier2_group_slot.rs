//! Two functions of one slot in one IOMMU group: one descriptor for both, one reset that would reach both, and back together.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "scene/mod.rs"]
mod scene;

use pellucid_passthrough::{Admitted, Bound, Claimant, Inventory, IoSpace, Wanted};
use scene::{driver_of, state};

/// The two functions of the slot that has two, of one group.
fn both() -> Vec<Admitted> {
    let host = Inventory::survey().unwrap();
    let second = host.functions.values().find(|function| {
        let bdf = function.bdf;
        bdf.function() == 1 && bdf.bus() != 0 && function.driver.bound.as_deref() == Some("e1000e")
    });
    let second = second.unwrap().bdf;
    let first = format!("{}.0", second.to_string().trim_end_matches(".1"));
    let wanted = [Wanted::new(first.parse().unwrap()), Wanted::new(second)];
    host.admit_together(&wanted).unwrap()
}

#[test]
fn functions_of_one_group_are_opened_and_given_back_together() {
    let (_directory, state) = state();
    let admitted = both();
    assert_eq!(admitted[0].group(), admitted[1].group());
    let names: Vec<String> = admitted
        .iter()
        .map(|one| one.function().bdf.to_string())
        .collect();
    let drivers: Vec<_> = names.iter().map(|name| driver_of(name)).collect();
    let space = IoSpace::open().unwrap();
    let claimed = Claimant::new(&state, "db1").claim_all(admitted).unwrap();
    let bound: Vec<Bound> = claimed.into_iter().map(|one| one.bind(&space).unwrap()).collect();

    // Behind their root port there is nobody else, so one reset may reach both.
    let mut scope = bound[0].transport().reset_scope().unwrap();
    scope.sort_unstable();
    assert_eq!(scope, bound.iter().map(Bound::bdf).collect::<Vec<_>>());

    // The first one waits for the second: the kernel gives none back while the group is open.
    let mut released = Bound::release_all(bound).into_iter().map(Result::unwrap);
    let (first, second) = (released.next().unwrap(), released.next().unwrap());
    assert!(!first.is_back && second.is_back, "{first:?} {second:?}");
    for (name, driver) in names.iter().zip(drivers) {
        assert_eq!(driver_of(name), driver, "{name}");
    }
    assert!(state.records().unwrap().is_empty());
}
