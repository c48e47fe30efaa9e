//! The file systems of a disk's partitions, opened together when a boot loader asks for more than the ESP.

use std::io::{Read, Seek};
use std::ops::Range;

use crate::boot_file::Volume;
use crate::disk::{DiskSource, FileSystem, Partition};

/// File systems that can be read, in the order of the table, and what is to be said of others.
pub(crate) struct FileSystems {
    pub(crate) readable: Vec<(Partition, Volume, FileSystem)>,
    pub(crate) notes: Vec<String>,
}

impl FileSystems {
    /// Looks at every partition; the one at `esp` is the ESP.
    pub(crate) fn open<R: Read + Seek>(
        disk: &DiskSource<R>,
        partitions: &[Partition],
        esp: Option<&Range<u64>>,
    ) -> Self {
        let mut found = Self {
            readable: Vec::new(),
            notes: Vec::new(),
        };
        for partition in partitions.iter().take(MAX_FILE_SYSTEMS) {
            let number = partition.number;
            let is_esp = esp == Some(&partition.range);
            let volume = if is_esp {
                Volume::Esp
            } else {
                Volume::Partition(number)
            };
            match FileSystem::open(disk, partition.range.clone()) {
                Ok(Some(system)) => {
                    let note = system.note().map(|note| format!("partition {number}: {note}"));
                    found.notes.extend(note);
                    found.readable.push((partition.clone(), volume, system));
                }
                Ok(None) => {}
                Err(error) => found
                    .notes
                    .push(format!("partition {number} cannot be read: {error}")),
            }
        }
        found
    }
}

/// A disk that is booted from has a handful.
const MAX_FILE_SYSTEMS: usize = 32;
