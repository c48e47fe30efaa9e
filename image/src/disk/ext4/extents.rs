//! Where a file's blocks are: a tree of extents (ext4), or lists of blocks behind up to three levels of lists (ext2, ext3).
//!
//! Extents must ascend, and no more nodes are read than any boot file has, so a tree that meets itself again ends soon.

use std::io::{self, Read, Seek};
use std::ops::Range;

use super::inode::Inode;
use super::{Ext4, dword, invalid, word};
use crate::disk::DiskSource;

/// A run of blocks: the first one's place in the file, and in the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    logical: u64,
    physical: u64,
    count: u64,
}

/// The runs of a file so far, and what its map has cost.
struct Walk {
    runs: Vec<Run>,
    nodes: u32,
    /// Blocks in the file.
    end: u64,
    /// The next place in the file that a list of blocks speaks of.
    next: u64,
}

impl Ext4 {
    /// A file's pieces: where in the file each begins, and its bytes on the disk. Between them the file is zero.
    pub(super) fn extents<R: Read + Seek>(
        &self,
        disk: &DiskSource<R>,
        inode: &Inode,
    ) -> io::Result<Vec<(u64, Range<u64>)>> {
        let size = self.geometry.block;
        let mut pieces = Vec::new();
        for run in self.runs(disk, inode)? {
            for run in self.split(run) {
                let start = self.range.start + run.physical * size;
                let begin = run.logical * size;
                let length = (run.count * size).min(inode.size - begin.min(inode.size));
                if length > 0 {
                    pieces.push((begin, start..start + length));
                }
            }
        }
        Ok(pieces)
    }

    /// The blocks of a directory, which has no holes.
    pub(super) fn blocks<R: Read + Seek>(
        &self,
        disk: &DiskSource<R>,
        inode: &Inode,
        limit: u64,
    ) -> io::Result<Vec<u64>> {
        if inode.size.div_ceil(self.geometry.block) > limit {
            return Err(invalid("a directory is larger than any boot loader's"));
        }
        let runs = self.runs(disk, inode)?;
        let blocks = runs
            .into_iter()
            .flat_map(|run| run.physical..run.physical + run.count);
        Ok(blocks.take(limit as usize).collect())
    }

    /// A run without the blocks that the journal has newer, and those on their own.
    fn split(&self, run: Run) -> Vec<Run> {
        let (mut parts, mut done) = (Vec::new(), 0);
        for (&block, &newer) in self.replayed.range(run.physical..run.physical + run.count) {
            let before = block - run.physical;
            let part = |offset: u64, physical, count| Run {
                logical: run.logical + offset,
                physical,
                count,
            };
            parts.push(part(done, run.physical + done, before - done));
            parts.push(part(before, newer, 1));
            done = before + 1;
        }
        parts.push(Run {
            logical: run.logical + done,
            physical: run.physical + done,
            count: run.count - done,
        });
        parts
    }

    fn runs<R: Read + Seek>(&self, disk: &DiskSource<R>, inode: &Inode) -> io::Result<Vec<Run>> {
        let mut walk = Walk {
            runs: Vec::new(),
            nodes: 0,
            end: inode.size.div_ceil(self.geometry.block),
            next: 0,
        };
        if inode.has_extents {
            self.node(disk, &inode.map, MAX_DEPTH + 1, &mut walk)?;
            return Ok(walk.runs);
        }
        for (index, pointer) in inode.map.chunks_exact(4).enumerate() {
            let depth = index.saturating_sub(11) as u32;
            self.pointers(disk, u64::from(dword(pointer, 0)), depth, &mut walk)?;
        }
        Ok(walk.runs)
    }

    /// One node of a tree of extents, whose depth must be less than `above`.
    fn node<R: Read + Seek>(
        &self,
        disk: &DiskSource<R>,
        node: &[u8],
        above: u16,
        walk: &mut Walk,
    ) -> io::Result<()> {
        let depth = word(node, 6);
        if word(node, 0) != EXTENT_MAGIC || depth >= above {
            return Err(invalid("a file's tree of extents is damaged"));
        }
        walk.visit()?;
        let entries = node.chunks_exact(12).skip(1).take(usize::from(word(node, 2)));
        for entry in entries {
            if depth == 0 {
                let (length, high) = (u64::from(word(entry, 4)), u64::from(word(entry, 6)));
                // Longer ones were allocated and never written: they read as zero.
                if length <= UNWRITTEN {
                    let physical = u64::from(dword(entry, 8)) | high << 32;
                    self.add(walk, u64::from(dword(entry, 0)), physical, length)?;
                }
                continue;
            }
            let child = u64::from(dword(entry, 4)) | u64::from(word(entry, 8)) << 32;
            let mut node = vec![0; self.geometry.block as usize];
            self.read_block(disk, child, 0, &mut node)?;
            self.node(disk, &node, depth, walk)?;
        }
        Ok(())
    }

    /// A block, or a list of blocks behind `depth` levels; 0 is a hole of all that it would name.
    fn pointers<R: Read + Seek>(
        &self,
        disk: &DiskSource<R>,
        pointer: u64,
        depth: u32,
        walk: &mut Walk,
    ) -> io::Result<()> {
        if walk.next >= walk.end {
            return Ok(());
        }
        let per_block = self.geometry.block / 4;
        if pointer == 0 {
            walk.next += per_block.pow(depth);
            return Ok(());
        }
        if depth == 0 {
            let logical = walk.next;
            walk.next += 1;
            return self.add(walk, logical, pointer, 1);
        }
        walk.visit()?;
        let mut block = vec![0; self.geometry.block as usize];
        self.read_block(disk, pointer, 0, &mut block)?;
        for pointer in block.chunks_exact(4) {
            self.pointers(disk, u64::from(dword(pointer, 0)), depth - 1, walk)?;
        }
        Ok(())
    }

    fn add(&self, walk: &mut Walk, logical: u64, physical: u64, count: u64) -> io::Result<()> {
        let end = physical.checked_add(count);
        if physical == 0 || count == 0 || end.is_none_or(|end| end > self.geometry.blocks) {
            return Err(invalid("a file has blocks that are not the file system's"));
        }
        match walk.runs.last_mut() {
            Some(last) if logical < last.logical + last.count => {
                return Err(invalid("a file's extents overlap"));
            }
            Some(last) if last.logical + last.count == logical && last.physical + last.count == physical => {
                last.count += count;
            }
            _ => walk.runs.push(Run {
                logical,
                physical,
                count,
            }),
        }
        if walk.runs.len() > MAX_RUNS {
            return Err(invalid("the file is in too many fragments"));
        }
        Ok(())
    }
}

impl Walk {
    fn visit(&mut self) -> io::Result<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(invalid("a file's map has more blocks than any boot file's"));
        }
        Ok(())
    }
}

const EXTENT_MAGIC: u16 = 0xf30a;
const MAX_DEPTH: u16 = 5;
const UNWRITTEN: u64 = 32_768;
const MAX_RUNS: usize = 65_536;
/// Of lists of 1,024 blocks, enough for 16 GiB.
const MAX_NODES: u32 = 4096;
