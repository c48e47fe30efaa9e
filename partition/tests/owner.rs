//! Owners: a process number that was given to another process names nobody.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::os::unix::fs::symlink;
use std::process::Command;

use pellucid_partition::{ClaimError, ClaimRecord, Owner, Resource, Standing, StateDir};
use serde_json::{Value, json};
use tempfile::TempDir;

fn state() -> (TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    (directory, state)
}

fn device() -> Resource {
    Resource::new("device", "a")
}

/// This process, as a claim records it.
fn this() -> Owner {
    let (_directory, state) = state();
    state.claim(device(), "db1").unwrap().record().owner.clone()
}

fn altered(alter: impl FnOnce(&mut Value)) -> Standing {
    let mut owner = serde_json::to_value(this()).unwrap();
    alter(&mut owner);
    serde_json::from_value::<Owner>(owner).unwrap().standing()
}

#[test]
fn a_claim_tells_process_user_and_start_as_proc_does() {
    let owner = this();
    assert_eq!(owner.pid, std::process::id());
    assert_eq!(owner.user, rustix::process::geteuid().as_raw());
    let started = owner.started.as_ref().unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(
        started.unix <= now + 1 && started.unix + 3600 > now,
        "{started:?} at {now}"
    );
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(started.boot, boot.trim());
    assert!(matches!(owner.standing(), Standing::Running(_)));
}

#[test]
fn a_number_that_another_process_has_by_now_is_gone() {
    let later = altered(|owner| {
        let ticks = owner["started"]["ticks"].as_u64().unwrap();
        owner["started"]["ticks"] = json!(ticks - 1);
    });
    assert!(matches!(later, Standing::Gone), "{later:?}");
    let boot = altered(|owner| owner["started"]["boot"] = json!("another"));
    assert!(matches!(boot, Standing::Gone), "{boot:?}");
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let ended = altered(|owner| owner["pid"] = json!(pid));
    assert!(matches!(ended, Standing::Gone), "{ended:?}");
}

#[test]
fn what_cannot_be_told_is_not_guessed() {
    let elsewhere = altered(|owner| owner["pid_namespace"] = json!(1));
    assert!(matches!(elsewhere, Standing::Unknown), "{elsewhere:?}");
    let old = altered(|owner| owner["started"] = Value::Null);
    assert!(matches!(old, Standing::Unknown), "{old:?}");
}

#[test]
fn a_dead_owners_record_whose_number_lives_again_is_stale_and_can_be_healed() {
    let (_directory, state) = state();
    let mut claim = state.claim(device(), "db1").unwrap();
    claim.record_undo("driver", &json!("nvme")).unwrap();
    drop(claim);
    let path = state.path().join("device-a.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    // The test runs under that number, but began later than the owner did.
    record["started"]["ticks"] = json!(1);
    std::fs::write(&path, record.to_string()).unwrap();
    let (left, held) = state.records().unwrap().pop().unwrap();
    assert!(!held && matches!(left.owner.standing(), Standing::Gone));
    assert!(matches!(
        state.claim(device(), "db2"),
        Err(ClaimError::Stale { .. })
    ));
    assert!(matches!(
        state.refusal(&device()),
        Ok(Some(ClaimError::Stale { .. }))
    ));
}

#[test]
fn records_of_before_owners_had_a_start_are_still_read() {
    let text =
        json!({"resource": {"kind": "device", "name": "a"}, "partition": "db1", "pid": 7, "undo": null});
    let record: ClaimRecord = serde_json::from_value(text).unwrap();
    assert_eq!(
        (record.owner.pid, record.owner.started, record.holding),
        (7, None, None)
    );
}

#[test]
fn links_in_the_place_of_files_are_not_followed() {
    let (directory, state) = state();
    let victim = directory.path().join("victim");
    for name in ["device-a.lock", "device-a.json"] {
        std::fs::write(&victim, "precious").unwrap();
        let path = state.path().join(name);
        for hard in [false, true] {
            match hard {
                true => std::fs::hard_link(&victim, &path).unwrap(),
                false => symlink(&victim, &path).unwrap(),
            }
            let refusal = state.claim(device(), "db1");
            assert!(matches!(refusal, Err(ClaimError::State { .. })), "{name}");
            std::fs::remove_file(&path).unwrap();
        }
    }
    std::fs::hard_link(&victim, state.path().join("device-a.draft")).unwrap();
    state.claim(device(), "db1").unwrap().release().unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    assert!(
        StateDir::at(&state.path().join("device-a.json")).is_ok(),
        "a name is free again"
    );
}

#[test]
fn a_directory_that_others_could_replace_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let chmod = |mode| std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode));
    let path = directory.path().join("state");
    for (mode, fine) in [(0o777, false), (0o770, false), (0o1777, true), (0o755, true)] {
        chmod(mode).unwrap();
        assert_eq!(StateDir::at(&path).is_ok(), fine, "{mode:o}");
    }
}
