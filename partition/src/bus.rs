//! The bus: which handler answers at an address. Readers take no lock and allocate nothing.
//!
//! The sorted table is immutable and published whole; each vCPU keeps the table it saw last and the range it hit last, and looks
//! again only when the generation has moved. A handler just removed may still answer an access already under way, never a later one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::error::BusError;
use crate::handler::{MmioHandler, PioHandler};

/// The bus of guest-physical addresses without memory.
pub type MmioBus = Bus<dyn MmioHandler>;
/// The bus of I/O ports.
pub type PioBus = Bus<dyn PioHandler>;

/// Ranges of addresses and what answers in each; see the module's text for what readers may rely on.
pub struct Bus<H: ?Sized> {
    table: ArcSwap<Vec<Arc<Range<H>>>>,
    generation: AtomicU64,
    writers: Mutex<()>,
}

/// One vCPU's memory of the bus: the table it saw and the range it hit last.
pub struct LastHit<H: ?Sized> {
    table: Arc<Vec<Arc<Range<H>>>>,
    generation: u64,
    index: usize,
}

/// A registered range; dropping it takes the range off the bus.
#[must_use = "dropping the guard takes the range off the bus"]
pub struct BusRange<H: ?Sized + Send + Sync> {
    bus: Arc<Bus<H>>,
    range: Arc<Range<H>>,
}

/// What a range has seen, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeCount {
    /// The name it was registered under.
    pub name: String,
    /// First address.
    pub base: u64,
    /// Addresses.
    pub size: u64,
    /// Reads answered.
    pub reads: u64,
    /// Writes taken.
    pub writes: u64,
}

struct Range<H: ?Sized> {
    base: u64,
    last: u64,
    name: String,
    reads: AtomicU64,
    writes: AtomicU64,
    handler: Arc<H>,
}

impl<H: ?Sized + Send + Sync> Bus<H> {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: ArcSwap::default(),
            generation: AtomicU64::new(0),
            writers: Mutex::new(()),
        }
    }

    /// Registers `handler` for `size` addresses from `base`, until the guard is dropped.
    ///
    /// Refuses an empty or wrapping range, and one that overlaps another (which is named).
    pub fn insert(
        self: &Arc<Self>,
        base: u64,
        size: u64,
        name: &str,
        handler: Arc<H>,
    ) -> Result<BusRange<H>, BusError> {
        let last = size.checked_sub(1).and_then(|more| base.checked_add(more));
        let Some(last) = last else {
            return Err(BusError::Empty {
                name: name.to_owned(),
                base,
                size,
            });
        };
        let (reads, writes) = Default::default();
        let range = Arc::new(Range {
            base,
            last,
            name: name.to_owned(),
            reads,
            writes,
            handler,
        });
        self.publish(|table| {
            if let Some(other) = table
                .iter()
                .find(|other| other.base <= last && base <= other.last)
            {
                let (other, other_base) = (other.name.clone(), other.base);
                return Err(BusError::Overlap {
                    name: name.to_owned(),
                    base,
                    size,
                    other,
                    other_base,
                });
            }
            table.insert(
                table.partition_point(|other| other.base < base),
                Arc::clone(&range),
            );
            Ok(())
        })?;
        Ok(BusRange {
            bus: Arc::clone(self),
            range,
        })
    }

    /// What each range has seen so far, by address.
    #[must_use]
    pub fn counts(&self) -> Vec<RangeCount> {
        self.table.load().iter().map(|range| range.count()).collect()
    }

    /// Replaces the table by one that `change` made, and tells readers.
    fn publish<E>(&self, change: impl FnOnce(&mut Vec<Arc<Range<H>>>) -> Result<(), E>) -> Result<(), E> {
        let _one_writer = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Vec::clone(&self.table.load());
        change(&mut table)?;
        self.table.store(Arc::new(table));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The range that answers at `address`, by way of the vCPU's last hit.
    fn find<'h>(&self, hit: &'h mut LastHit<H>, address: u64) -> Option<&'h Range<H>> {
        let generation = self.generation.load(Ordering::Acquire);
        if hit.generation != generation {
            hit.table = self.table.load_full();
            hit.generation = generation;
            hit.index = 0;
        }
        if !hit
            .table
            .get(hit.index)
            .is_some_and(|range| range.contains(address))
        {
            hit.index = hit.table.partition_point(|range| range.last < address);
        }
        hit.table
            .get(hit.index)
            .map(Arc::as_ref)
            .filter(|range| range.contains(address))
    }
}

impl MmioBus {
    /// Answers a read of 1 to 8 bytes; false, and all ones, where nothing is registered.
    pub fn read(&self, hit: &mut LastHit<dyn MmioHandler>, address: u64, data: &mut [u8]) -> bool {
        let Some(range) = self.find(hit, address) else {
            data.fill(0xff);
            return false;
        };
        range.reads.fetch_add(1, Ordering::Relaxed);
        range.handler.read(address - range.base, data);
        true
    }

    /// Delivers a write of 1 to 8 bytes; false where nothing is registered.
    pub fn write(&self, hit: &mut LastHit<dyn MmioHandler>, address: u64, data: &[u8]) -> bool {
        let Some(range) = self.find(hit, address) else {
            return false;
        };
        range.writes.fetch_add(1, Ordering::Relaxed);
        range.handler.write(address - range.base, data);
        true
    }
}

