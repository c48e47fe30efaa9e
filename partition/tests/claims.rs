//! Claims: who holds a thing is said, what a dead owner changed is not taken over, and what is given back is free.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use pellucid_partition::{Claim, ClaimError, Resource, StateDir};
use serde_json::json;
use tempfile::TempDir;

fn state() -> (TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    (directory, state)
}

fn device() -> Resource {
    Resource::new("device", "0000:01:00.0")
}

/// Lets a claim go as a killed process does: its lock goes, its record stays.
fn die(mut claim: Claim) {
    claim.record_undo("driver", &json!({"driver": "nvme"})).unwrap();
    drop(claim);
}

#[test]
fn a_held_claim_names_its_holder_and_what_to_do() {
    let (_directory, state) = state();
    let _claim = state.claim(device(), "db1").unwrap();
    let refusal = state.claim(device(), "db2").unwrap_err().to_string();
    let pid = std::process::id();
    let expected =
        format!("device 0000:01:00.0 is in use by logical server \"db1\" (pid {pid}); stop that first");
    assert_eq!(refusal, expected);
}

#[test]
fn the_same_name_of_another_kind_is_another_resource() {
    let (_directory, state) = state();
    let _cpu = state.claim(Resource::new("cpu", "3"), "db1").unwrap();
    assert!(state.claim(Resource::new("node", "3"), "db2").is_ok());
    assert!(state.claim(Resource::new("cpu", "31"), "db2").is_ok());
}

#[test]
fn kind_and_name_cannot_be_mistaken_for_another_kind_and_name() {
    let (_directory, state) = state();
    let _one = state.claim(Resource::new("a-b", "c"), "db1").unwrap();
    assert!(state.claim(Resource::new("a", "b-c"), "db2").is_ok());
}

#[test]
fn no_name_reaches_out_of_the_directory() {
    let (directory, state) = state();
    let claim = state.claim(Resource::new("../x", "../../y\0z"), "db1").unwrap();
    assert_eq!(claim.record().resource.to_string(), ".._x .._.._y_z");
    let outside: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(outside.len(), 1, "only the state directory itself");
}

#[test]
fn a_released_claim_leaves_no_record_and_is_free() {
    let (_directory, state) = state();
    let mut claim = state.claim(device(), "db1").unwrap();
    claim.record_undo("driver", &json!("nvme")).unwrap();
    claim.release().unwrap();
    assert_eq!(state.records().unwrap(), []);
    assert!(state.claim(device(), "db2").is_ok());
}

#[test]
fn a_dropped_claim_that_changed_nothing_leaves_nothing() {
    let (_directory, state) = state();
    drop(state.claim(device(), "db1").unwrap());
    assert_eq!(state.records().unwrap(), []);
}

#[test]
fn a_dropped_claim_that_changed_something_is_refused_until_healed() {
    let (_directory, state) = state();
    die(state.claim(device(), "db1").unwrap());
    let refusal = state.claim(device(), "db2").unwrap_err();
    assert!(matches!(refusal, ClaimError::Stale { .. }));
    let text = refusal.to_string();
    assert!(
        text.contains("device 0000:01:00.0") && text.contains("db1") && text.contains("`vmm heal`"),
        "{text}"
    );
    assert_eq!(
        state.records().unwrap().len(),
        1,
        "the refusal left the way back where it was"
    );
}

#[test]
fn a_dead_owners_record_without_an_undo_is_taken_over() {
    let (_directory, state) = state();
    drop(state.claim(device(), "db0").unwrap());
    let left = json!({"resource": {"kind": "device", "name": "0000:01:00.0"}, "partition": "db1", "pid": 4_000_000, "undo": null});
    fs::write(state.path().join("device-0000:01:00.0.json"), left.to_string()).unwrap();
    let claim = state.claim(device(), "db2").unwrap();
    assert_eq!(state.records().unwrap(), [(claim.record().clone(), true)]);
    assert_eq!(claim.record().partition, "db2");
}

