//! The sorted table of ranges that a bus publishes. Plain data: whoever sees it sees all of it.

use std::sync::Arc;

use crate::bus::tally::Tally;
use crate::error::BusError;

/// Ranges that do not overlap, by address.
pub(crate) struct Table<H: ?Sized> {
    ranges: Vec<Range<H>>,
    /// The power of two that bases are apart at least.
    granule: u32,
}

/// A range and what answers in it: one cache line.
#[repr(align(64))]
pub(crate) struct Range<H: ?Sized> {
    pub(crate) base: u64,
    /// The offset of its last address.
    pub(crate) span: u64,
    pub(crate) handler: Arc<H>,
    pub(crate) tally: Tally,
    pub(crate) name: Arc<str>,
}

/// Where in the table each class of addresses was last found. What it says is checked before it is believed.
pub(crate) struct Ways([u16; 1 << Ways::BITS]);

impl<H: ?Sized> Table<H> {
    pub(crate) const fn new() -> Self {
        Self {
            ranges: Vec::new(),
            granule: 0,
        }
    }

    pub(crate) fn ranges(&self) -> &[Range<H>] {
        &self.ranges
    }

    /// The range that holds all of `length` bytes at `address`, if it is where the ways say.
    #[inline]
    pub(crate) fn remembered(&self, ways: &Ways, address: u64, length: usize) -> Option<&Range<H>> {
        let index = ways.0[self.way(address)];
        let range = self.ranges.get(usize::from(index))?;
        range.holds(address, length).then_some(range)
    }

    /// The range that holds all of `length` bytes at `address`, to be remembered.
    pub(crate) fn find(&self, ways: &mut Ways, address: u64, length: usize) -> Option<&Range<H>> {
        let next = self.ranges.partition_point(|range| range.base <= address);
        let index = next.checked_sub(1)?;
        // An index that does not fit is a wrong hint, no more.
        ways.0[self.way(address)] = index as u16;
        self.ranges
            .get(index)
            .filter(|range| range.holds(address, length))
    }

    /// Fibonacci hashing: neighbours get ways of their own, and ranges that stand anywhere mostly do.
    #[inline]
    fn way(&self, address: u64) -> usize {
        let hash = (address >> self.granule).wrapping_mul(GOLDEN_RATIO);
        (hash >> (u64::BITS - Ways::BITS)) as usize
    }

    pub(crate) fn insert(&mut self, range: Range<H>) -> Result<(), BusError> {
        let index = self.ranges.partition_point(|other| other.base < range.base);
        let neighbours = &self.ranges[index.saturating_sub(1)..self.ranges.len().min(index + 1)];
        if let Some(other) = neighbours.iter().find(|other| other.overlaps(&range)) {
            return Err(BusError::Overlap {
                name: range.name.as_ref().to_owned(),
                base: range.base,
                size: range.span + 1,
                other: other.name.as_ref().to_owned(),
                other_base: other.base,
                other_last: other.base + other.span,
            });
        }
        self.ranges.insert(index, range);
        self.measure();
        Ok(())
    }

    /// Takes the range away that begins at `base`: there is one at most.
    pub(crate) fn remove(&mut self, base: u64) {
        self.ranges.retain(|range| range.base != base);
        self.measure();
    }

    fn measure(&mut self) {
        let gaps = self.ranges.windows(2).map(|pair| pair[1].base - pair[0].base);
        self.granule = gaps.min().map_or(0, u64::ilog2);
    }
}

impl<H: ?Sized> Range<H> {
    #[inline]
    fn holds(&self, address: u64, length: usize) -> bool {
        let offset = address.wrapping_sub(self.base);
        let more = (length as u64).wrapping_sub(1);
        // No short circuit: one branch that is nearly always taken.
        (offset <= self.span) & (more <= self.span.wrapping_sub(offset))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.base <= other.base + other.span && other.base <= self.base + self.span
    }
}

impl Ways {
    /// Four for each of 256 devices, so that few meet in one.
    const BITS: u32 = 10;

    pub(crate) const fn new() -> Self {
        Self([0; 1 << Self::BITS])
    }
}

impl<H: ?Sized> Clone for Table<H> {
    fn clone(&self) -> Self {
        Self {
            ranges: self.ranges.clone(),
            granule: self.granule,
        }
    }
}

impl<H: ?Sized> Clone for Range<H> {
    fn clone(&self) -> Self {
        Self {
            base: self.base,
            span: self.span,
            handler: Arc::clone(&self.handler),
            tally: self.tally.clone(),
            name: Arc::clone(&self.name),
        }
    }
}

/// 2^64 divided by the golden ratio.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
