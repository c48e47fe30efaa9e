//! The bus's publication, and who counts where, under every interleaving.
//!
//! What is checked is the product's own files; the model checker's atomics take the place of `src/bus/atomic.rs`.
#![allow(clippy::unwrap_used, reason = "a test")]

use loom::sync::Arc;
use loom::thread;

use atomic::{AtomicBool, AtomicU64, Ordering};
use lines::{Lines, count_as_owner};
use published::{Published, Seen};

/// What the publication is made of, as the model checker has it.
pub(crate) mod atomic {
    use std::sync::Arc;

    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    /// `arc_swap::ArcSwap` as its documentation promises it, and no better: a value that is replaced whole, with release on the one side
    /// and acquire on the other. Every edition is kept, so only the number of the current one is subject to the memory model.
    pub(crate) struct ArcSwap<T> {
        editions: std::sync::Mutex<Vec<Arc<T>>>,
        current: AtomicU64,
    }

    impl<T> ArcSwap<T> {
        pub(crate) fn new(first: Arc<T>) -> Self {
            Self {
                editions: std::sync::Mutex::new(vec![first]),
                current: AtomicU64::new(0),
            }
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            let index = self.current.load(Ordering::Acquire) as usize;
            Arc::clone(&self.editions.lock().unwrap()[index])
        }

        pub(crate) fn swap(&self, next: Arc<T>) -> Arc<T> {
            let index = {
                let mut editions = self.editions.lock().unwrap();
                editions.push(next);
                editions.len() - 1
            };
            let previous = self.current.swap(index as u64, Ordering::AcqRel) as usize;
            Arc::clone(&self.editions.lock().unwrap()[previous])
        }
    }
}

#[path = "../src/bus/lines.rs"]
mod lines;
#[path = "../src/bus/published.rs"]
mod published;

/// The numbers of the ranges that are on a bus.
type Bus = Published<Vec<u8>>;

/// One access by a vCPU: the ranges it would have found.
fn access(bus: &Bus, vcpu: &mut Seen<Vec<u8>>) -> Vec<u8> {
    match bus.if_latest(vcpu) {
        Some(ranges) => ranges.clone(),
        None => bus.latest(vcpu).clone(),
    }
}

fn insert(bus: &Bus, range: u8) -> Result<(), u8> {
    bus.change(|ranges| match ranges.contains(&range) {
        true => Err(range),
        false => {
            ranges.push(range);
            Ok(())
        }
    })
}

fn remove(bus: &Bus, range: u8) {
    let removed = bus.change(|ranges| {
        ranges.retain(|other| *other != range);
        Ok::<(), ()>(())
    });
    removed.unwrap();
}

#[test]
fn a_warm_vcpu_never_finds_a_range_whose_removal_has_returned() {
    // How often an access came before, in the midst of and after the removal, over all interleavings: not part of the model.
    let seen = std::sync::Arc::new(std::sync::Mutex::new([0_u32; 3]));
    let tally = std::sync::Arc::clone(&seen);
    loom::model(move || {
        let bus = Arc::new(Bus::new(vec![1, 2]));
        let removed = Arc::new(AtomicBool::new(false));
        let vcpu = {
            let (bus, removed, tally) = (
                Arc::clone(&bus),
                Arc::clone(&removed),
                std::sync::Arc::clone(&tally),
            );
            thread::spawn(move || {
                let mut memory = Seen::nothing();
                access(&bus, &mut memory);
                for _ in 0..2 {
                    let is_removed = removed.load(Ordering::Acquire);
                    let found = access(&bus, &mut memory).contains(&1);
                    assert!(!(is_removed && found), "a removed handler was reached");
                    tally.lock().unwrap()[usize::from(is_removed) + usize::from(!found)] += 1;
                }
            })
        };
        remove(&bus, 1);
        removed.store(true, Ordering::Release);
        vcpu.join().unwrap();
    });
    let seen = *seen.lock().unwrap();
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn a_warm_vcpu_finds_a_range_whose_insertion_has_returned() {
    loom::model(|| {
        let bus = Arc::new(Bus::new(vec![]));
        let inserted = Arc::new(AtomicBool::new(false));
        let vcpu = {
            let (bus, inserted) = (Arc::clone(&bus), Arc::clone(&inserted));
            thread::spawn(move || {
                let mut memory = Seen::nothing();
                access(&bus, &mut memory);
                let is_inserted = inserted.load(Ordering::Acquire);
                assert!(access(&bus, &mut memory).contains(&1) || !is_inserted);
            })
        };
        insert(&bus, 1).unwrap();
        inserted.store(true, Ordering::Release);
        vcpu.join().unwrap();
    });
}

#[test]
fn no_vcpu_goes_back_to_an_older_edition() {
    loom::model(|| {
        let bus = Arc::new(Bus::new(vec![]));
        let vcpu = {
            let bus = Arc::clone(&bus);
            thread::spawn(move || {
                let mut memory = Seen::nothing();
                let mut before = 0;
                for _ in 0..3 {
                    let now = access(&bus, &mut memory).len();
                    assert!(now >= before);
                    before = now;
                }
                memory
            })
        };
        insert(&bus, 1).unwrap();
        insert(&bus, 2).unwrap();
        let mut memory = vcpu.join().unwrap();
        assert_eq!(access(&bus, &mut memory), [1, 2]);
    });
}

#[test]
fn of_writers_at_once_none_undoes_what_another_did() {
    loom::model(|| {
        let bus = Arc::new(Bus::new(vec![1]));
        let other = {
            let bus = Arc::clone(&bus);
            thread::spawn(move || {
                remove(&bus, 1);
                insert(&bus, 2)
            })
        };
        let mine = insert(&bus, 2);
        let theirs = other.join().unwrap();
        assert!(mine.is_ok() != theirs.is_ok(), "one and only one got the address");
        assert_eq!(bus.with(Vec::clone), [2]);
    });
}

#[test]
fn a_warm_vcpu_finds_what_one_writer_inserted_while_another_is_not_done() {
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound = Some(3);
    explorer.check(|| {
        let bus = Arc::new(Bus::new(vec![]));
        let inserted = Arc::new(AtomicBool::new(false));
        let slow = {
            let bus = Arc::clone(&bus);
            thread::spawn(move || insert(&bus, 1).unwrap())
        };
        let quick = {
            let (bus, inserted) = (Arc::clone(&bus), Arc::clone(&inserted));
            thread::spawn(move || {
                insert(&bus, 2).unwrap();
                inserted.store(true, Ordering::Release);
            })
        };
        let mut memory = Seen::nothing();
        access(&bus, &mut memory);
        let is_inserted = inserted.load(Ordering::Acquire);
        assert!(access(&bus, &mut memory).contains(&2) || !is_inserted);
        slow.join().unwrap();
        quick.join().unwrap();
    });
}

#[test]
fn a_line_of_counters_that_changes_its_owner_loses_no_count() {
    loom::model(|| {
        let lines = Arc::new(Lines::new(1));
        let counter = Arc::new(AtomicU64::new(0));
        let count = |lines: &Lines, counter: &AtomicU64| {
            let Some(line) = lines.take() else {
                return 0;
            };
            count_as_owner(counter);
            count_as_owner(counter);
            lines.give_back(line);
            2
        };
        let other = {
            let (lines, counter) = (Arc::clone(&lines), Arc::clone(&counter));
            thread::spawn(move || count(&lines, &counter))
        };
        let mine = count(&lines, &counter);
        let all = mine + other.join().unwrap();
        assert!(all > 0);
        assert_eq!(counter.load(Ordering::Relaxed), all);
    });
}
