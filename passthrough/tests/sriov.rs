//! Virtual functions on a host of files: made, shared, and removed when nobody uses one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod fixture;

use std::fs;

use fixture::PORT;
use fixture::sriov::{FIRST, PHYSICAL, SECOND, attribute, await_number, bdf, with_card};
use pellucid_partition::HealOutcome;
use pellucid_passthrough::{Claimant, PciHealer, SriovError, SriovHealer};

#[test]
fn those_that_were_made_are_for_no_host_driver_and_go_again() {
    with_card(|host, state, _| {
        let made = Claimant::new(state, "db1")
            .at(host.root())
            .virtual_functions(bdf(&PHYSICAL), 2)
            .unwrap();
        assert_eq!(made.functions(), [bdf(&FIRST), bdf(&SECOND)]);
        assert!(made.are_made_here());
        assert_eq!(host.read(&attribute("sriov_drivers_autoprobe")), "0");
        let (record, alive) = &state.records().unwrap()[0];
        assert!(*alive && record.resource.to_string() == "sriov 0000:01:00.0");
        assert!(made.release().unwrap());
        await_number(host, false);
        assert_eq!(host.read(&attribute("sriov_drivers_autoprobe")), "1");
        assert!(state.records().unwrap().is_empty());
    });
}

#[test]
fn those_that_were_there_are_used_and_stay() {
    with_card(|host, state, _| {
        host.write(&attribute("sriov_numvfs"), "2\n");
        await_number(host, true);
        let claimant = Claimant::new(state, "db1").at(host.root());
        let found = claimant.virtual_functions(bdf(&PHYSICAL), 1).unwrap();
        assert!(!found.are_made_here() && found.functions().len() == 2);
        drop(found);
        assert_eq!(host.read(&attribute("sriov_numvfs")), "2\n");
        let few = claimant.virtual_functions(bdf(&PHYSICAL), 3).unwrap_err();
        assert!(matches!(few, SriovError::Few { now: 2, count: 3, .. }), "{few}");
    });
}

#[test]
fn what_cannot_be_is_refused_with_what_can_be_and_nothing_is_touched() {
    with_card(|host, state, _| {
        let claimant = Claimant::new(state, "db1").at(host.root());
        let refusal = |count| {
            claimant
                .virtual_functions(bdf(&PHYSICAL), count)
                .unwrap_err()
                .to_string()
        };
        assert!(refusal(8).contains("1 to 7") && refusal(0).contains("1 to 7"));
        let incapable = claimant.virtual_functions(bdf(&PORT), 1).unwrap_err();
        assert!(matches!(incapable, SriovError::Incapable { .. }), "{incapable}");
        assert_eq!(host.read(&attribute("sriov_drivers_autoprobe")), "1\n");
        assert!(state.records().unwrap().is_empty());
    });
}

#[test]
fn a_driver_that_refuses_leaves_everything_as_it_was() {
    with_card(|host, state, _| {
        let number = host.root().join(attribute("sriov_numvfs"));
        fs::remove_file(&number).unwrap();
        fs::create_dir(&number).unwrap();
        let claimant = Claimant::new(state, "db1").at(host.root());
        let refusal = claimant.virtual_functions(bdf(&PHYSICAL), 2).unwrap_err();
        assert!(matches!(refusal, SriovError::Refused { .. }), "{refusal}");
        assert_eq!(host.read(&attribute("sriov_drivers_autoprobe")), "1");
        assert!(state.records().unwrap().is_empty());
    });
}

#[test]
fn as_long_as_another_server_uses_one_they_stay_and_they_go_with_the_last() {
    with_card(|host, state, _| {
        let claimant = |name| Claimant::new(state, name).at(host.root());
        let made = claimant("db1").virtual_functions(bdf(&PHYSICAL), 2).unwrap();
        let shared = claimant("db2").virtual_functions(bdf(&PHYSICAL), 1).unwrap();
        let admitted = host.survey().admit(bdf(&SECOND)).unwrap();
        let used = claimant("db2").claim(admitted).unwrap();
        assert!(!made.release().unwrap(), "in use");
        assert_eq!(host.read(&attribute("sriov_numvfs")), "2");
        used.release().unwrap();
        assert!(shared.release().unwrap());
        await_number(host, false);
        assert!(state.records().unwrap().is_empty());
    });
}

#[test]
fn what_a_dead_process_made_is_removed_by_heal_but_not_from_under_a_living_one() {
    with_card(|host, state, _| {
        let mut claim = state
            .claim(pellucid_partition::Resource::new("sriov", PHYSICAL.bdf), "db1")
            .unwrap();
        let record = serde_json::json!({ "made": 2, "autoprobe": "1\n" });
        claim.record_undo(SriovHealer::KIND, &record).unwrap();
        drop(claim);
        host.write(&attribute("sriov_numvfs"), "2\n");
        host.write(&attribute("sriov_drivers_autoprobe"), "0");
        await_number(host, true);
        let admitted = host.survey().admit(bdf(&FIRST)).unwrap();
        let used = Claimant::new(state, "db2")
            .at(host.root())
            .claim(admitted)
            .unwrap();
        let (functions, virtual_functions) =
            (PciHealer::at(host.root()), SriovHealer::of(state).at(host.root()));
        let heal = || state.heal(&[&functions, &virtual_functions], false).unwrap();
        let report = heal();
        assert!(matches!(report[0].outcome, HealOutcome::InUse));
        let HealOutcome::Failed(error) = &report[1].outcome else {
            panic!("{report:?}")
        };
        assert!(error.to_string().contains(FIRST.bdf), "{error}");
        used.release().unwrap();
        assert!(matches!(heal()[0].outcome, HealOutcome::Healed));
        await_number(host, false);
        assert_eq!(host.read(&attribute("sriov_drivers_autoprobe")), "1");
    });
}

#[test]
fn a_number_that_others_have_changed_is_left_to_them() {
    with_card(|host, state, _| {
        let made = Claimant::new(state, "db1")
            .at(host.root())
            .virtual_functions(bdf(&PHYSICAL), 2)
            .unwrap();
        host.write(&attribute("sriov_numvfs"), "5\n");
        assert!(made.release().unwrap());
        assert_eq!(host.read(&attribute("sriov_numvfs")), "5\n");
    });
}
