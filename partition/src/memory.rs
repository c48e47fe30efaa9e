//! Guest memory: regions of shared memory files, with subscribers who are told of every region.
//!
//! KVM slots and IOMMU mappings are subscribers: attaching replays all live regions, detaching undoes them, so nobody can forget one.
//! The table of regions is published whole: access takes no lock, and what somebody uses stays mapped. No reference into it exists.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestRegionCollection};

use crate::error::MemoryError;
use crate::layout::Layout;
use crate::spec::PageSize;
use crate::sys::ram::RamRegion;

mod access;
mod attach;
mod region;
pub(crate) mod residence;
mod slots;

pub use attach::{MemorySubscriber, Subscription};
pub use region::{Region, RegionSpec};
pub use vm_memory::{ByteValued, Le16, Le32, Le64};

use attach::{Attaching, Subscribers};

/// All RAM of a guest at one moment, as vm-memory and the crates on top of it take it.
pub type VmMemory = GuestRegionCollection<RamRegion>;

/// The RAM of one guest; clones are the same memory.
#[derive(Clone, Default)]
pub struct GuestMemory {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    table: ArcSwap<VmMemory>,
    subscribers: ArcSwap<Subscribers>,
    /// Held while the two above are replaced: one change at a time.
    change: Mutex<()>,
}

impl GuestMemory {
    /// No memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Maps RAM as `layout` says, in pages of the given size, named `name` in `/proc/PID/maps`. Nothing is populated yet.
    pub fn map(name: &str, layout: &Layout, pages: PageSize) -> Result<Self, MemoryError> {
        Self::of(name, &RegionSpec::of_layout(layout, pages, &[]))
    }

    /// Maps these regions. Nothing is populated yet.
    pub fn of(name: &str, regions: &[RegionSpec]) -> Result<Self, MemoryError> {
        let memory = Self::new();
        for spec in regions {
            memory.add(RamRegion::map(name, spec)?)?;
        }
        Ok(memory)
    }

    /// Every region, ascending.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        self.inner.table.load().iter().map(Region::of).collect()
    }

    /// Adds a region: every subscriber is attached to it, or none is and it is not added. It should be populated before.
    pub fn add(&self, region: RamRegion) -> Result<Region, MemoryError> {
        let _change = self.inner.change();
        let added = Region::of(&region);
        let table = self.inner.table.load();
        let (first, end) = (added.guest.0, added.guest.0 + added.size);
        let overlaps = |other: &&RamRegion| {
            let other = other.spec();
            other.guest.0 < end && first < other.guest.0 + other.size
        };
        let overlap = |other: &RamRegion| MemoryError::Overlap {
            guest: first,
            size: added.size,
            other: other.spec().guest.0,
        };
        if let Some(other) = table.iter().find(overlaps) {
            return Err(overlap(other));
        }
        let more = table
            .insert_region(Arc::new(region))
            .map_err(|error| MemoryError::Map {
                size: added.size,
                source: error.into(),
            })?;
        let subscribers = self.inner.subscribers.load();
        let mut attaching = Attaching::default();
        for (_, subscriber) in &subscribers.all {
            attaching.attach(subscriber.as_ref(), &added)?;
        }
        attaching.keep();
        self.inner.table.store(Arc::new(more));
        Ok(added)
    }

    /// Removes the region that begins at `guest`: every subscriber lets go of it, last attached first, then it is no RAM any more.
    ///
    /// Its memory goes back to the host when nobody uses it any more, the returned value included.
    pub fn remove(&self, guest: GuestAddress) -> Result<Region, MemoryError> {
        let _change = self.inner.change();
        let table = self.inner.table.load();
        let found = table.iter().map(Region::of).find(|region| region.guest == guest);
        let removed = found.and_then(|region| {
            let (fewer, _) = table.remove_region(guest, region.size).ok()?;
            Some((region, fewer))
        });
        let Some((region, fewer)) = removed else {
            let starts: Vec<_> = table.iter().map(|r| format!("{:#x}", r.spec().guest.0)).collect();
            return Err(MemoryError::NoRegion {
                guest: guest.0,
                regions: starts.join(", "),
            });
        };
        for (_, subscriber) in self.inner.subscribers.load().all.iter().rev() {
            subscriber.detach(&region);
        }
        self.inner.table.store(Arc::new(fewer));
        Ok(region)
    }

    /// Attaches every region to `subscriber`; when one fails, those before it are detached again.
    pub fn subscribe(&self, subscriber: Arc<dyn MemorySubscriber>) -> Result<Subscription, MemoryError> {
        let _change = self.inner.change();
        let mut attaching = Attaching::default();
        for region in self.regions() {
            attaching.attach(subscriber.as_ref(), &region)?;
        }
        attaching.keep();
        let (more, number) = self.inner.subscribers.load().with(subscriber);
        self.inner.subscribers.store(Arc::new(more));
        Ok(Subscription {
            memory: Arc::clone(&self.inner),
            number,
        })
    }

    /// The names of those attached now, in the order in which they came.
    #[must_use]
    pub fn subscribers(&self) -> Vec<String> {
        let subscribers = self.inner.subscribers.load();
        let names = subscribers.all.iter().map(|(_, one)| one.name().to_owned());
        names.collect()
    }
}

impl Inner {
    fn change(&self) -> MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsubscribe(&self, number: u64) {
        let _change = self.change();
        let (fewer, gone) = self.subscribers.load().without(number);
        let regions: Vec<_> = self.table.load().iter().map(Region::of).collect();
        for (subscriber, region) in gone
            .iter()
            .flat_map(|one| regions.iter().rev().map(move |r| (one, r)))
        {
            subscriber.detach(region);
        }
        self.subscribers.store(Arc::new(fewer));
    }
}

impl std::fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.regions().iter().map(|region| (region.guest, region.size)))
            .finish()
    }
}
