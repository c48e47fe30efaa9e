//! The journal of a file system that was not unmounted (JBD2; Documentation/filesystems/ext4/journal.rst): which blocks it has newer.
//!
//! Only transactions with their commit block count, and a block that a later transaction revoked is not replayed. Checksums are not
//! looked at. The journal is walked once, from its tail, and not further than it is long.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};

use super::{Ext4, invalid};
use crate::disk::DiskSource;

/// The blocks to read elsewhere: their numbers, and those of their newer copies in the journal.
pub(super) fn replay<R: Read + Seek>(
    system: &Ext4,
    disk: &DiskSource<R>,
    inode: u32,
) -> io::Result<BTreeMap<u64, u64>> {
    let inode = system.inode(disk, inode)?;
    let blocks = system.blocks(disk, &inode, MAX_BLOCKS)?;
    let mut journal = Journal::open(system, disk, &blocks)?;
    while let Some(block) = journal.next {
        if !journal.step(disk, block)? {
            break;
        }
    }
    Ok(journal.finish())
}

struct Journal<'a> {
    system: &'a Ext4,
    blocks: &'a [u64],
    /// The log is a ring from `first` to `end`.
    first: usize,
    end: usize,
    /// The next block to look at; `None` when there is nothing to replay.
    next: Option<usize>,
    /// Blocks looked at.
    walked: usize,
    sequence: u32,
    tag: TagFormat,
    /// Of the transaction that has not been committed yet: block and copy.
    pending: Vec<(u64, u64)>,
    /// Blocks that it revokes.
    revoking: Vec<u64>,
    /// Block, its newest copy, and the place of the transaction among those walked.
    newer: BTreeMap<u64, (u64, u32)>,
    /// Block, and the last transaction that revoked it.
    revoked: BTreeMap<u64, u32>,
}

#[derive(Clone, Copy)]
struct TagFormat {
    size: usize,
    is_wide: bool,
    has_tail: bool,
    third: bool,
}

impl<'a> Journal<'a> {
    fn open<R: Read + Seek>(system: &'a Ext4, disk: &DiskSource<R>, blocks: &'a [u64]) -> io::Result<Self> {
        let mut raw = [0; 96];
        let start = *blocks.first().ok_or_else(|| invalid("it is empty"))?;
        system.read_block(disk, start, 0, &mut raw)?;
        let kind = big(&raw, 4);
        if big(&raw, 0) != MAGIC || !matches!(kind, SUPERBLOCK_1 | SUPERBLOCK_2) {
            return Err(invalid("it has no superblock"));
        }
        let features = if kind == SUPERBLOCK_2 { big(&raw, 40) } else { 0 };
        if features & !(REVOKE | WIDE | ASYNC | CHECKSUM_2 | CHECKSUM_3) != 0 {
            return Err(invalid("it has features that are not known (fast commits?)"));
        }
        let (first, end, start) = (
            big(&raw, 20) as usize,
            big(&raw, 16) as usize,
            big(&raw, 28) as usize,
        );
        let sound = first >= 1 && first < end && end <= blocks.len();
        if u64::from(big(&raw, 12)) != system.geometry.block
            || !sound
            || (start != 0 && !(first..end).contains(&start))
        {
            return Err(invalid("its superblock is damaged"));
        }
        let is_wide = features & WIDE != 0;
        let size = match (features & CHECKSUM_3 != 0, features & CHECKSUM_2 != 0) {
            (true, _) => 16,
            (_, second) => 8 + if is_wide { 4 } else { 0 } + if second { 2 } else { 0 },
        };
        Ok(Self {
            system,
            blocks,
            first,
            end,
            next: (start != 0).then_some(start),
            walked: 0,
            sequence: big(&raw, 24),
            tag: TagFormat {
                size,
                is_wide,
                has_tail: features & (CHECKSUM_2 | CHECKSUM_3) != 0,
                third: features & CHECKSUM_3 != 0,
            },
            pending: Vec::new(),
            revoking: Vec::new(),
            newer: BTreeMap::new(),
            revoked: BTreeMap::new(),
        })
    }

    /// The block of the log after `at`; `None` when all of it has been walked.
    fn after(&mut self, at: usize) -> Option<usize> {
        self.walked += 1;
        let next = if at + 1 == self.end { self.first } else { at + 1 };
        (self.walked < self.end - self.first).then_some(next)
    }

