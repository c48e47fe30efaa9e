//! A function in quarantine, on a host of files: who may have it, what lifts it, and that it persists.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod fixture;

use std::fs;

use fixture::NVME;
use fixture::kernel::Kernel;
use fixture::quarantine::{place, quarantined, well};
use pellucid_partition::HealOutcome;
use pellucid_passthrough::{Claimant, PciHealer, Quarantine};

#[test]
fn it_is_refused_to_others_with_its_reason_and_the_remedies() {
    let (host, state) = quarantined(&well());
    let claimant = Claimant::new(&state, "db2").at(host.root());
    let admitted = host.survey().admit(NVME.bdf.parse().unwrap()).unwrap();
    let refusal = claimant.claim(admitted).unwrap_err().to_string();
    for word in [
        NVME.bdf,
        "it answers ffffffff",
        "`vmm heal`",
        "--lift 0000:01:00.0",
    ] {
        assert!(refusal.contains(word), "{word}: {refusal}");
    }
    let found = Quarantine::find(&state, NVME.bdf.parse().unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.reason.as_str(), found.since),
        ("it answers ffffffff", 1_700_000_000)
    );
    assert_eq!(state.records().unwrap().len(), 1, "it persists");
}

#[test]
fn a_reset_that_is_proved_lifts_it() {
    let (host, state) = quarantined(&well());
    let _kernel = Kernel::start(&host);
    let report = state.heal(&[&PciHealer::at(host.root())], false).unwrap();
    assert!(matches!(report[0].outcome, HealOutcome::Healed), "{report:?}");
    assert_eq!(host.read(&place("reset")), "1");
    assert_eq!(host.bound(&NVME).as_deref(), Some("nvme"));
    let registers = fs::read(host.root().join(place("config"))).unwrap();
    assert_eq!(registers[4] & 7, 0, "it was stopped");
    assert_eq!(
        host.read(&place("reset_method")).trim(),
        "flr bus",
        "every method may be tried again"
    );
}

#[test]
fn without_such_a_reset_it_stays_and_says_what_was_tried() {
    let mut lost = well();
    lost[0x10..0x18].fill(0);
    let (host, state) = quarantined(&lost);
    let _kernel = Kernel::start(&host);
    for _ in 0..2 {
        let report = state.heal(&[&PciHealer::at(host.root())], false).unwrap();
        let HealOutcome::Failed(error) = &report[0].outcome else {
            panic!("{report:?}")
        };
        let error = error.to_string();
        for word in [
            "it answers ffffffff",
            "reset by flr",
            "reset by bus",
            "BAR 0 is at 0x0",
        ] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
    assert_eq!(host.bound(&NVME).as_deref(), Some("vfio-pci"));
    assert_eq!(host.read(&place("reset_method")).trim(), "flr bus");
}

#[test]
fn a_person_lifts_that_of_one_function_as_it_is() {
    let (host, state) = quarantined(&[0xff; 256]);
    let _kernel = Kernel::start(&host);
    let of = |device: &str| PciHealer::at(host.root()).lifting(device.parse().unwrap());
    let report = state.heal(&[&of("0000:02:00.0")], false).unwrap();
    assert!(
        matches!(report[0].outcome, HealOutcome::Failed(_)),
        "another's is not lifted"
    );
    let report = state.heal(&[&of(NVME.bdf)], false).unwrap();
    assert!(matches!(report[0].outcome, HealOutcome::Healed), "{report:?}");
    assert_eq!(host.bound(&NVME).as_deref(), Some("nvme"));
    assert!(state.records().unwrap().is_empty());
}

#[test]
fn a_function_that_has_left_the_machine_leaves_its_quarantine() {
    let (host, state) = quarantined(&well());
    fs::remove_file(host.root().join("sys/bus/pci/devices").join(NVME.bdf)).unwrap();
    let report = state.heal(&[&PciHealer::at(host.root())], false).unwrap();
    assert!(matches!(report[0].outcome, HealOutcome::Healed), "{report:?}");
}
