//! A guest's SMBIOS as bytes, for one place in its memory or for firmware to take.

use pellucid_partition::{GuestAddress, GuestMemory, Layout};

use super::draft::Draft;
use super::entry_point::EntryPoint;
use super::error::SmbiosError;
use super::rules::LeftOut;
use super::structure::{END, Structures};

/// Entry point and table of a logical server. Not yet in guest memory.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmbiosTables {
    anchor: Vec<u8>,
    table: Vec<u8>,
    left_out: Vec<LeftOut>,
}

impl SmbiosTables {
    pub(crate) fn of(
        host: EntryPoint,
        drafts: &[Draft],
        left_out: Vec<LeftOut>,
    ) -> Result<Self, SmbiosError> {
        let (mut table, mut largest) = (Vec::new(), 0);
        for draft in drafts {
            let start = table.len();
            draft.write(&mut table);
            largest = largest.max(table.len() - start);
        }
        let handle = free_handle(&table);
        table.extend_from_slice(&[END, 4]);
        table.extend_from_slice(&handle.to_le_bytes());
        table.extend_from_slice(&[0, 0]);
        let limit = (Layout::SMBIOS.end - Layout::SMBIOS.start - TABLE) as usize;
        let size = table.len();
        let too_large = SmbiosError::TooLarge { size, limit };
        let (Ok(short), Ok(largest), true) = (u16::try_from(size), u16::try_from(largest), size <= limit)
        else {
            return Err(too_large);
        };
        let address = (Layout::SMBIOS.start + TABLE) as u32;
        let count = u16::try_from(drafts.len() + 1).unwrap_or(u16::MAX);
        Ok(Self {
            anchor: host.encode(address, (short, count, largest.max(6))),
            table,
            left_out,
        })
    }

    /// The entry point, which says that the table is where [`SmbiosTables::write`] puts it. Firmware that is handed both
    /// (`etc/smbios/smbios-anchor`, `etc/smbios/smbios-tables`) finds a place of its own.
    #[must_use]
    pub fn anchor(&self) -> &[u8] {
        &self.anchor
    }

    /// The table, its end marker included.
    #[must_use]
    pub fn table(&self) -> &[u8] {
        &self.table
    }

    /// Its structures.
    #[must_use]
    pub fn structures(&self) -> Structures<'_> {
        Structures::of(&self.table)
    }

    /// What of the host is not in it, in the order of the host's table.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Writes both into guest memory, where operating systems look that no firmware tells where they are.
    pub fn write(&self, memory: &GuestMemory) -> Result<(), SmbiosError> {
        memory.write(GuestAddress(Layout::SMBIOS.start), &self.anchor)?;
        Ok(memory.write(GuestAddress(Layout::SMBIOS.start + TABLE), &self.table)?)
    }
}

/// The first handle from the top that no structure has; the end marker needs one too.
fn free_handle(table: &[u8]) -> u16 {
    let used: std::collections::BTreeSet<u16> = Structures::of(table).map(|s| s.handle()).collect();
    (0..0xff00)
        .rev()
        .find(|handle| !used.contains(handle))
        .unwrap_or(0)
}

/// Where the table begins behind the entry point.
const TABLE: u64 = 32;
