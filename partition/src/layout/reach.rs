//! The addresses that a guest's devices can reach: what the IOMMU translates, less what it or the platform keeps for itself.

use std::iter;
use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

use super::Layout;
use crate::error::LayoutError;

/// Addresses at which RAM and BARs may lie. Never those at which interrupts are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The first address that is out of reach.
    end: u64,
    /// Ascending by start; they may overlap.
    reserved: Vec<ReservedRange>,
}

/// Addresses within reach that must stay unused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReservedRange {
    /// First address.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
    /// Whose they are.
    pub name: String,
}

impl Default for Reach {
    /// What every IOMMU reaches: 39 bits, less the interrupt addresses.
    fn default() -> Self {
        Self::below(1 << Layout::MIN_ADDRESS_BITS)
    }
}

impl Reach {
    /// All addresses of that width, 39 to 52 bits, less the interrupt addresses.
    pub fn bits(bits: u8) -> Result<Self, LayoutError> {
        match bits {
            Layout::MIN_ADDRESS_BITS..=MOST_BITS => Ok(Self::below(1 << bits)),
            _ => Err(LayoutError::AddressBits { bits }),
        }
    }

    /// The ranges that an IOMMU accepts, as its driver reports them. What lies between them is reserved.
    ///
    /// Refuses ranges that end below 39 bits.
    pub fn iova(ranges: impl IntoIterator<Item = RangeInclusive<u64>>) -> Result<Self, LayoutError> {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        ranges.sort_by_key(|range| *range.start());
        let end = ranges.iter().map(|range| range.end().saturating_add(1)).max();
        let end = end.unwrap_or(0).min(1 << MOST_BITS);
        if end < 1 << Layout::MIN_ADDRESS_BITS {
            let bits = (u64::BITS - end.leading_zeros()).saturating_sub(1) as u8;
            return Err(LayoutError::AddressBits { bits });
        }
        let (mut reach, mut at) = (Self::below(end), 0);
        for range in ranges {
            if *range.start() > at {
                reach = reach.without("what the IOMMU does not translate", at..*range.start());
            }
            at = at.max(range.end().saturating_add(1));
        }
        Ok(reach)
    }

    /// The same less `range`, which is kept for `name`.
    #[must_use]
    pub fn without(mut self, name: &str, range: Range<u64>) -> Self {
        if !range.is_empty() {
            self.reserved.push(ReservedRange {
                start: range.start,
                end: range.end,
                name: name.to_owned(),
            });
            self.reserved.sort();
            self.reserved.dedup();
        }
        self
    }

    /// What both reach.
    #[must_use]
    pub fn and(self, other: &Self) -> Self {
        let mut both = Self {
            end: self.end.min(other.end),
            reserved: self.reserved,
        };
        both.reserved.extend(other.reserved.iter().cloned());
        both.reserved.sort();
        both.reserved.dedup();
        both
    }

    /// The width of the largest power of two within reach.
    #[must_use]
    pub fn address_bits(&self) -> u8 {
        (u64::BITS - 1 - self.end.leading_zeros()) as u8
    }

    /// What must stay unused, ascending.
    #[must_use]
    pub fn reserved(&self) -> &[ReservedRange] {
        &self.reserved
    }

    /// The pieces of `range` that are free, with both ends at multiples of `unit`, ascending.
    pub(super) fn pieces(&self, range: Range<u64>, unit: u64) -> Vec<Range<u64>> {
        let (mut pieces, mut at) = (Vec::new(), range.start);
        let last = range.end.min(self.end);
        let holes = self.reserved.iter().map(|hole| (hole.start, hole.end));
        for (hole, behind) in holes.chain(iter::once((last, last))) {
            let start = at.next_multiple_of(unit);
            let end = hole.min(last) / unit * unit;
            if start < end {
                pieces.push(start..end);
            }
            at = at.max(behind.min(last));
        }
        pieces
    }

    /// The first reserved range that touches `range`.
    pub(super) fn hole_in(&self, range: &Range<u64>) -> Option<&ReservedRange> {
        let touches = |hole: &&ReservedRange| hole.start < range.end && range.start < hole.end;
        self.reserved.iter().find(touches)
    }

    fn below(end: u64) -> Self {
        let reach = Self {
            end,
            reserved: Vec::new(),
        };
        reach.without("interrupts (MSI)", MSI)
    }
}

/// Where x86 devices write to interrupt (Intel SDM volume 3, 11.11; AMD64 APM volume 2, 16.11).
const MSI: Range<u64> = 0xfee0_0000..0xfef0_0000;
const MOST_BITS: u8 = 52;
