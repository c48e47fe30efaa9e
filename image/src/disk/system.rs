//! A file system that boot files are on, of any kind that is read.

use std::io::{self, Read, Seek};
use std::ops::Range;

use super::ext4::Ext4;
use super::{DiskFile, DiskSource, Fat};

/// FAT, or ext2 to ext4.
#[derive(Debug, Clone)]
pub(crate) enum FileSystem {
    Fat(Fat),
    Ext4(Box<Ext4>),
}

impl FileSystem {
    /// The file system in `range` of the disk; `None` when it is of no kind that is read.
    pub(crate) fn open<R: Read + Seek>(disk: &DiskSource<R>, range: Range<u64>) -> io::Result<Option<Self>> {
        if Ext4::is_present(disk, &range)? {
            let system = Ext4::open(disk, range)?;
            return Ok(Some(Self::Ext4(Box::new(system))));
        }
        Ok(Fat::open(disk, range).ok().map(Self::Fat))
    }

    /// Its UUID as GRUB writes it; empty when it has none.
    pub(crate) fn uuid(&self) -> String {
        match self {
            Self::Fat(fat) => fat.uuid(),
            Self::Ext4(ext4) => ext4.uuid(),
        }
    }

    pub(crate) fn label(&self) -> &str {
        match self {
            Self::Fat(fat) => fat.label(),
            Self::Ext4(ext4) => ext4.label(),
        }
    }

    /// What is wrong with it although it can be read.
    pub(crate) fn note(&self) -> Option<&str> {
        match self {
            Self::Fat(_) => None,
            Self::Ext4(ext4) => ext4.note(),
        }
    }

    /// Opens the file at `path`; `None` when there is no such file.
    pub(crate) fn open_file<'d, R: Read + Seek>(
        &self,
        disk: &'d DiskSource<R>,
        path: &str,
    ) -> io::Result<Option<DiskFile<'d, R>>> {
        match self {
            Self::Fat(fat) => fat.open_file(disk, path),
            Self::Ext4(ext4) => ext4.open_file(disk, path),
        }
    }

    /// Names in the directory at `path`, in the order of the disk; `None` when there is no such directory.
    pub(crate) fn list<R: Read + Seek>(
        &self,
        disk: &DiskSource<R>,
        path: &str,
    ) -> io::Result<Option<Vec<String>>> {
        match self {
            Self::Fat(fat) => {
                let listed = fat.list(disk, path)?;
                Ok(listed.map(|entries| entries.into_iter().map(|entry| entry.name).collect()))
            }
            Self::Ext4(ext4) => ext4.list(disk, path),
        }
    }
}
