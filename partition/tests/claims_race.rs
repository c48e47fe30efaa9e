//! Claims under concurrency: one owner at a time, losers are told the winner, and those who only look or heal disturb nobody.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::error::Error;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use pellucid_partition::{ClaimError, HealOutcome, Healer, Resource, StateDir};
use serde_json::{Value, json};
use tempfile::TempDir;

fn state() -> (TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    (directory, state)
}

fn cpu() -> Resource {
    Resource::new("cpu", "1")
}

/// Runs `beside` over and over while the resource is claimed and released `rounds` times.
fn claim_while(state: &StateDir, rounds: usize, beside: impl Fn() + Sync) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                beside();
            }
        });
        let claimed = (0..rounds).try_for_each(|round| {
            let mut claim = state
                .claim(cpu(), "db1")
                .map_err(|e| format!("round {round}: {e}"))?;
            claim
                .record_undo("driver", &json!(round))
                .map_err(|e| e.to_string())?;
            claim.release().map_err(|e| e.to_string())
        });
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
        claimed.unwrap();
    });
}

#[test]
fn listing_never_makes_a_claim_fail() {
    let (_directory, state) = state();
    claim_while(&state, 150, || {
        state.records().unwrap();
    });
}

#[test]
fn a_listing_never_takes_the_dead_for_living() {
    let (_directory, state) = state();
    let mut claim = state.claim(cpu(), "db1").unwrap();
    claim.record_undo("driver", &json!(1)).unwrap();
    drop(claim);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert!(
                        !state.records().unwrap()[0].1,
                        "somebody else's look was taken for an owner"
                    );
                }
            });
        }
    });
}

#[test]
fn healing_beside_a_living_owner_never_undoes_his_work_nor_refuses_him() {
    struct Never(AtomicUsize);
    impl Healer for Never {
        fn kind(&self) -> &str {
            "driver"
        }
        fn undo(&self, _: &str, _: &Value) -> Result<(), Box<dyn Error + Send + Sync>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }
    let (_directory, state) = state();
    let undone = AtomicUsize::new(0);
    claim_while(&state, 150, || {
        let never = Never(AtomicUsize::new(0));
        for entry in state.heal(&[&never], false).unwrap() {
            let fine = matches!(entry.outcome, HealOutcome::InUse | HealOutcome::NothingToUndo);
            assert!(fine, "{entry:?}");
        }
        undone.fetch_add(never.0.into_inner(), Ordering::Relaxed);
    });
    assert_eq!(undone.into_inner(), 0);
}

#[test]
fn of_many_claimants_one_wins_at_a_time_and_the_losers_are_told_who() {
    let (_directory, state) = state();
    let (owners, wins, losses) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Barrier::new(6);
    thread::scope(|scope| {
        for racer in 0..6 {
            let (state, owners, wins, losses, start) = (&state, &owners, &wins, &losses, &start);
            scope.spawn(move || {
                start.wait();
                for _ in 0..60 {
                    match state.claim(cpu(), &format!("racer{racer}")) {
                        Ok(claim) => {
                            assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0, "two owners");
                            wins.fetch_add(1, Ordering::Relaxed);
                            thread::yield_now();
                            owners.fetch_sub(1, Ordering::SeqCst);
                            claim.release().unwrap();
                        }
                        Err(ClaimError::Held { holder, pid, .. }) => {
                            losses.fetch_add(1, Ordering::Relaxed);
                            assert!(holder.starts_with("racer"), "{holder}");
                            assert_eq!(pid, std::process::id());
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    let (wins, losses) = (wins.into_inner(), losses.into_inner());
    assert!(
        wins > 0 && losses > 0 && wins + losses == 360,
        "{wins} wins, {losses} losses"
    );
}
