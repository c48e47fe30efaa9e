//! The bus: which handler answers at an address. An access takes no lock and allocates nothing.
//!
//! The sorted table is immutable and published whole; each vCPU keeps the table it saw last and where in it it found what it sought.
//! Once a range's guard has been dropped, no access that begins later reaches its handler; one under way may still be in it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::BusError;
use crate::handler::{MmioHandler, PioHandler};

mod access;
mod atomic;
mod last_hit;
mod lines;
mod published;
mod table;
mod tally;

pub use last_hit::LastHit;
use published::Published;
use table::{Range, Table};
use tally::Tallies;

/// The bus of guest-physical addresses without memory.
pub type MmioBus = Bus<dyn MmioHandler>;
/// The bus of I/O ports.
pub type PioBus = Bus<dyn PioHandler>;

/// Ranges of addresses and what answers in each.
///
/// An access is answered by the range that holds all of it, so a handler is never asked beyond its range. One that no range holds whole
/// is answered by nobody: reads are all ones, writes are dropped. It is not split, since a part of it can mean something else than the
/// whole: a four-byte write to 0xcf8 selects a PCI function, a one-byte write to 0xcf9 resets the machine.
///
/// Ranges come and go while vCPUs run. Once [`insert`](Self::insert) has returned, every access that begins later finds the range;
/// once its guard is dropped, none does, whatever a vCPU remembers. An access that is under way then may still be in the handler, and
/// nobody waits for it: a handler may take its own range off the bus.
pub struct Bus<H: ?Sized> {
    table: Published<Table<H>>,
    tallies: Mutex<Tallies>,
    last: u64,
}

/// A registered range; dropping it takes the range off the bus.
#[must_use = "dropping the guard takes the range off the bus"]
pub struct BusRange<H: ?Sized + Send + Sync> {
    bus: Arc<Bus<H>>,
    range: Range<H>,
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

impl<H: ?Sized + Send + Sync> Bus<H> {
    fn up_to(last: u64) -> Self {
        Self {
            table: Published::new(Table::new()),
            tallies: Mutex::new(Tallies::new()),
            last,
        }
    }

    /// Registers `handler` for `size` addresses from `base`, until the guard is dropped.
    ///
    /// Refuses an empty range, one that goes past the last address, and one that overlaps another (which is named).
    pub fn insert(
        self: &Arc<Self>,
        base: u64,
        size: u64,
        name: &str,
        handler: Arc<H>,
    ) -> Result<BusRange<H>, BusError> {
        let Some(span) = size.checked_sub(1) else {
            let name = name.to_owned();
            return Err(BusError::Empty { name, base });
        };
        if base.checked_add(span).is_none_or(|last| last > self.last) {
            return Err(BusError::Beyond {
                name: name.to_owned(),
                base,
                size,
                last: self.last,
            });
        }
        let tally = self.tallies.lock().unwrap_or_else(PoisonError::into_inner).take();
        let range = Range {
            base,
            span,
            handler,
            tally,
            name: name.into(),
        };
        self.table.change(|table| table.insert(range.clone()))?;
        let bus = Arc::clone(self);
        Ok(BusRange { bus, range })
    }

    /// What each range has seen so far, by address.
    #[must_use]
    pub fn counts(&self) -> Vec<RangeCount> {
        self.table
            .with(|table| table.ranges().iter().map(Range::count).collect())
    }
}

impl MmioBus {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::up_to(u64::MAX)
    }
}

impl PioBus {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::up_to(u16::MAX.into())
    }
}

impl Default for MmioBus {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for PioBus {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: ?Sized + Send + Sync> Drop for BusRange<H> {
    fn drop(&mut self) {
        let base = self.range.base;
        let removed = self.bus.table.change(|table| {
            table.remove(base);
            Ok::<(), Infallible>(())
        });
        let Ok(()) = removed;
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

impl<H: ?Sized> Range<H> {
    fn count(&self) -> RangeCount {
        let (reads, writes) = self.tally.totals();
        RangeCount {
            name: self.name.as_ref().to_owned(),
            base: self.base,
            size: self.span + 1,
            reads,
            writes,
        }
    }
}
