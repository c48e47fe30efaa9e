//! Claiming, releasing and healing on a host of files, with a thread that plays the kernel's side of sysfs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod fixture;

use std::fs;

use fixture::kernel::Kernel;
use fixture::{Card, Host, NVME, PORT};
use pellucid_partition::{HealOutcome, Healer, StateDir};
use pellucid_passthrough::{Claimant, Claimed, PciHealer, TakeError};

fn claim(host: &Host, state: &StateDir) -> Result<Claimed, TakeError> {
    let admitted = host.survey().admit(NVME.bdf.parse().unwrap()).unwrap();
    Claimant::new(state, "db1").at(host.root()).claim(admitted)
}

fn state(host: &Host) -> StateDir {
    StateDir::at(&host.root().join("state")).unwrap()
}

fn driver(host: &Host) -> Option<String> {
    host.survey()
        .function(NVME.bdf.parse().unwrap())
        .unwrap()
        .driver
        .bound
        .clone()
}

#[test]
fn a_claimed_function_is_on_vfio_and_a_released_one_on_its_driver() {
    let host = Host::with(&[PORT, NVME]);
    let _kernel = Kernel::start(&host);
    let state = state(&host);
    let claimed = claim(&host, &state).unwrap();
    assert_eq!(driver(&host).as_deref(), Some("vfio-pci"));
    assert!(claimed.node().ends_with("dev/vfio/9"));
    let records = state.records().unwrap();
    let undo = records[0].0.undo.as_ref().unwrap();
    assert_eq!(
        (undo.kind.as_str(), undo.data["original"]["bound"].as_str()),
        (PciHealer::KIND, Some("nvme"))
    );
    claimed.release().unwrap();
    assert_eq!(driver(&host).as_deref(), Some("nvme"));
    assert_eq!(
        host.read(&format!("{}/driver_override", Host::place(&NVME)))
            .trim(),
        ""
    );
    assert!(state.records().unwrap().is_empty());
}

#[test]
fn a_dropped_claim_gives_the_function_back_too() {
    let host = Host::with(&[PORT, NVME]);
    let _kernel = Kernel::start(&host);
    drop(claim(&host, &state(&host)).unwrap());
    assert_eq!(driver(&host).as_deref(), Some("nvme"));
    assert!(state(&host).records().unwrap().is_empty());
}

#[test]
fn a_function_in_use_names_its_holder() {
    let host = Host::with(&[PORT, NVME]);
    let _kernel = Kernel::start(&host);
    let state = state(&host);
    let _held = claim(&host, &state).unwrap();
    let refusal = claim(&host, &state).unwrap_err().to_string();
    assert!(
        refusal.contains("0000:01:00.0") && refusal.contains("db1"),
        "{refusal}"
    );
}

#[test]
fn a_disk_that_was_mounted_since_the_survey_is_not_taken() {
    let host = Host::with(&[PORT, NVME]);
    host.block(&format!("{}/nvme/nvme0/nvme0n1", Host::place(&NVME)), "259:0\n");
    let admitted = host.survey().admit(NVME.bdf.parse().unwrap()).unwrap();
    host.write(
        "proc/self/mountinfo",
        "30 1 259:0 / /mnt rw - ext4 /dev/nvme0n1 rw\n",
    );
    let refusal = Claimant::new(&state(&host), "db1")
        .at(host.root())
        .claim(admitted)
        .unwrap_err();
    assert!(matches!(refusal, TakeError::Refused(_)), "{refusal}");
    assert_eq!(driver(&host).as_deref(), Some("nvme"));
    assert!(state(&host).records().unwrap().is_empty());
}

#[test]
fn what_was_on_vfio_before_is_left_on_it() {
    let host = Host::with(&[
        PORT,
        Card {
            driver: Some("vfio-pci"),
            ..NVME
        },
    ]);
    host.write(&format!("{}/driver_override", Host::place(&NVME)), "vfio-pci\n");
    host.write("dev/vfio/9", "");
    claim(&host, &state(&host)).unwrap().release().unwrap();
    assert_eq!(driver(&host).as_deref(), Some("vfio-pci"));
    assert_eq!(
        host.read(&format!("{}/driver_override", Host::place(&NVME))),
        "vfio-pci\n"
    );
}