impl PioBus {
    /// Answers a read of 1, 2 or 4 bytes; false, and all ones, where nothing is registered.
    pub fn read(&self, hit: &mut LastHit<dyn PioHandler>, port: u16, data: &mut [u8]) -> bool {
        let Some(range) = self.find(hit, u64::from(port)) else {
            data.fill(0xff);
            return false;
        };
        range.reads.fetch_add(1, Ordering::Relaxed);
        range.handler.read((u64::from(port) - range.base) as u16, data);
        true
    }

    /// Delivers a write of 1, 2 or 4 bytes; false where nothing is registered.
    pub fn write(&self, hit: &mut LastHit<dyn PioHandler>, port: u16, data: &[u8]) -> bool {
        let Some(range) = self.find(hit, u64::from(port)) else {
            return false;
        };
        range.writes.fetch_add(1, Ordering::Relaxed);
        range.handler.write((u64::from(port) - range.base) as u16, data);
        true
    }
}

impl<H: ?Sized + Send + Sync> Default for Bus<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: ?Sized + Send + Sync> std::fmt::Debug for Bus<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.counts()).finish()
    }
}

impl<H: ?Sized + Send + Sync> std::fmt::Debug for BusRange<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.range.count().fmt(f)
    }
}

impl<H: ?Sized> LastHit<H> {
    /// A memory of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            table: Arc::default(),
            generation: 0,
            index: 0,
        }
    }
}

impl<H: ?Sized> Default for LastHit<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: ?Sized + Send + Sync> Drop for BusRange<H> {
    fn drop(&mut self) {
        let removed = self.bus.publish(|table| {
            table.retain(|range| !Arc::ptr_eq(range, &self.range));
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(()) = removed;
    }
}

impl<H: ?Sized> Range<H> {
    fn contains(&self, address: u64) -> bool {
        (self.base..=self.last).contains(&address)
    }

    fn count(&self) -> RangeCount {
        RangeCount {
            name: self.name.clone(),
            base: self.base,
            size: (self.last - self.base).saturating_add(1),
            reads: self.reads.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u8);

    impl MmioHandler for Fixed {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(self.0 + offset as u8);
        }
        fn write(&self, _: u64, _: &[u8]) {}
    }

    fn byte(bus: &MmioBus, hit: &mut LastHit<dyn MmioHandler>, address: u64) -> (bool, u8) {
        let mut data = [0];
        (bus.read(hit, address, &mut data), data[0])
    }

    #[test]
    fn the_right_range_answers_and_nothing_reads_all_ones() {
        let bus = Arc::new(MmioBus::new());
        let _high = bus.insert(0x2000, 0x10, "high", Arc::new(Fixed(20))).unwrap();
        let _low = bus.insert(0x1000, 0x10, "low", Arc::new(Fixed(10))).unwrap();
        let mut hit = LastHit::new();
        assert_eq!(byte(&bus, &mut hit, 0x1003), (true, 13));
        assert_eq!(byte(&bus, &mut hit, 0x2001), (true, 21));
        assert_eq!(byte(&bus, &mut hit, 0x1010), (false, 0xff));
        assert_eq!(byte(&bus, &mut hit, u64::MAX), (false, 0xff));
        assert_eq!(bus.counts().iter().map(|c| c.reads).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn a_dropped_guard_takes_the_range_off_also_for_a_warm_cache() {
        let bus = Arc::new(MmioBus::new());
        let range = bus.insert(0, 1, "gone", Arc::new(Fixed(1))).unwrap();
        let mut hit = LastHit::new();
        assert_eq!(byte(&bus, &mut hit, 0), (true, 1));
        drop(range);
        assert_eq!(byte(&bus, &mut hit, 0), (false, 0xff));
    }

    #[test]
    fn an_overlap_names_the_other_range() {
        let bus = Arc::new(MmioBus::new());
        let _serial = bus.insert(0x3f8, 8, "serial", Arc::new(Fixed(0))).unwrap();
        let refusal = bus
            .insert(0x3ff, 8, "late", Arc::new(Fixed(0)))
            .err()
            .unwrap()
            .to_string();
        assert!(
            refusal.contains("serial") && refusal.contains("0x3ff"),
            "{refusal}"
        );
        assert!(bus.insert(u64::MAX, 2, "wraps", Arc::new(Fixed(0))).is_err());
        assert!(bus.insert(0, 0, "empty", Arc::new(Fixed(0))).is_err());
        assert!(bus.insert(u64::MAX, 1, "last byte", Arc::new(Fixed(0))).is_ok());
    }

    #[test]
    fn readers_find_a_steady_range_while_others_come_and_go() {
        let bus = Arc::new(MmioBus::new());
        let _steady = bus.insert(0x5000, 0x1000, "steady", Arc::new(Fixed(7))).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut hit = LastHit::new();
                (0..200_000).all(|_| byte(&bus, &mut hit, 0x5000) == (true, 7))
            });
            for _ in 0..2_000 {
                let _passing = bus.insert(0x1000, 0x1000, "passing", Arc::new(Fixed(0))).unwrap();
            }
            assert!(reader.join().unwrap());
        });
    }
}
