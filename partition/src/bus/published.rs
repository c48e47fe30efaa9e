//! Publication: a value that is replaced whole, by one writer at a time, under readers that keep the edition they saw last.
//!
//! Once a change has returned, no reading that begins later sees an older edition, however warm the reader is. A reading that is
//! under way may still see the old one. Model-checked by `tests/loom_bus.rs`.

use std::sync::{Arc, PoisonError};

use super::atomic::{ArcSwap, AtomicU64, Mutex, Ordering};

/// A value in its current edition.
pub(crate) struct Published<T> {
    edition: ArcSwap<Edition<T>>,
    /// The stamp of that edition, stored after it: a reader that sees the stamp can have the edition.
    current: AtomicU64,
    writers: Mutex<()>,
}

/// What one reader saw last. It keeps that edition alive.
pub(crate) struct Seen<T>(Option<Arc<Edition<T>>>);

struct Edition<T> {
    /// Its own in the whole process, so that a reader may go from one publication to another.
    stamp: u64,
    value: T,
}

impl<T> Published<T> {
    pub(crate) fn new(value: T) -> Self {
        let first = Edition::new(value);
        let current = AtomicU64::new(first.stamp);
        Self {
            edition: ArcSwap::new(Arc::new(first)),
            current,
            writers: Mutex::new(()),
        }
    }

    /// The current edition, if it is the one that the reader saw last. One load.
    #[inline]
    pub(crate) fn if_latest<'s>(&self, seen: &'s Seen<T>) -> Option<&'s T> {
        let edition = seen.0.as_deref()?;
        (edition.stamp == self.current.load(Ordering::Acquire)).then_some(&edition.value)
    }

    /// The current edition, which the reader has seen then.
    pub(crate) fn latest<'s>(&self, seen: &'s mut Seen<T>) -> &'s T {
        let edition = match seen.0.take() {
            Some(edition) if edition.stamp == self.current.load(Ordering::Acquire) => edition,
            _ => self.edition.load_full(),
        };
        &seen.0.insert(edition).value
    }

    /// Asks `question` of the current edition.
    pub(crate) fn with<R>(&self, question: impl FnOnce(&T) -> R) -> R {
        question(&self.edition.load_full().value)
    }

    /// Publishes what `change` makes of the current value; nothing, if it refuses.
    pub(crate) fn change<R, E>(&self, change: impl FnOnce(&mut T) -> Result<R, E>) -> Result<R, E>
    where
        T: Clone,
    {
        let one_writer = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut value = self.edition.load_full().value.clone();
        let answer = change(&mut value)?;
        let next = Edition::new(value);
        let stamp = next.stamp;
        let previous = self.edition.swap(Arc::new(next));
        self.current.store(stamp, Ordering::Release);
        // What only the previous edition kept alive goes without the lock: its drop may well want to publish.
        drop(one_writer);
        drop(previous);
        Ok(answer)
    }
}

impl<T> Seen<T> {
    pub(crate) const fn nothing() -> Self {
        Self(None)
    }
}

impl<T> Edition<T> {
    fn new(value: T) -> Self {
        // Only its being unique matters, so neither order nor the model checker is needed.
        static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        Self {
            stamp: LAST.fetch_add(1, Ordering::Relaxed),
            value,
        }
    }
}
