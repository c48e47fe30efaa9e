//! Subscribers of guest memory: each is attached to every region there is, or to none.

use std::error::Error;
use std::sync::Arc;

use super::{Inner, Region};
use crate::error::MemoryError;

/// Somebody who must know where RAM is: KVM, an IOMMU, a device in another process.
///
/// Called for one change at a time. It may read and write guest memory meanwhile, but not subscribe to it, add or remove regions.
pub trait MemorySubscriber: Send + Sync {
    /// Its name in errors and logs.
    fn name(&self) -> &str;
    /// Takes a region into use. If this fails, the region is not in use and [`MemorySubscriber::detach`] is not called for it.
    fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>>;
    /// Lets go of a region attached before; cannot refuse.
    fn detach(&self, region: &Region);
}

/// A subscriber being served; dropping it detaches every region, last attached first.
#[must_use = "dropping the subscription detaches the memory"]
pub struct Subscription {
    pub(super) memory: Arc<Inner>,
    pub(super) number: u64,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscription")
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.memory.unsubscribe(self.number);
    }
}

/// Those who are attached, in the order in which they came.
#[derive(Clone, Default)]
pub(super) struct Subscribers {
    pub(super) all: Vec<(u64, Arc<dyn MemorySubscriber>)>,
    next: u64,
}

impl Subscribers {
    /// The same and one more, and the newcomer's number.
    pub(super) fn with(&self, newcomer: Arc<dyn MemorySubscriber>) -> (Self, u64) {
        let (mut more, number) = (self.clone(), self.next);
        more.all.push((number, newcomer));
        more.next += 1;
        (more, number)
    }

    /// The same without that one, and who it was.
    pub(super) fn without(&self, number: u64) -> (Self, Option<Arc<dyn MemorySubscriber>>) {
        let mut fewer = self.clone();
        let index = fewer.all.iter().position(|(other, _)| *other == number);
        let gone = index.map(|index| fewer.all.remove(index).1);
        (fewer, gone)
    }
}

/// Attachments that are not yet whole: dropped before [`Attaching::keep`], also by a panic, it undoes them, last first.
#[derive(Default)]
pub(super) struct Attaching<'s> {
    done: Vec<(&'s dyn MemorySubscriber, Region)>,
}

impl<'s> Attaching<'s> {
    pub(super) fn attach(
        &mut self,
        subscriber: &'s dyn MemorySubscriber,
        region: &Region,
    ) -> Result<(), MemoryError> {
        let attached = subscriber.attach(region);
        attached.map_err(|source| MemoryError::Subscriber {
            subscriber: subscriber.name().to_owned(),
            guest: region.guest.0,
            size: region.size,
            source,
        })?;
        self.done.push((subscriber, region.clone()));
        Ok(())
    }

    pub(super) fn keep(mut self) {
        self.done.clear();
    }
}

impl Drop for Attaching<'_> {
    fn drop(&mut self) {
        for (subscriber, region) in self.done.drain(..).rev() {
            subscriber.detach(&region);
        }
    }
}
