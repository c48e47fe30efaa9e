//! A host's SMBIOS as a value: what its entry point says, and its table.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::entry_point::EntryPoint;
use super::error::SmbiosError;
use super::structure::Structures;

/// A machine's entry point and table, with at least one whole structure in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Allegation")]
pub struct Smbios {
    entry_point: EntryPoint,
    table: Vec<u8>,
}

impl Smbios {
    /// Reads what sysfs of this host shows, to root alone.
    pub fn survey() -> Result<Self, SmbiosError> {
        Self::survey_at(Path::new("/"))
    }

    /// The same below another root.
    pub fn survey_at(root: &Path) -> Result<Self, SmbiosError> {
        let folder = root.join("sys/firmware/dmi/tables");
        let read = |name| {
            let path = folder.join(name);
            bounded(&path).map_err(|source| SmbiosError::Read { path, source })
        };
        Self::parse(&read("smbios_entry_point")?, &read("DMI")?)
    }

    /// Takes an entry point and the table that it leads to, both as a machine has them.
    ///
    /// Refuses a wrong entry point, a table of more than 1 MiB, and one without a whole structure.
    pub fn parse(entry_point: &[u8], table: &[u8]) -> Result<Self, SmbiosError> {
        let entry_point = EntryPoint::parse(entry_point)?;
        let said = usize::try_from(entry_point.table_size).unwrap_or(usize::MAX);
        Self::checked(entry_point, &table[..table.len().min(said)])
    }

    /// What the entry point says.
    #[must_use]
    pub fn entry_point(&self) -> EntryPoint {
        self.entry_point
    }

    /// The table's bytes, as far as the entry point says that it reaches.
    #[must_use]
    pub fn table(&self) -> &[u8] {
        &self.table
    }

    /// Its whole structures.
    #[must_use]
    pub fn structures(&self) -> Structures<'_> {
        Structures::of(&self.table)
    }

    fn checked(entry_point: EntryPoint, table: &[u8]) -> Result<Self, SmbiosError> {
        let size = table.len();
        if size > LIMIT {
            return Err(SmbiosError::TooLarge { size, limit: LIMIT });
        }
        match Structures::of(table).next() {
            None => Err(SmbiosError::Empty { size }),
            Some(_) => Ok(Self {
                entry_point,
                table: table.to_vec(),
            }),
        }
    }
}

/// A value from outside that claims to be one.
#[derive(Deserialize)]
struct Allegation {
    entry_point: EntryPoint,
    table: Vec<u8>,
}

impl TryFrom<Allegation> for Smbios {
    type Error = SmbiosError;

    fn try_from(said: Allegation) -> Result<Self, SmbiosError> {
        Self::checked(said.entry_point, &said.table)
    }
}

/// A file of at most [`LIMIT`] bytes; of a longer one, one byte more, so that it is refused.
fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LIMIT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Many times what large servers have.
const LIMIT: usize = 1 << 20;
