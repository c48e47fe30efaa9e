//! SIGKILL between every two steps of healing, on a host of files: the next healer completes what is left, and what is back already it
//! leaves to the host.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "../../partition/tests/crash/mod.rs"]
mod crash;
mod fixture;

use std::fs;
use std::path::Path;

use crash::{files_below, kill_at_steps};
use fixture::kernel::Kernel;
use fixture::quarantine::{leave, place, quarantined, well};
use fixture::sriov::{FIRST, PHYSICAL, SECOND, attribute, await_number, with_card};
use fixture::{Card, Host, NVME};
use pellucid_partition::{HealEntry, HealOutcome, Resource, StateDir};
use pellucid_passthrough::{PciHealer, RESOURCE_KIND, SRIOV_KIND, SriovHealer};
use serde_json::{Value, json};

fn heal(root: &Path) -> Vec<HealEntry> {
    let state = StateDir::at(&root.join("state")).unwrap();
    let (functions, virtual_functions) = (PciHealer::at(root), SriovHealer::of(&state).at(root));
    state.heal(&[&functions, &virtual_functions], false).unwrap()
}

#[test]
#[ignore = "not a test: the healer that is killed at a step"]
fn healer() {
    heal(&crash::scene());
}

fn record(state: &StateDir, kind: &str, card: &Card, healer: &str, undo: &Value) {
    let mut claim = state.claim(Resource::new(kind, card.bdf), "db1").unwrap();
    claim.record_undo(healer, undo).unwrap();
}

/// Heals what a killed healer left, and proves that nothing is left of any claim.
#[track_caller]
fn completes(host: &Host, kernel: &Kernel, moment: &str) {
    let report = heal(host.root());
    kernel.answers();
    for entry in &report {
        let fine = matches!(entry.outcome, HealOutcome::Healed | HealOutcome::NothingToUndo);
        assert!(fine, "{moment}: {entry:?}");
    }
    let left = files_below(&host.root().join("state"));
    assert!(left.is_empty(), "{moment}: {left:?}");
}

#[test]
fn a_card_returns_to_its_driver_with_its_settings_and_its_virtual_functions() {
    with_card(|host, state, kernel| {
        let settings = [
            ("power/control", "on"),
            ("d3cold_allowed", "0"),
            ("reset_method", "flr bus"),
        ];
        let affinities = [
            ("proc/irq/30/smp_affinity_list", "3"),
            ("proc/irq/31/smp_affinity_list", "1-2"),
        ];
        for interrupt in ["msi_irqs/30", "msi_irqs/31"] {
            host.write(&attribute(interrupt), "msix\n");
        }
        let leave = || {
            host.write(&attribute("sriov_numvfs"), "0\n");
            await_number(host, false);
            host.leave_lent(&PHYSICAL);
            for (name, value) in [
                ("power/control", "auto"),
                ("d3cold_allowed", "1"),
                ("reset_method", "pm"),
            ] {
                host.write(&attribute(name), value);
            }
            affinities.iter().for_each(|(path, _)| host.write(path, "0-7\n"));
            let attributes: Value = settings.iter().map(|(name, value)| (*name, *value)).collect();
            let undo = json!({ "original": { "bound": "igb", "only": null }, "quarantined": null, "settings": {
                "attributes": attributes, "virtual_functions": 2, "affinities": affinities.map(|(_, cpus)| cpus) } });
            record(state, RESOURCE_KIND, &PHYSICAL, PciHealer::KIND, &undo);
        };
        leave();
        let steps = kill_at_steps("healer", host.root(), 1, |event| {
            kernel.answers();
            let moment = format!("the healer was killed at event {event}");
            completes(host, kernel, &moment);
            assert_eq!(host.bound(&PHYSICAL).as_deref(), Some("igb"), "{moment}");
            assert_eq!(host.read(&attribute("driver_override")).trim(), "", "{moment}");
            let read = |path: &str| host.read(path).trim().to_owned();
            for (name, value) in settings {
                assert_eq!(read(&attribute(name)), value, "{moment}: {name}");
            }
            for (path, cpus) in affinities {
                assert_eq!(read(path), cpus, "{moment}: {path}");
            }
            await_number(host, true);
            leave();
        });
        for (step, count) in [
            ("restore the override", 2),
            ("unbind", 2),
            ("bind", 2),
            ("restore a setting", 6),
            ("restore the virtual functions", 2),
            ("restore an affinity", 4),
        ] {
            assert_eq!(
                steps.iter().filter(|name| *name == step).count(),
                count,
                "{steps:?}"
            );
        }
    });
}

