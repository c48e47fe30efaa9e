//! The GUID partition table (UEFI specification, chapter 5).
//!
//! Sectors of 512 and 4096 bytes are tried, the primary header first, then the backup at the disk's end.

use std::io::{self, Read, Seek, SeekFrom};

use gpt::disk::LogicalBlockSize;
use gpt::header::{Header, read_header_from_arbitrary_device};
use gpt::partition::file_read_partitions;
use gpt::partition_types::{EFI, FREEDESK_BOOT};

use super::DiskSource;
use super::table::{BootPartitions, Partition};

/// The GUID partition table; `None` when the disk has no header of one.
pub(crate) fn read<R: Read + Seek>(disk: &DiskSource<R>) -> Result<Option<BootPartitions>, String> {
    let mut damaged = None;
    for block in [LogicalBlockSize::Lb512, LogicalBlockSize::Lb4096] {
        let size: u64 = block.into();
        let backup_base = disk.size().saturating_sub(2 * size) / size * size;
        for base in [0, backup_base] {
            match read_table(disk, base, block) {
                Ok(Some(mut found)) => {
                    if base != 0 {
                        found.notes.push(BACKUP_USED.to_owned());
                    }
                    return Ok(Some(found));
                }
                Ok(None) => {}
                Err(error) => damaged = damaged.or(Some(error.to_string())),
            }
        }
    }
    damaged.map_or(Ok(None), Err)
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
    let mut found = BootPartitions {
        count: partitions.len(),
        ..BootPartitions::default()
    };
    for (&number, partition) in &partitions {
        let kind = &partition.part_type_guid.guid;
        let (is_esp, is_extended) = (*kind == EFI.guid, *kind == FREEDESK_BOOT.guid);
        let end = partition
            .last_lba
            .checked_add(1)
            .and_then(|end| end.checked_mul(size));
        let range = partition.first_lba.checked_mul(size).zip(end);
        match range {
            Some((start, end)) if start < end && end <= disk.size() => {
                if is_esp {
                    found.esp.push(start..end);
                } else if is_extended && found.extended.is_none() {
                    found.extended = Some(start..end);
                }
                found.volumes.push(Partition {
                    number,
                    guid: true,
                    range: start..end,
                });
            }
            _ if !is_esp => found.notes.push(format!(
                "partition {number} reaches behind the end of the disk and is not read"
            )),
            _ => {
                return Err(invalid(
                    "its EFI system partition reaches behind the end of the disk",
                ));
            }
        }
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

const BACKUP_USED: &str = "its primary partition table is missing or damaged, the backup at its end was read; let gdisk or sgdisk write both anew";
/// The standard says at least 128; tools go to a few hundred.
const MAX_PARTITIONS: u32 = 1024;
