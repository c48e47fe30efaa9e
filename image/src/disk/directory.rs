//! Directories of a FAT volume: names, long and short, and looking up a path as UEFI does (without regard to case).

use std::io::{self, Read, Seek};

use super::fat::invalid;
use super::{DiskFile, DiskSource, Fat};

/// One file or directory.
#[derive(Debug, Clone)]
pub(crate) struct DirectoryEntry {
    pub(crate) name: String,
    short: String,
    pub(crate) is_directory: bool,
    first_cluster: u32,
    pub(crate) size: u64,
}

impl DirectoryEntry {
    fn is_named(&self, name: &str) -> bool {
        same_name(&self.name, name) || same_name(&self.short, name)
    }
}

impl Fat {
    /// What the directory at `path` holds, in the order of the disk; `None` when there is no such directory.
    pub(crate) fn list<R: Read + Seek>(
        &self,
        disk: &DiskSource<R>,
        path: &str,
    ) -> io::Result<Option<Vec<DirectoryEntry>>> {
        let mut entries = read_entries(disk, &self.root_extents(disk)?)?;
        for (depth, name) in components(path).enumerate() {
            if depth == MAX_DEPTH {
                return Err(invalid("a path goes through more than 32 directories"));
            }
            let Some(directory) = entries.iter().find(|e| e.is_directory && e.is_named(name)) else {
                return Ok(None);
            };
            entries = read_entries(disk, &self.directory_extents(disk, directory.first_cluster)?)?;
        }
        Ok(Some(entries))
    }

    /// Opens the file at `path`; `None` when there is no such file.
    pub(crate) fn open_file<'d, R: Read + Seek>(
        &self,
        disk: &'d DiskSource<R>,
        path: &str,
    ) -> io::Result<Option<DiskFile<'d, R>>> {
        let (parent, name) = path.rsplit_once(['\\', '/']).unwrap_or(("", path));
        let Some(entries) = self.list(disk, parent)? else {
            return Ok(None);
        };
        let Some(entry) = entries.iter().find(|e| !e.is_directory && e.is_named(name)) else {
            return Ok(None);
        };
        self.open_entry(disk, entry).map(Some)
    }

    /// Opens a file that was listed.
    pub(crate) fn open_entry<'d, R: Read + Seek>(
        &self,
        disk: &'d DiskSource<R>,
        entry: &DirectoryEntry,
    ) -> io::Result<DiskFile<'d, R>> {
        let extents = self.file_extents(disk, entry.first_cluster, entry.size)?;
        Ok(DiskFile::new(disk, extents, entry.size))
    }
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split(['\\', '/']).filter(|name| !name.is_empty())
}

fn same_name(a: &str, b: &str) -> bool {
    a.chars()
        .flat_map(char::to_lowercase)
        .eq(b.chars().flat_map(char::to_lowercase))
}

fn read_entries<R: Read + Seek>(
    disk: &DiskSource<R>,
    extents: &[std::ops::Range<u64>],
) -> io::Result<Vec<DirectoryEntry>> {
    let (mut entries, mut long) = (Vec::new(), LongName::default());
    for extent in extents {
        for offset in (extent.start..extent.end).step_by(32) {
            let mut raw = [0; 32];
            disk.read_at(offset, &mut raw)?;
            match (raw[0], raw[11]) {
                (0, _) => return Ok(entries),
                (0xe5, _) => long = LongName::default(),
                (_, LONG_NAME) => long.add(&raw),
                (_, attributes) if attributes & VOLUME_LABEL != 0 => long = LongName::default(),
                _ => entries.push(entry(&raw, std::mem::take(&mut long))),
            }
            if entries.len() > MAX_ENTRIES {
                return Err(invalid("a directory holds more than 16,384 files"));
            }
        }
    }
    Ok(entries)
}

fn entry(raw: &[u8; 32], long: LongName) -> DirectoryEntry {
    let cluster = [raw[26], raw[27], raw[20], raw[21]];
    let short = short_name(raw);
    DirectoryEntry {
        name: long.finish(raw).unwrap_or_else(|| short.clone()),
        short,
        is_directory: raw[11] & DIRECTORY != 0,
        first_cluster: u32::from_le_bytes(cluster),
        size: u64::from(u32::from_le_bytes([raw[28], raw[29], raw[30], raw[31]])),
    }
}

/// The 8.3 name, in the case that the entry's case flags say.
fn short_name(raw: &[u8; 32]) -> String {
    let part = |bytes: &[u8], lower: bool| -> String {
        let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
        let text = text.trim_end_matches(' ').to_owned();
        if lower { text.to_ascii_lowercase() } else { text }
    };
    let mut base = raw[..8].to_vec();
    if base[0] == 0x05 {
        base[0] = 0xe5;
    }
    let (base, extension) = (
        part(&base, raw[12] & 8 != 0),
        part(&raw[8..11], raw[12] & 16 != 0),
    );
    if extension.is_empty() {
        base
    } else {
        format!("{base}.{extension}")
    }
}

/// A long name being collected: its pieces come last first, each with the short name's checksum.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    expected: u8,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, raw: &[u8; 32]) {
        let order = raw[0] & 0x1f;
        if raw[0] & 0x40 != 0 && (1..=20).contains(&order) {
            *self = Self {
                units: vec![0; usize::from(order) * 13],
                expected: order,
                checksum: raw[13],
            };
        } else if order == 0 || order != self.expected || raw[13] != self.checksum {
            *self = Self::default();
            return;
        }
        let start = usize::from(order - 1) * 13;
        let pieces = [&raw[1..11], &raw[14..26], &raw[28..32]].concat();
        for (unit, pair) in self.units[start..start + 13]
            .iter_mut()
            .zip(pieces.chunks_exact(2))
        {
            *unit = u16::from_le_bytes([pair[0], pair[1]]);
        }
        self.expected = order - 1;
    }

    /// The name, if all its pieces came and they belong to this entry.
    fn finish(self, raw: &[u8; 32]) -> Option<String> {
        let checksum = raw[..11]
            .iter()
            .fold(0u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
        if self.units.is_empty() || self.expected != 0 || checksum != self.checksum {
            return None;
        }
        let end = self
            .units
            .iter()
            .position(|&unit| unit == 0)
            .unwrap_or(self.units.len());
        Some(String::from_utf16_lossy(&self.units[..end]))
    }
}

const DIRECTORY: u8 = 0x10;
const VOLUME_LABEL: u8 = 0x08;
const LONG_NAME: u8 = 0x0f;
const MAX_ENTRIES: usize = 16_384;
const MAX_DEPTH: usize = 32;