#[test]
fn the_undo_is_on_disk_before_the_call_returns_and_replaces_the_one_before() {
    let (_directory, state) = state();
    let mut claim = state.claim(device(), "db1").unwrap();
    for step in ["first", "second"] {
        claim.record_undo("driver", &json!({"step": step})).unwrap();
        let text = fs::read_to_string(state.path().join("device-0000:01:00.0.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["undo"], json!({"kind": "driver", "data": {"step": step}}));
        assert_eq!(record["pid"], std::process::id());
    }
    claim.release().unwrap();
}

#[test]
fn records_say_who_lives_and_come_in_order() {
    let (_directory, state) = state();
    let _second = state.claim(Resource::new("cpu", "2"), "db2").unwrap();
    die(state.claim(Resource::new("cpu", "1"), "db1").unwrap());
    let seen: Vec<_> = state.records().unwrap();
    let seen: Vec<_> = seen
        .iter()
        .map(|(record, held)| (record.resource.name.as_str(), *held))
        .collect();
    assert_eq!(seen, [("1", false), ("2", true)]);
}

#[test]
fn looking_makes_no_files() {
    let (_directory, state) = state();
    let text = json!({"resource": {"kind": "cpu", "name": "1"}, "partition": "db1", "pid": 1, "undo": null});
    fs::write(state.path().join("cpu-1.json"), text.to_string()).unwrap();
    assert!(!state.records().unwrap()[0].1);
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1);
}

#[test]
fn a_damaged_record_is_named_and_not_overwritten() {
    let (_directory, state) = state();
    drop(state.claim(device(), "db1").unwrap());
    let path = state.path().join("device-0000:01:00.0.json");
    for damaged in ["", "{", "[]", "{\"resource\": 3}", "\u{fffd}\0"] {
        fs::write(&path, damaged).unwrap();
        for refusal in [
            state.claim(device(), "db2").unwrap_err(),
            state.records().unwrap_err(),
        ] {
            assert!(matches!(refusal, ClaimError::Record { .. }));
            let text = refusal.to_string();
            assert!(text.contains("device-0000:01:00.0.json is damaged"), "{text}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }
}

#[test]
fn a_record_of_something_else_under_this_name_is_damage() {
    let (_directory, state) = state();
    die(state.claim(Resource::new("cpu", "1"), "db1").unwrap());
    fs::copy(state.path().join("cpu-1.json"), state.path().join("cpu-2.json")).unwrap();
    let refusal = state
        .claim(Resource::new("cpu", "2"), "db2")
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("cpu-2.json is damaged: it is of cpu 1"),
        "{refusal}"
    );
}

#[test]
fn a_directory_that_others_can_write_to_or_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [0o720, 0o702, 0o777, 0o1777, 0o750, 0o705, 0o710, 0o701] {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        let refusal = StateDir::at(directory.path()).unwrap_err().to_string();
        assert!(
            refusal.contains("nobody else can write to"),
            "{mode:o}: {refusal}"
        );
        assert!(refusal.contains("PELLUCID_STATE_DIR"), "{refusal}");
    }
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(StateDir::at(directory.path()).is_ok());
}

#[test]
fn a_link_or_a_file_in_the_directorys_place_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (real, link, file) = ["real", "link", "file"]
        .map(|name| directory.path().join(name))
        .into();
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    fs::write(&file, "").unwrap();
    for path in [link, file.clone(), file.join("below")] {
        assert!(
            matches!(StateDir::at(&path), Err(ClaimError::State { .. })),
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_directory_is_made_with_its_parents_for_its_owner_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/pellucid");
    let state = StateDir::at(&path).unwrap();
    assert_eq!(state.path(), path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let _claim = state.claim(device(), "db1").unwrap();
    for file in fs::read_dir(&path).unwrap() {
        assert_eq!(
            file.unwrap().metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}

#[test]
fn a_directory_that_vanished_is_named_not_made_again() {
    let (_directory, state) = state();
    fs::remove_dir_all(state.path()).unwrap();
    for refusal in [
        state.claim(device(), "db1").unwrap_err(),
        state.records().unwrap_err(),
    ] {
        let text = refusal.to_string();
        assert!(text.contains(&*state.path().to_string_lossy()), "{text}");
    }
    assert!(!state.path().exists());
}

#[test]
fn a_release_that_cannot_remove_its_record_says_so() {
    let (_directory, state) = state();
    let claim = state.claim(device(), "db1").unwrap();
    let path = state.path().join("device-0000:01:00.0.json");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let refusal = claim.release().unwrap_err().to_string();
    assert!(refusal.contains("cannot be removed"), "{refusal}");
}