#[test]
fn a_function_without_a_driver_is_left_without_one() {
    let host = Host::with(&[PORT, Card { driver: None, ..NVME }]);
    let kernel = Kernel::start(&host);
    claim(&host, &state(&host)).unwrap().release().unwrap();
    drop(kernel);
    assert_eq!(driver(&host), None);
}

#[test]
fn a_driver_that_does_not_bind_is_named_and_all_is_undone() {
    // No kernel plays: nothing unbinds, nothing binds.
    let host = Host::with(&[PORT, Card { driver: None, ..NVME }]);
    let refusal = claim(&host, &state(&host)).unwrap_err();
    assert!(
        matches!(&refusal, TakeError::NotBound { found: None, .. }),
        "{refusal}"
    );
    assert_eq!(
        host.read(&format!("{}/driver_override", Host::place(&NVME)))
            .trim(),
        ""
    );
    assert!(state(&host).records().unwrap().is_empty());
}

fn left_behind(host: &Host) -> serde_json::Value {
    host.driver("nvme");
    fs::remove_file(host.root().join(Host::place(&NVME)).join("driver")).unwrap();
    host.link(
        &format!("{}/driver", Host::place(&NVME)),
        &host.root().join("sys/bus/pci/drivers/vfio-pci"),
    );
    host.write(&format!("{}/driver_override", Host::place(&NVME)), "vfio-pci\n");
    serde_json::json!({ "original": { "bound": "nvme", "only": null }, "quarantined": null })
}

#[test]
fn healing_restores_the_driver_and_healing_again_changes_nothing() {
    let host = Host::with(&[PORT, NVME]);
    let record = left_behind(&host);
    let kernel = Kernel::start(&host);
    let healer = PciHealer::at(host.root());
    healer.undo(NVME.bdf, &record).unwrap();
    assert_eq!(driver(&host).as_deref(), Some("nvme"));
    drop(kernel);
    healer.undo(NVME.bdf, &record).unwrap();
    assert_eq!(driver(&host).as_deref(), Some("nvme"));
}

#[test]
fn healing_leaves_a_living_holder_alone() {
    let host = Host::with(&[PORT, NVME]);
    let _kernel = Kernel::start(&host);
    let state = state(&host);
    let _held = claim(&host, &state).unwrap();
    let report = state.heal(&[&PciHealer::at(host.root())], false).unwrap();
    assert!(matches!(report[0].outcome, HealOutcome::InUse));
    assert_eq!(driver(&host).as_deref(), Some("vfio-pci"));
}

#[test]
fn a_function_that_left_the_machine_needs_no_healing() {
    let host = Host::with(&[PORT]);
    let record = serde_json::json!({ "original": { "bound": "nvme", "only": null }, "quarantined": null });
    PciHealer::at(host.root()).undo(NVME.bdf, &record).unwrap();
}

#[test]
fn a_quarantined_function_that_still_does_not_answer_stays_away_from_its_driver() {
    let host = Host::with(&[PORT, NVME]);
    let mut record = left_behind(&host);
    record["quarantined"] = serde_json::json!({ "reason": "its bus master bit does not go off", "since": 1 });
    fs::write(host.root().join(Host::place(&NVME)).join("config"), [0xff; 64]).unwrap();
    let refusal = PciHealer::at(host.root())
        .undo(NVME.bdf, &record)
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("quarantined") && refusal.contains("bus master"),
        "{refusal}"
    );
    assert_eq!(driver(&host).as_deref(), Some("vfio-pci"));
}

#[test]
fn a_damaged_record_is_reported_not_obeyed() {
    let host = Host::with(&[PORT, NVME]);
    for record in [serde_json::json!(null), serde_json::json!({ "original": 7 })] {
        assert!(PciHealer::at(host.root()).undo(NVME.bdf, &record).is_err());
    }
    assert!(
        PciHealer::at(host.root())
            .undo("../../etc", &serde_json::json!({}))
            .is_err()
    );
}
