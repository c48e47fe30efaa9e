//! SIGKILL: the kernel lets go of a dead owner's locks, and what it wrote ahead is enough to restore everything.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pellucid_partition::{ClaimError, ClaimRecord, HealOutcome, Healer, Resource, StateDir};
use serde_json::{Value, json};

const DIRECTORY: &str = "PELLUCID_TEST_STATE_OF_CHILD";

fn device() -> Resource {
    Resource::new("device", "0000:01:00.0")
}

/// The owner that the tests below kill: it goes on changing the device, each change recorded before it is made.
#[test]
#[ignore = "not a test: the process that the others start and kill"]
fn owner() {
    let directory = std::env::var_os(DIRECTORY).unwrap();
    let state = StateDir::at(Path::new(&directory)).unwrap();
    let mut claim = state.claim(device(), "db1").unwrap();
    for step in 1u64.. {
        claim.record_undo("driver", &json!({ "step": step })).unwrap();
        std::fs::write(state.path().join("changed"), step.to_le_bytes()).unwrap();
    }
}

/// An owner whose child goes on for a second after it, as one does that the kernel keeps in a driver.
#[test]
#[ignore = "not a test: the process that the others start and kill"]
fn owner_with_a_child() {
    let directory = std::env::var_os(DIRECTORY).unwrap();
    let state = StateDir::at(Path::new(&directory)).unwrap();
    let mut claim = state.claim(device(), "db1").unwrap();
    let lock = claim.lock().unwrap();
    rustix::io::fcntl_setfd(lock, rustix::io::FdFlags::empty()).unwrap();
    // Its input ends with its parent.
    let child = Command::new("sh")
        .args(["-c", "cat; sleep 1"])
        .stdin(Stdio::piped())
        .spawn();
    let _child = Owner(child.unwrap());
    claim.record_undo("driver", &json!({ "step": 1 })).unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

/// The owner in a process of its own; killed at the latest when dropped.
struct Owner(Child);

impl Owner {
    fn start(state: &StateDir, name: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", name])
            .env(DIRECTORY, state.path());
        Self(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    /// Waits until it has written its first undo.
    fn at_work(state: &StateDir) -> (Self, ClaimRecord) {
        Self::named_at_work(state, "owner")
    }

    fn named_at_work(state: &StateDir, name: &str) -> (Self, ClaimRecord) {
        let owner = Self::start(state, name);
        let patience = Instant::now() + Duration::from_secs(30);
        while Instant::now() < patience {
            if let Some((record, true)) = state.records().unwrap().pop()
                && record.undo.is_some()
            {
                return (owner, record);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the owner did not start");
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Notes which step it was told to undo.
#[derive(Default)]
struct Undone(AtomicU64);

impl Healer for Undone {
    fn kind(&self) -> &str {
        "driver"
    }

    fn undo(&self, resource: &str, data: &Value) -> Result<(), Box<dyn Error + Send + Sync>> {
        assert_eq!(resource, "0000:01:00.0");
        self.0
            .store(data["step"].as_u64().ok_or("no step")?, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn what_a_dead_owner_began_is_waited_for_and_then_healed() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    let (mut owner, _) = Owner::named_at_work(&state, "owner_with_a_child");
    owner.kill();
    let resource = device();
    assert!(
        state
            .records()
            .unwrap()
            .iter()
            .any(|(record, held)| record.resource == resource && *held),
        "its child holds on"
    );
    let undone = Undone::default();
    let report = state.heal(&[&undone], false).unwrap();
    assert!(matches!(report[0].outcome, HealOutcome::Healed), "{report:?}");
    assert_eq!(undone.0.load(Ordering::Relaxed), 1);
    assert!(state.records().unwrap().is_empty());
}

#[test]
fn a_living_owner_in_another_process_is_named_with_its_pid() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    let (owner, record) = Owner::at_work(&state);
    assert_eq!(
        (record.partition.as_str(), record.owner.pid),
        ("db1", owner.0.id())
    );
    let refusal = state.claim(device(), "db2").unwrap_err();
    let ClaimError::Held { holder, pid, .. } = refusal else {
        panic!("{refusal}")
    };
    assert_eq!((holder.as_str(), pid), ("db1", owner.0.id()));
    let report = state.heal(&[&Undone::default()], false).unwrap();
    assert!(matches!(report[0].outcome, HealOutcome::InUse), "{report:?}");
}

#[test]
fn a_killed_owners_device_is_refused_then_healed_then_free() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    let (mut owner, _) = Owner::at_work(&state);
    owner.kill();
    let refusal = state.claim(device(), "db2").unwrap_err();
    let ClaimError::Stale { pid, .. } = &refusal else {
        panic!("{refusal}")
    };
    assert_eq!(*pid, owner.0.id());
    assert!(refusal.to_string().contains("`vmm heal`"), "{refusal}");
    assert!(!state.records().unwrap()[0].1, "a dead owner holds nothing");
    let report = state.heal(&[&Undone::default()], false).unwrap();
    assert!(matches!(report[0].outcome, HealOutcome::Healed), "{report:?}");
    state.claim(device(), "db2").unwrap().release().unwrap();
}

#[test]
fn whenever_the_owner_is_killed_every_change_it_made_has_its_undo() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    let mut healed = 0;
    for moment in 0..20u64 {
        let mut owner = match moment.is_multiple_of(2) {
            true => Owner::at_work(&state).0,
            false => Owner::start(&state, "owner"),
        };
        std::thread::sleep(Duration::from_micros(moment * moment * 137));
        owner.kill();
        let changed = std::fs::read(state.path().join("changed")).unwrap_or_default();
        let changed = changed.try_into().map_or(0, u64::from_le_bytes);
        let undone = Undone::default();
        for entry in state.heal(&[&undone], false).unwrap() {
            assert!(
                matches!(entry.outcome, HealOutcome::Healed | HealOutcome::NothingToUndo),
                "{entry:?}"
            );
            healed += usize::from(matches!(entry.outcome, HealOutcome::Healed));
        }
        let undone = undone.0.into_inner();
        assert!(
            undone >= changed,
            "killed at moment {moment}: changed {changed}, undone {undone}"
        );
        let _ = std::fs::remove_file(state.path().join("changed"));
        assert!(state.records().unwrap().is_empty());
        state.claim(device(), "db2").unwrap().release().unwrap();
    }
    assert!(healed >= 10, "{healed} of 20 were killed with something to undo");
}
