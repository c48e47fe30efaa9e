//! Which lines of counters are whose. Whoever owns a line counts on it without locking the memory bus. Model-checked by `tests/loom_bus.rs`.

use super::atomic::{AtomicBool, AtomicU64, Ordering};

/// A number of lines, each with at most one owner at a time.
pub(crate) struct Lines(Box<[AtomicBool]>);

impl Lines {
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicBool::new(false)).collect())
    }

    /// A line that nobody owns, from now on the caller's.
    pub(crate) fn take(&self) -> Option<usize> {
        let take = |owned: &AtomicBool| {
            // Sees all that the owner before counted.
            let taken = owned.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed);
            taken.is_ok()
        };
        self.0.iter().position(take)
    }

    /// Ends the caller's ownership of `line`.
    pub(crate) fn give_back(&self, line: usize) {
        if let Some(owned) = self.0.get(line) {
            owned.store(false, Ordering::Release);
        }
    }
}

/// Counts one on a line that the caller owns: half the time of an atomic addition, which is most of a hit's.
#[inline]
pub(crate) fn count_as_owner(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}
