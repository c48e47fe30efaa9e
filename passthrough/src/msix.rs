//! The MSI-X table of a function as its guest writes it (PCI 3.0, 6.8.2): bytes, and what they mean. Pure.

use std::ops::Range;

use pellucid_partition::MsiMessage;

use crate::bars::BarShape;
use crate::capabilities::{Capabilities, ID_MSIX, dword};
use crate::inventory::BarKind;

/// Where a function has its table and its pending bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Entries, 1 to 2048.
    pub vectors: u32,
    /// The BAR that the table is in, and where.
    pub table: (u8, u64),
    /// The BAR that the pending bits are in, and where.
    pub pending: (u8, u64),
}

/// What lies at a place of a BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The table, at this offset of it.
    Table(u64),
    /// The pending bits, at this offset of them.
    Pending(u64),
    /// Something of the device's own.
    Device,
}

impl Geometry {
    /// From the capability's control word and its two locators.
    #[must_use]
    pub fn new(control: u16, table: u32, pending: u32) -> Geometry {
        let place = |locator: u32| ((locator & 7) as u8, u64::from(locator & !7));
        Geometry {
            vectors: u32::from(control & 0x7ff) + 1,
            table: place(table),
            pending: place(pending),
        }
    }

    /// From a configuration space; `Ok(None)`: the function has no MSI-X. Refuses a table or pending bits that no access would
    /// reach, with what the capability is then called.
    pub fn of(space: &[u8], bars: &[BarShape]) -> Result<Option<Geometry>, &'static str> {
        let Some(at) = Capabilities::walk(space).find(ID_MSIX) else {
            return Ok(None);
        };
        let word = |offset: u16| dword(space, at + offset).filter(|_| at + offset < 0x100);
        let (Some(control), Some(table), Some(pending)) = (word(0), word(4), word(8)) else {
            return Err("MSI-X that does not fit configuration space");
        };
        let geometry = Geometry::new((control >> 16) as u16, table, pending);
        let reachable = |index: u8, range: Range<u64>| {
            let holds = |bar: &BarShape| bar.index == index && bar.kind != BarKind::Io && !bar.is_rom();
            bars.iter().any(|bar| holds(bar) && range.end <= bar.size)
        };
        if !reachable(geometry.table.0, geometry.table_range()) {
            return Err("MSI-X whose table is in no memory BAR");
        }
        if !reachable(geometry.pending.0, geometry.pending_range()) {
            return Err("MSI-X whose pending bits are in no memory BAR");
        }
        Ok(Some(geometry))
    }

    /// Bytes of the table.
    #[must_use]
    pub fn table_range(&self) -> Range<u64> {
        self.table.1..self.table.1 + u64::from(self.vectors) * ENTRY
    }

    /// Bytes of the pending bits.
    #[must_use]
    pub fn pending_range(&self) -> Range<u64> {
        self.pending.1..self.pending.1 + u64::from(self.vectors.div_ceil(64)) * 8
    }

    /// What an access at `offset` of BAR `bar` reaches.
    #[must_use]
    pub fn part(&self, bar: u8, offset: u64) -> Part {
        if bar == self.table.0 && self.table_range().contains(&offset) {
            Part::Table(offset - self.table.1)
        } else if bar == self.pending.0 && self.pending_range().contains(&offset) {
            Part::Pending(offset - self.pending.1)
        } else {
            Part::Device
        }
    }
}

/// The table's bytes. All vectors are masked at first, as after a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MsixTable {
    bytes: Vec<u8>,
}

impl MsixTable {
    /// A table as it is after a reset.
    #[must_use]
    pub fn new(vectors: u32) -> MsixTable {
        let mut table = MsixTable {
            bytes: vec![0; vectors as usize * ENTRY as usize],
        };
        for entry in table.bytes.chunks_exact_mut(ENTRY as usize) {
            entry[12] = 1;
        }
        table
    }

    /// Entries.
    #[must_use]
    pub fn vectors(&self) -> u32 {
        (self.bytes.len() / ENTRY as usize) as u32
    }

    /// Fills `data` from `offset`; zeros behind the end.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes.get(offset as usize + index).copied().unwrap_or(0);
        }
    }

    /// Takes `data` at `offset`, and says which vectors it concerns.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Range<u32> {
        for (index, byte) in data.iter().enumerate() {
            let at = offset as usize + index;
            let writable = match at % ENTRY as usize {
                // The message address is that of a 32-bit word.
                0 => 0xfc,
                // Of the vector control word, only the mask bit exists.
                12 => 0x01,
                13..16 => 0,
                _ => 0xff,
            };
            if let Some(place) = self.bytes.get_mut(at) {
                *place = byte & writable;
            }
        }
        let last = (offset + data.len() as u64).div_ceil(ENTRY) as u32;
        (offset / ENTRY) as u32..last.min(self.vectors())
    }

    /// Whether a vector is masked by its own bit.
    #[must_use]
    pub fn masked(&self, vector: u32) -> bool {
        self.bytes
            .get(vector as usize * ENTRY as usize + 12)
            .is_none_or(|control| control & 1 != 0)
    }

    /// The message of a vector.
    #[must_use]
    pub fn message(&self, vector: u32) -> MsiMessage {
        let mut entry = [0; 12];
        self.read(u64::from(vector) * ENTRY, &mut entry);
        let word = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        MsiMessage {
            address: u64::from(word(0)) | u64::from(word(4)) << 32,
            data: word(8),
        }
    }
}

/// Bytes of an entry.
const ENTRY: u64 = 16;