#[test]
fn virtual_functions_that_were_made_go_with_all_that_was_set_for_them() {
    with_card(|host, state, kernel| {
        let leave = || {
            host.write(&attribute("sriov_numvfs"), "2\n");
            host.write(&attribute("sriov_drivers_autoprobe"), "0\n");
            await_number(host, true);
            record(
                state,
                SRIOV_KIND,
                &PHYSICAL,
                SriovHealer::KIND,
                &json!({ "made": 2, "autoprobe": "1\n" }),
            );
            for card in [&FIRST, &SECOND] {
                host.leave_lent(card);
                let undo = json!({ "original": { "bound": null, "only": null }, "quarantined": null });
                record(state, RESOURCE_KIND, card, PciHealer::KIND, &undo);
            }
        };
        leave();
        let steps = kill_at_steps("healer", host.root(), 1, |event| {
            kernel.answers();
            let moment = format!("the healer was killed at event {event}");
            completes(host, kernel, &moment);
            await_number(host, false);
            assert_eq!(host.read(&attribute("sriov_numvfs")).trim(), "0", "{moment}");
            assert_eq!(host.read(&attribute("sriov_drivers_autoprobe")), "1", "{moment}");
            assert_eq!(host.bound(&PHYSICAL).as_deref(), Some("igb"), "{moment}");
            leave();
        });
        for step in [
            "unbind",
            "set the number of virtual functions",
            "let host drivers probe again",
        ] {
            assert!(steps.iter().any(|name| name == step), "{step}: {steps:?}");
        }
    });
}

#[test]
fn a_quarantine_that_a_reset_lifts_is_lifted_and_a_function_that_is_back_is_not_reset_again() {
    let (host, state) = quarantined(&well());
    let kernel = Kernel::start(&host);
    let mut back = 0;
    let steps = kill_at_steps("healer", host.root(), 1, |event| {
        kernel.answers();
        let moment = format!("the healer was killed at event {event}");
        // What its driver does once it has it: another reset would take a disk from under the host.
        let in_use = host.bound(&NVME).as_deref() == Some("nvme");
        let mut registers = well();
        registers[4] = 0x06;
        if in_use {
            fs::write(host.root().join(place("config")), &registers).unwrap();
            host.write(&place("reset"), "");
            back += 1;
        }
        completes(&host, &kernel, &moment);
        assert_eq!(host.bound(&NVME).as_deref(), Some("nvme"), "{moment}");
        assert_eq!(host.read(&place("reset_method")).trim(), "flr bus", "{moment}");
        assert_eq!(host.read(&place("driver_override")).trim(), "", "{moment}");
        if in_use {
            assert_eq!(
                host.read(&place("reset")),
                "",
                "{moment}: reset while its driver has it"
            );
            assert_eq!(
                fs::read(host.root().join(place("config"))).unwrap(),
                registers,
                "{moment}"
            );
        }
        leave(&host, &state, &well());
    });
    assert!(back > 2, "{back} of {} had given it back", steps.len());
    for step in [
        "choose a reset method",
        "stop",
        "reset",
        "unbind",
        "bind",
        "restore a setting",
    ] {
        assert!(steps.iter().any(|name| name == step), "{step}: {steps:?}");
    }
}

#[test]
fn a_quarantine_that_no_reset_lifts_stays_and_every_method_is_tried_each_time() {
    let mut lost = well();
    lost[0x10..0x18].fill(0);
    let (host, state) = quarantined(&lost);
    let kernel = Kernel::start(&host);
    let steps = kill_at_steps("healer", host.root(), 1, |event| {
        let moment = format!("the healer was killed at event {event}");
        let report = heal(host.root());
        kernel.answers();
        let HealOutcome::Failed(error) = &report[0].outcome else {
            panic!("{moment}: {report:?}")
        };
        let error = error.to_string();
        for word in ["it answers ffffffff", "reset by flr", "reset by bus"] {
            assert!(error.contains(word), "{moment}: {word}: {error}");
        }
        assert_eq!(host.bound(&NVME).as_deref(), Some("vfio-pci"), "{moment}");
        assert_eq!(host.read(&place("reset_method")).trim(), "flr bus", "{moment}");
        assert_eq!(state.records().unwrap().len(), 1, "{moment}");
    });
    let tried = steps.iter().filter(|name| *name == "reset").count();
    assert_eq!(tried, 4, "{steps:?}");
}
