//! The partition table: which partitions a boot loader reads its configuration from.
//!
//! Sectors of 512 and 4096 bytes are tried, the primary header first, then the backup at the disk's end.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use gpt::disk::LogicalBlockSize;
use gpt::header::{Header, read_header_from_arbitrary_device};
use gpt::partition::{Partition, file_read_partitions};
use gpt::partition_types::{EFI, FREEDESK_BOOT, Type};

use super::DiskSource;

/// Byte ranges of the partitions that matter for booting.
#[derive(Debug, Default)]
pub(crate) struct BootPartitions {
    /// EFI system partitions, in table order.
    pub(crate) esp: Vec<Range<u64>>,
    /// The first extended boot loader partition (XBOOTLDR) that lies on the disk.
    pub(crate) extended: Option<Range<u64>>,
    /// Partitions in the table, of any kind.
    pub(crate) count: usize,
}

/// Why there is no table to read.
#[derive(Debug)]
pub(crate) enum TableError {
    /// Neither header is there; `mbr` tells whether the old kind of table is.
    Absent { mbr: bool },
    /// There is a header, but what it describes cannot be.
    Damaged(String),
    /// The disk itself could not be read.
    Read(io::Error),
}

/// Reads the partition table of `disk`.
pub(crate) fn boot_partitions<R: Read + Seek>(disk: &DiskSource<R>) -> Result<BootPartitions, TableError> {
    let mut damaged = None;
    for block in [LogicalBlockSize::Lb512, LogicalBlockSize::Lb4096] {
        let size: u64 = block.into();
        let backup_base = disk.size().saturating_sub(2 * size) / size * size;
        for base in [0, backup_base] {
            match read_table(disk, base, block) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) => damaged = damaged.or(Some(error.to_string())),
            }
        }
    }
    if let Some(reason) = damaged {
        return Err(TableError::Damaged(reason));
    }
    let mut signature = [0; 2];
    let read = if disk.size() >= 512 {
        disk.read_at(510, &mut signature)
    } else {
        Ok(())
    };
    read.map_err(TableError::Read)?;
    Err(TableError::Absent {
        mbr: signature == [0x55, 0xaa],
    })
}

/// The table whose header lies one sector behind `base`; `None` when there is no header.
fn read_table<R: Read + Seek>(
    disk: &DiskSource<R>,
    base: u64,
    block: LogicalBlockSize,
) -> io::Result<Option<BootPartitions>> {
    let Ok(header) = read_header_from_arbitrary_device(
        &mut Cursored {
            disk,
            base,
            position: 0,
        },
        block,
    ) else {
        return Ok(None);
    };
    check(&header)?;
    let partitions = file_read_partitions(
        &mut Cursored {
            disk,
            base: 0,
            position: 0,
        },
        &header,
        block,
    )?;
    let size: u64 = block.into();
    let range = |partition: &Partition| {
        let end = partition.last_lba.checked_add(1)?.checked_mul(size)?;
        let start = partition.first_lba.checked_mul(size)?;
        (start < end && end <= disk.size()).then_some(start..end)
    };
    let of = |kind: &Type| {
        let guid = kind.guid;
        partitions.values().filter(move |p| p.part_type_guid.guid == guid)
    };
    let mut found = BootPartitions {
        extended: of(&FREEDESK_BOOT).find_map(range),
        count: partitions.len(),
        ..BootPartitions::default()
    };
    for partition in of(&EFI) {
        let outside = || invalid("its EFI system partition reaches behind the end of the disk");
        found.esp.push(range(partition).ok_or_else(outside)?);
    }
    Ok(Some(found))
}

/// What the table reader relies on.
fn check(header: &Header) -> io::Result<()> {
    if header.part_size != 128 {
        return Err(invalid(&format!(
            "its entries have {} bytes instead of 128",
            header.part_size
        )));
    }
    if header.num_parts > MAX_PARTITIONS {
        return Err(invalid(&format!(
            "it has {} entries, more than {MAX_PARTITIONS}",
            header.num_parts
        )));
    }
    Ok(())
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// The disk as a stream from `base` on, for the table reader.
struct Cursored<'d, R> {
    disk: &'d DiskSource<R>,
    base: u64,
    position: u64,
}

impl<R: Read + Seek> Read for Cursored<'_, R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let at = self.base.saturating_add(self.position);
        let count = self.disk.size().saturating_sub(at).min(data.len() as u64) as usize;
        self.disk.read_at(at, &mut data[..count])?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Read + Seek> Seek for Cursored<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let end = self.disk.size() - self.base.min(self.disk.size());
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => end.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or_else(|| invalid("a seek before the start of the disk"))?;
        Ok(self.position)
    }
}

/// The standard says at least 128; tools go to a few hundred.
const MAX_PARTITIONS: u32 = 1024;
