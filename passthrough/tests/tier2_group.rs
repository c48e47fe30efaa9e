//! A real IOMMU group of three (LPC bridge, SATA controller, SMBus controller): not lent in part, lent whole once its bridge is parked,
//! and everybody back where they were.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "scene/mod.rs"]
mod scene;

use std::fs;

use pellucid_passthrough::{Claimant, Inventory, Refusal, Standing, Wanted};
use scene::{bdf, driver_of, state};

const BRIDGE: &str = "0000:00:1f.0";
const SATA: &str = "0000:00:1f.2";
const SMBUS: &str = "0000:00:1f.3";

/// The bridge on vfio-pci by an administrator's hand; dropping it undoes that.
struct Parked {
    driver: Option<String>,
}

impl Parked {
    fn now() -> Parked {
        let driver = driver_of(BRIDGE);
        if let Some(driver) = &driver {
            write(&format!("drivers/{driver}/unbind"), BRIDGE);
        }
        write(&format!("devices/{BRIDGE}/driver_override"), "vfio-pci");
        write("drivers_probe", BRIDGE);
        assert_eq!(driver_of(BRIDGE).as_deref(), Some("vfio-pci"));
        Parked { driver }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        write("drivers/vfio-pci/unbind", BRIDGE);
        write(&format!("devices/{BRIDGE}/driver_override"), "\n");
        if self.driver.is_some() {
            write("drivers_probe", BRIDGE);
        }
    }
}

fn write(path: &str, text: &str) {
    fs::write(format!("/sys/bus/pci/{path}"), text).unwrap();
}

fn both() -> [Wanted; 2] {
    [SATA, SMBUS].map(|device| Wanted::new(bdf(device)))
}

#[test]
fn a_group_of_three_is_refused_until_its_bridge_is_parked_and_then_taken_and_given_back_whole() {
    let before = [BRIDGE, SATA, SMBUS].map(driver_of);
    let inventory = Inventory::survey().unwrap();
    let refused = inventory.admit_together(&both()).unwrap_err();
    let [Refusal::SharedGroup { others, .. }] = &refused.refusals[..] else {
        panic!("{refused}")
    };
    assert_eq!(others.len(), 1, "{refused}");
    assert_eq!((others[0].device.as_str(), others[0].bridge), (BRIDGE, true));
    assert!(
        refused
            .to_string()
            .contains("driverctl set-override 0000:00:1f.0 pci-stub")
    );
    assert!(refused.others.is_empty());

    let parked = Parked::now();
    let inventory = Inventory::survey().unwrap();
    let group = inventory.function(bdf(SATA)).unwrap().group.as_ref().unwrap().id;
    let bridge = &inventory.members(group)[0];
    assert_eq!(
        (bridge.device.as_str(), bridge.standing.hinders()),
        (BRIDGE, false)
    );
    assert!(matches!(&bridge.standing, Standing::Parked { driver } if driver == "vfio-pci"));
    assert!(
        inventory
            .admit(bdf(SATA))
            .unwrap_err()
            .to_string()
            .contains(SMBUS)
    );
    let admitted = inventory.admit_together(&both()).unwrap();
    assert_eq!(admitted[0].companions(), [bdf(SMBUS)]);
    assert_eq!((admitted[0].group(), admitted[1].group()), (group, group));
    let (_directory, state) = state();
    let claimed = Claimant::new(&state, "db1").claim_all(admitted).unwrap();
    for device in [SATA, SMBUS] {
        assert_eq!(driver_of(device).as_deref(), Some("vfio-pci"));
    }
    assert_eq!(claimed[0].node(), claimed[1].node());
    // The kernel finds it viable: by its own rule nobody of the host is left in it.
    let group = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(claimed[0].node());
    drop(group.unwrap());
    for claimed in claimed {
        claimed.release().unwrap();
    }
    drop(parked);
    assert_eq!([BRIDGE, SATA, SMBUS].map(driver_of), before);
}
