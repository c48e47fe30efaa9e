//! The partition table: which partitions a boot loader reads from.
//!
//! A GUID table counts unless the first sector has an old one (MBR) without the partition that protects a GUID table: that is what
//! firmware and Linux go by, so the remains of an earlier installation are not taken for the disk's table.

use std::io::{self, Read, Seek};
use std::ops::Range;

use super::mbr::{self, MbrKind};
use super::{DiskSource, guid};

/// Byte ranges of the partitions that matter for booting.
#[derive(Debug, Default)]
pub(crate) struct BootPartitions {
    /// EFI system partitions, in table order.
    pub(crate) esp: Vec<Range<u64>>,
    /// The first extended boot loader partition (XBOOTLDR) that lies on the disk.
    pub(crate) extended: Option<Range<u64>>,
    /// Partitions in the table, of any kind.
    pub(crate) count: usize,
    /// Every partition that lies on the disk, in table order.
    pub(crate) volumes: Vec<Partition>,
    /// What is wrong with the table although it could be read, in sentences.
    pub(crate) notes: Vec<String>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Counted from 1, as in `/dev/sda1`; logical partitions of an MBR begin with 5.
    pub(crate) number: u32,
    /// Whether it is in a GUID table.
    pub(crate) guid: bool,
    /// Its bytes on the disk.
    pub(crate) range: Range<u64>,
}

/// Why there is no table to read.
#[derive(Debug)]
pub(crate) enum TableError {
    /// Neither header is there; `mbr` tells whether the first sector has a boot signature.
    Absent { mbr: bool },
    /// There is a header, but what it describes cannot be.
    Damaged(String),
    /// The disk itself could not be read.
    Read(io::Error),
}

/// Reads the partition table of `disk`.
pub(crate) fn boot_partitions<R: Read + Seek>(disk: &DiskSource<R>) -> Result<BootPartitions, TableError> {
    let old = mbr::read(disk).map_err(TableError::Read)?;
    if old.kind == MbrKind::Table {
        return Ok(old.partitions);
    }
    match guid::read(disk) {
        Ok(Some(found)) => Ok(found),
        Ok(None) if old.kind == MbrKind::Protective => Err(TableError::Damaged(
            "a GUID partition table was here, but neither its primary nor its backup header is left"
                .to_owned(),
        )),
        Ok(None) => Err(TableError::Absent {
            mbr: old.kind == MbrKind::Signature,
        }),
        Err(reason) => Err(TableError::Damaged(reason)),
    }
}
