//! The old kind of partition table: four entries in the first sector, and a chain of logical partitions inside an extended one.
//!
//! Sectors have 512 bytes unless only with 4096 a file system begins where the table says. The chain is bounded, and must lead onwards.

use std::io::{self, Read, Seek};
use std::ops::Range;

use super::DiskSource;
use super::table::{BootPartitions, Partition};

/// What the first sector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MbrKind {
    /// It has no boot signature.
    Absent,
    /// It has one, but no partition: a bare file system, or boot code.
    Signature,
    /// It protects a GUID partition table.
    Protective,
    /// It is the disk's partition table.
    Table,
}

/// The first sector's kind, and its partitions if it is the disk's table.
#[derive(Debug)]
pub(crate) struct Mbr {
    pub(crate) kind: MbrKind,
    pub(crate) partitions: BootPartitions,
}

/// One of the four entries of a sector; addresses count sectors.
#[derive(Debug, Clone, Copy)]
struct Slot {
    kind: u8,
    start: u64,
    count: u64,
}

/// Reads the first sector and what it leads to.
pub(crate) fn read<R: Read + Seek>(disk: &DiskSource<R>) -> io::Result<Mbr> {
    let nothing = |kind| Mbr {
        kind,
        partitions: BootPartitions::default(),
    };
    if disk.size() < SECTOR {
        return Ok(nothing(MbrKind::Absent));
    }
    let mut sector = [0; SECTOR as usize];
    disk.read_at(0, &mut sector)?;
    if sector[510..] != SIGNATURE {
        return Ok(nothing(MbrKind::Absent));
    }
    let Some(slots) = slots(&sector) else {
        return Ok(nothing(MbrKind::Signature));
    };
    if slots.iter().any(|slot| slot.kind == PROTECTIVE) {
        return Ok(nothing(MbrKind::Protective));
    }
    if slots.iter().all(|slot| slot.is_empty()) {
        return Ok(nothing(MbrKind::Signature));
    }
    let table = |block| partitions(disk, &slots, block);
    let small = table(512)?;
    let large = if has_file_system(disk, &small)? {
        None
    } else {
        Some(table(4096)?)
    };
    let partitions = match large {
        Some(large) if has_file_system(disk, &large)? => large,
        _ => small,
    };
    // A FAT volume without a table may have anything where the table would be.
    let kind = if partitions.volumes.is_empty() {
        MbrKind::Signature
    } else {
        MbrKind::Table
    };
    Ok(Mbr { kind, partitions })
}

impl Slot {
    fn is_empty(self) -> bool {
        self.kind == 0 || self.count == 0
    }

    fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85) && self.count > 0
    }
}

/// The four entries; `None` when a status byte shows that they are something else.
fn slots(sector: &[u8; SECTOR as usize]) -> Option<[Slot; 4]> {
    let mut slots = [Slot {
        kind: 0,
        start: 0,
        count: 0,
    }; 4];
    for (slot, raw) in slots.iter_mut().zip(sector[446..510].chunks_exact(16)) {
        if raw[0] & 0x7f != 0 {
            return None;
        }
        let long = |at: usize| {
            u64::from(u32::from_le_bytes([
                raw[at],
                raw[at + 1],
                raw[at + 2],
                raw[at + 3],
            ]))
        };
        *slot = Slot {
            kind: raw[4],
            start: long(8),
            count: long(12),
        };
    }
    Some(slots)
}

/// The partitions with sectors of `block` bytes.
fn partitions<R: Read + Seek>(
    disk: &DiskSource<R>,
    slots: &[Slot; 4],
    block: u64,
) -> io::Result<BootPartitions> {
    let mut found = BootPartitions::default();
    for (number, slot) in (1..).zip(slots) {
        if slot.is_extended() {
            logical(disk, *slot, block, &mut found)?;
        } else if !slot.is_empty() {
            add(disk, &mut found, number, *slot, block);
        }
    }
    Ok(found)
}

/// The chain inside the extended partition `outer`: each link has one partition and says where the next link is.
fn logical<R: Read + Seek>(
    disk: &DiskSource<R>,
    outer: Slot,
    block: u64,
    found: &mut BootPartitions,
) -> io::Result<()> {
    let end = outer.start + outer.count;
    let (mut link, mut number) = (outer.start, 5);
    for _ in 0..MAX_LINKS {
        let mut sector = [0; SECTOR as usize];
        let inside = (link + 1).saturating_mul(block) <= disk.size() && link < end;
        if inside {
            disk.read_at(link * block, &mut sector)?;
        }
        let Some([inner, next, ..]) = slots(&sector).filter(|_| sector[510..] == SIGNATURE) else {
            found.notes.push(format!(
                "the chain of its logical partitions breaks off before number {number}"
            ));
            return Ok(());
        };
        let placed = Slot {
            start: link + inner.start,
            ..inner
        };
        if !inner.is_empty() {
            add(disk, found, number, placed, block);
            number += 1;
        }
        if !next.is_extended() {
            return Ok(());
        }
        let target = outer.start + next.start;
        if target <= link {
            break;
        }
        link = target;
    }
    found.notes.push(format!(
        "the chain of its logical partitions turns back or has more than {MAX_LINKS} links, the rest is not read"
    ));
    Ok(())
}

fn add<R: Read + Seek>(
    disk: &DiskSource<R>,
    found: &mut BootPartitions,
    number: u32,
    slot: Slot,
    block: u64,
) {
    found.count += 1;
    let range = slot.start * block..(slot.start + slot.count) * block;
    if slot.start == 0 || range.end > disk.size() {
        found.notes.push(format!(
            "partition {number} reaches behind the end of the disk and is not read"
        ));
        return;
    }
    match slot.kind {
        EFI_SYSTEM => found.esp.push(range.clone()),
        EXTENDED_BOOT if found.extended.is_none() => found.extended = Some(range.clone()),
        _ => {}
    }
    found.volumes.push(Partition {
        number,
        guid: false,
        range,
    });
}

/// Whether one of the partitions begins with a FAT boot sector or has the superblock of ext2 and its successors.
fn has_file_system<R: Read + Seek>(disk: &DiskSource<R>, found: &BootPartitions) -> io::Result<bool> {
    for Range { start, end } in found.volumes.iter().map(|volume| volume.range.clone()) {
        let mut bytes = [0; 1082];
        if end - start < bytes.len() as u64 {
            continue;
        }
        disk.read_at(start, &mut bytes)?;
        let is_fat = bytes[510..512] == SIGNATURE && matches!(bytes[11..13], [0, 2 | 4 | 8 | 16]);
        if is_fat || bytes[1080..] == [0x53, 0xef] {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What table and chain are read as, whatever the disk's sectors are.
const SECTOR: u64 = 512;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
const PROTECTIVE: u8 = 0xee;
const EFI_SYSTEM: u8 = 0xef;
/// Boot Loader Specification (UAPI.1): the extended boot loader partition on an MBR disk.
const EXTENDED_BOOT: u8 = 0xea;
/// Linux reads 256 partitions of a disk at most.
const MAX_LINKS: u32 = 256;
