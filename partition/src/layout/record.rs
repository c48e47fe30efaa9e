//! The map as it is written down. Reading it back checks it: a map from elsewhere is an allegation.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{FOUR_GIB, GRANULE, Layout, RamRange};

/// What a file or a stream says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// [`VERSION`]; another one is refused, not guessed at.
    version: u32,
    ram: Vec<RamRange>,
    mmio32: Range<u64>,
    mmio64: Range<u64>,
    address_bits: u8,
}

impl From<Layout> for Record {
    fn from(layout: Layout) -> Self {
        Self {
            version: VERSION,
            ram: layout.ram,
            mmio32: layout.mmio32,
            mmio64: layout.mmio64,
            address_bits: layout.address_bits,
        }
    }
}

impl TryFrom<Record> for Layout {
    type Error = String;

    fn try_from(record: Record) -> Result<Self, String> {
        if record.version != VERSION {
            return Err(format!(
                "a guest-physical map of version {}; this library reads version {VERSION}",
                record.version
            ));
        }
        record
            .check()
            .map_err(|what| format!("a guest-physical map {what}"))?;
        Ok(Self {
            ram: record.ram,
            mmio32: record.mmio32,
            mmio64: record.mmio64,
            address_bits: record.address_bits,
        })
    }
}

impl Record {
    fn check(&self) -> Result<(), &'static str> {
        if !(Layout::MIN_ADDRESS_BITS..=52).contains(&self.address_bits) {
            return Err("of a width outside 39 to 52 bits");
        }
        let whole = |address: u64| address.is_multiple_of(GRANULE);
        let even = |range: &RamRange| range.start < range.end && whole(range.start) && whole(range.end);
        let placed = |range: &RamRange| range.end <= Layout::MMIO32.start || range.start >= FOUR_GIB;
        if !self.ram.iter().all(|range| even(range) && placed(range)) {
            return Err("with RAM that is not whole 2 MiB pages or lies in the device hole");
        }
        if self.ram.first().is_none_or(|first| first.start != 0) {
            return Err("without RAM at address 0");
        }
        let ascending = |pair: &[RamRange]| pair[0].end <= pair[1].start && pair[0].node <= pair[1].node;
        if !self.ram.windows(2).all(ascending) {
            return Err("with RAM that overlaps or is not in order");
        }
        let top = self.ram.last().map_or(0, |range| range.end).max(FOUR_GIB);
        let (low, high) = (&self.mmio32, &self.mmio64);
        if low.is_empty() || low.start < Layout::MMIO32.start || low.end > Layout::MMIO32.end {
            return Err("with a 32-bit BAR window outside its place");
        }
        if high.is_empty() || high.start < top || high.end > 1 << self.address_bits {
            return Err("with a 64-bit BAR window in RAM or out of reach");
        }
        Ok(())
    }
}

const VERSION: u32 = 1;
