//! Two functions of one slot in one IOMMU group: one descriptor for both, one reset that would reach both, and back together.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "scene/mod.rs"]
mod scene;

use pellucid_passthrough::{
    Admitted, Bound, Claimant, Inventory, IoSpace, RegionIndex, ResetAct, ResetReport, Transport, Wanted,
};
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

#[test]
fn a_function_without_a_reset_of_its_own_is_reset_by_its_bus_once_all_on_it_is_ours() {
    let (_directory, state) = state();
    let names: Vec<String> = both().iter().map(|one| one.function().bdf.to_string()).collect();
    let drivers: Vec<_> = names.iter().map(|name| driver_of(name)).collect();
    let methods = Methods::taken_from(&names[0]);
    let space = IoSpace::open().unwrap();
    let claimed = Claimant::new(&state, "db1").claim_all(both()).unwrap();
    // The card first, which is left with its power states; with the controller the bus is whole.
    let opened = claimed.into_iter().rev();
    let bound: Vec<Bound> = opened.map(|one| one.bind(&space).unwrap()).collect();
    let by = |report: &ResetReport| report.reset_by().map(|step| step.act);
    assert_eq!(by(bound[1].admission().unwrap()), Some(ResetAct::Hot));

    // A reset through one function reaches the other.
    let card = bound[0].transport();
    assert_eq!(vlan_type(card), 0x8100);
    card.write(RegionIndex::Bar(0), VLAN_TYPE, &[0x34, 0x12, 0, 0])
        .unwrap();
    assert_eq!(vlan_type(card), 0x1234);
    bound[1].transport().hot_reset().unwrap();
    assert_eq!(vlan_type(card), 0x8100);

    let released = Bound::release_all(bound).into_iter().map(Result::unwrap);
    let acts: Vec<_> = released.map(|one| by(&one.reset)).collect();
    assert_eq!(acts[1], Some(ResetAct::Hot));
    drop(methods);
    for (name, driver) in names.iter().zip(drivers) {
        assert_eq!(driver_of(name), driver, "{name}");
    }
}

/// The kernel's ways to reset a function alone, taken from it until dropped.
struct Methods(String);

impl Methods {
    fn taken_from(name: &str) -> Methods {
        let path = format!("/sys/bus/pci/devices/{name}/reset_method");
        std::fs::write(&path, "\n").unwrap();
        Methods(path)
    }
}

impl Drop for Methods {
    fn drop(&mut self) {
        std::fs::write(&self.0, "default\n").unwrap();
    }
}

/// What the card takes for the mark of a VLAN; a reset makes it 0x8100.
fn vlan_type(card: &dyn Transport) -> u32 {
    card.write(RegionIndex::Config, COMMAND, &[2, 0]).unwrap();
    let mut value = [0; 4];
    card.read(RegionIndex::Bar(0), VLAN_TYPE, &mut value).unwrap();
    u32::from_le_bytes(value)
}

const COMMAND: u64 = 4;
/// `VET` of the 82574.
const VLAN_TYPE: u64 = 0x38;
