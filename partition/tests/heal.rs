//! Healing: what the dead left is restored once, one failure stops nothing else, and the living are left alone.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::cell::RefCell;
use std::error::Error;
use std::fs;

use pellucid_partition::{HealEntry, HealOutcome, Healer, Resource, StateDir};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A healer that writes down what it was asked, and fails for the resources it was told to.
#[derive(Default)]
struct Scribe {
    undone: RefCell<Vec<(String, Value)>>,
    failing: Vec<&'static str>,
}

impl Healer for Scribe {
    fn kind(&self) -> &str {
        "driver"
    }

    fn undo(&self, resource: &str, data: &Value) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.undone.borrow_mut().push((resource.to_owned(), data.clone()));
        match self.failing.contains(&resource) {
            true => Err("the driver refused".into()),
            false => Ok(()),
        }
    }
}

fn state() -> (TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    (directory, state)
}

/// Leaves a device as a killed owner does.
fn leave(state: &StateDir, name: &str) {
    let mut claim = state.claim(Resource::new("device", name), "db1").unwrap();
    claim.record_undo("driver", &json!({"of": name})).unwrap();
    drop(claim);
}

fn outcomes(report: &[HealEntry]) -> Vec<(String, String)> {
    let word = |outcome: &HealOutcome| match outcome {
        HealOutcome::Failed(error) => format!("failed: {error}"),
        other => format!("{other:?}"),
    };
    report
        .iter()
        .map(|entry| (entry.record.resource.name.clone(), word(&entry.outcome)))
        .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

#[test]
fn what_was_written_ahead_reaches_the_healer_and_the_resource_is_free_again() {
    let (_directory, state) = state();
    leave(&state, "a");
    let scribe = Scribe::default();
    let report = state.heal(&[&scribe], false).unwrap();
    assert_eq!(outcomes(&report), pairs(&[("a", "Healed")]));
    assert_eq!(report[0].record.partition, "db1");
    assert_eq!(*scribe.undone.borrow(), [("a".to_owned(), json!({"of": "a"}))]);
    assert!(state.claim(Resource::new("device", "a"), "db2").is_ok());
}

#[test]
fn healing_twice_undoes_once() {
    let (_directory, state) = state();
    leave(&state, "a");
    let scribe = Scribe::default();
    state.heal(&[&scribe], false).unwrap();
    assert!(state.heal(&[&scribe], false).unwrap().is_empty());
    assert_eq!(scribe.undone.borrow().len(), 1);
}

#[test]
fn one_failure_stops_nothing_else_and_is_tried_again_next_time() {
    let (_directory, state) = state();
    for name in ["a", "b", "c"] {
        leave(&state, name);
    }
    let failing = Scribe {
        failing: vec!["b"],
        ..Scribe::default()
    };
    let report = state.heal(&[&failing], false).unwrap();
    let expected = [
        ("a", "Healed"),
        ("b", "failed: the driver refused"),
        ("c", "Healed"),
    ];
    assert_eq!(outcomes(&report), pairs(&expected));
    assert!(
        state.claim(Resource::new("device", "b"), "db2").is_err(),
        "not healed, so not to be had"
    );
    let report = state.heal(&[&Scribe::default()], false).unwrap();
    assert_eq!(outcomes(&report), pairs(&[("b", "Healed")]));
}

#[test]
fn the_living_are_left_alone() {
    let (_directory, state) = state();
    let mut living = state.claim(Resource::new("device", "a"), "db1").unwrap();
    living.record_undo("driver", &json!("nvme")).unwrap();
    leave(&state, "b");
    let scribe = Scribe::default();
    for dry_run in [true, false] {
        let report = state.heal(&[&scribe], dry_run).unwrap();
        assert_eq!(outcomes(&report)[0], ("a".to_owned(), "InUse".to_owned()));
    }
    assert_eq!(scribe.undone.borrow().len(), 1, "the dead one only");
    assert_eq!(state.records().unwrap(), [(living.record().clone(), true)]);
    living.release().unwrap();
}

#[test]
fn a_dry_run_touches_nothing_and_tells_the_same() {
    let (_directory, state) = state();
    leave(&state, "a");
    let nothing =
        json!({"resource": {"kind": "device", "name": "b"}, "partition": "db1", "pid": 1, "undo": null});
    fs::write(state.path().join("device-b.json"), nothing.to_string()).unwrap();
    let before = snapshot(&state);
    let scribe = Scribe::default();
    let report = state.heal(&[&scribe], true).unwrap();
    assert_eq!(
        outcomes(&report),
        pairs(&[("a", "WouldHeal"), ("b", "NothingToUndo")])
    );
    assert!(scribe.undone.borrow().is_empty());
    assert_eq!(snapshot(&state), before);
    let report = state.heal(&[&scribe], false).unwrap();
    assert_eq!(
        outcomes(&report),
        pairs(&[("a", "Healed"), ("b", "NothingToUndo")])
    );
    assert!(state.records().unwrap().is_empty());
}

#[test]
fn an_undo_that_no_healer_understands_stays_and_is_named() {
    let (_directory, state) = state();
    leave(&state, "a");
    let report = state.heal(&[], false).unwrap();
    assert!(outcomes(&report)[0].1.contains("\"driver\""), "{report:?}");
    assert_eq!(state.records().unwrap().len(), 1);
}

#[test]
fn the_healer_of_the_kind_is_asked_and_no_other() {
    struct Other;
    impl Healer for Other {
        fn kind(&self) -> &str {
            "cgroup"
        }
        fn undo(&self, _: &str, _: &Value) -> Result<(), Box<dyn Error + Send + Sync>> {
            Err("asked for another's undo".into())
        }
    }
    let (_directory, state) = state();
    leave(&state, "a");
    let scribe = Scribe::default();
    let report = state.heal(&[&Other, &scribe], false).unwrap();
    assert_eq!(outcomes(&report), pairs(&[("a", "Healed")]));
}

#[test]
fn a_damaged_record_is_reported_and_the_others_are_healed() {
    let (_directory, state) = state();
    leave(&state, "a");
    leave(&state, "b");
    fs::write(state.path().join("device-a.json"), "{\"resource\":").unwrap();
    let scribe = Scribe::default();
    for dry_run in [true, false] {
        let report = outcomes(&state.heal(&[&scribe], dry_run).unwrap());
        assert!(report[0].1.contains("device-a.json is damaged"), "{report:?}");
        assert_eq!(report[1].1, if dry_run { "WouldHeal" } else { "Healed" });
    }
    assert!(
        state.path().join("device-a.json").exists(),
        "somebody must look at it"
    );
}

#[test]
fn a_record_that_cannot_be_removed_is_a_failure_and_the_others_are_healed() {
    let (_directory, state) = state();
    leave(&state, "a");
    leave(&state, "b");
    let path = state.path().join("device-a.json");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let report = outcomes(&state.heal(&[&Scribe::default()], false).unwrap());
    assert!(report[0].1.starts_with("failed: "), "{report:?}");
    assert_eq!(report[1], ("b".to_owned(), "Healed".to_owned()));
}

#[test]
fn nobody_can_claim_what_is_being_healed() {
    struct Claimant(StateDir);
    impl Healer for Claimant {
        fn kind(&self) -> &str {
            "driver"
        }
        fn undo(&self, resource: &str, _: &Value) -> Result<(), Box<dyn Error + Send + Sync>> {
            match self.0.claim(Resource::new("device", resource), "db2") {
                Err(refusal) if refusal.to_string().contains("in use") => Ok(()),
                other => Err(format!("{other:?}").into()),
            }
        }
    }
    let (_directory, state) = state();
    leave(&state, "a");
    let report = state.heal(&[&Claimant(state.clone())], false).unwrap();
    assert_eq!(outcomes(&report), pairs(&[("a", "Healed")]));
}

#[test]
fn foreign_files_in_the_directory_are_not_records() {
    let (_directory, state) = state();
    for name in ["README", "x.json", "device-a.json.bak", "device-a.bak"] {
        fs::write(state.path().join(name), "{").unwrap();
    }
    assert!(state.heal(&[], false).unwrap().is_empty());
    assert!(state.records().unwrap().is_empty());
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 4);
}

fn snapshot(state: &StateDir) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(state.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = files
        .map(|path| (path.to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    all.sort();
    all
}