    /// Reads the block `at` of the log; `false` at the end of what was written.
    fn step<R: Read + Seek>(&mut self, disk: &DiskSource<R>, at: usize) -> io::Result<bool> {
        let mut block = vec![0; self.system.geometry.block as usize];
        let place = *self
            .blocks
            .get(at)
            .ok_or_else(|| invalid("it is shorter than it says"))?;
        self.system.read_block(disk, place, 0, &mut block)?;
        if big(&block, 0) != MAGIC || big(&block, 8) != self.sequence {
            return Ok(false);
        }
        self.next = self.after(at);
        match big(&block, 4) {
            DESCRIPTOR => self.descriptor(&block)?,
            COMMIT => self.commit(),
            REVOCATION => self.revocation(&block)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A list of blocks whose copies follow it in the log.
    fn descriptor(&mut self, block: &[u8]) -> io::Result<()> {
        let end = block.len() - if self.tag.has_tail { 4 } else { 0 };
        let mut at = 12;
        while at + self.tag.size <= end {
            let flags = if self.tag.third {
                big(block, at + 4)
            } else {
                big(block, at + 4) & 0xffff
            };
            let high = if self.tag.is_wide {
                u64::from(big(block, at + 8))
            } else {
                0
            };
            let target = u64::from(big(block, at)) | high << 32;
            if flags & ESCAPED != 0 {
                return Err(invalid("it has an escaped block"));
            }
            let Some(copy) = self.next else { return Ok(()) };
            self.next = self.after(copy);
            let place = *self
                .blocks
                .get(copy)
                .ok_or_else(|| invalid("it is shorter than it says"))?;
            self.pending.push((target, place));
            if flags & LAST != 0 {
                break;
            }
            at += self.tag.size + if flags & SAME_UUID == 0 { 16 } else { 0 };
        }
        Ok(())
    }

    fn commit(&mut self) {
        let sequence = self.sequence;
        let pending = std::mem::take(&mut self.pending);
        self.newer
            .extend(pending.into_iter().map(|(block, copy)| (block, (copy, sequence))));
        let revoking = std::mem::take(&mut self.revoking);
        self.revoked
            .extend(revoking.into_iter().map(|block| (block, sequence)));
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn revocation(&mut self, block: &[u8]) -> io::Result<()> {
        let width = if self.tag.is_wide { 8 } else { 4 };
        let end = (big(block, 12) as usize).min(block.len());
        for entry in block.get(16..end).unwrap_or_default().chunks_exact(width) {
            let target = if self.tag.is_wide {
                u64::from(big(entry, 0)) << 32 | u64::from(big(entry, 4))
            } else {
                u64::from(big(entry, 0))
            };
            self.revoking.push(target);
        }
        if self.revoked.len() + self.revoking.len() > MAX_REVOKED {
            return Err(invalid("it revokes more blocks than any journal"));
        }
        Ok(())
    }

    fn finish(self) -> BTreeMap<u64, u64> {
        let Self {
            newer,
            revoked,
            sequence,
            ..
        } = self;
        // Sequence numbers wrap, so they are compared by how long ago they were.
        let age = |of: u32| sequence.wrapping_sub(of);
        let holds = |block: &u64, written: u32| revoked.get(block).is_none_or(|&at| age(written) < age(at));
        let held = newer
            .into_iter()
            .filter(|(block, (_, written))| holds(block, *written));
        held.map(|(block, (copy, _))| (block, copy)).collect()
    }
}

fn big(raw: &[u8], at: usize) -> u32 {
    raw.get(at..at + 4)
        .map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPERBLOCK_1: u32 = 3;
const SUPERBLOCK_2: u32 = 4;
const REVOCATION: u32 = 5;
const REVOKE: u32 = 1;
const WIDE: u32 = 2;
const ASYNC: u32 = 4;
const CHECKSUM_2: u32 = 8;
const CHECKSUM_3: u32 = 16;
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;
/// The largest journal that mkfs.ext4 makes has 1 GiB.
const MAX_BLOCKS: u64 = 1 << 18;
const MAX_REVOKED: usize = 1 << 18;
