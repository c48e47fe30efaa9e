//! An ext2, ext3 or ext4 file system: where its parts lie, and its files by path.
//!
//! Read as a boot loader reads it: checksums are not looked at. Other than GRUB, the journal of a file system that was not unmounted is
//! replayed, in memory. Whatever the disk says, trees, chains, lists and directories are bounded.

mod directory;
mod extents;
mod inode;
mod journal;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};
use std::ops::Range;

use super::fat::invalid;
use super::{DiskFile, DiskSource};
use inode::{Inode, Kind};

/// Where things lie in the file system, checked against its partition.
#[derive(Debug, Clone)]
pub(crate) struct Ext4 {
    /// The partition's bytes on the disk.
    range: Range<u64>,
    geometry: Geometry,
    uuid: [u8; 16],
    label: String,
    /// Blocks that the journal has newer, and where: both count blocks of the file system.
    replayed: BTreeMap<u64, u64>,
    /// Why the journal was not replayed although it should have been.
    note: Option<String>,
}

/// Sizes of the file system; blocks and groups are counted, the rest is bytes.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    block: u64,
    blocks: u64,
    first_block: u64,
    groups: u64,
    inode_size: u64,
    inodes_per_group: u64,
    descriptor_size: u64,
}

impl Ext4 {
    /// Whether the partition at `start` has a superblock of this kind.
    pub(crate) fn is_present<R: Read + Seek>(disk: &DiskSource<R>, range: &Range<u64>) -> io::Result<bool> {
        if range.end - range.start < 4096 {
            return Ok(false);
        }
        let mut magic = [0; 2];
        disk.read_at(range.start + SUPERBLOCK + 56, &mut magic)?;
        Ok(magic == MAGIC)
    }

    /// Reads superblock and journal of the file system in `range` of the disk.
    pub(crate) fn open<R: Read + Seek>(disk: &DiskSource<R>, range: Range<u64>) -> io::Result<Self> {
        let mut raw = [0; 1024];
        disk.read_at(range.start + SUPERBLOCK, &mut raw)?;
        let geometry = Geometry::parse(&raw, range.end - range.start)?;
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&raw[104..120]);
        let label = raw[120..136].split(|&byte| byte == 0).next().unwrap_or_default();
        let mut system = Self {
            range,
            geometry,
            uuid,
            label: String::from_utf8_lossy(label).into_owned(),
            replayed: BTreeMap::new(),
            note: None,
        };
        if dword(&raw, 92) & HAS_JOURNAL != 0 && dword(&raw, 96) & NEEDS_RECOVERY != 0 {
            match journal::replay(&system, disk, dword(&raw, 224)) {
                Ok(replayed) => system.replayed = replayed,
                Err(error) => system.note = Some(format!("its journal was not replayed: {error}")),
            }
        }
        Ok(system)
    }

    /// The file system's UUID as GRUB and the kernel write it.
    pub(crate) fn uuid(&self) -> String {
        let hex: Vec<String> = self.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let part = |range: Range<usize>| hex[range].concat();
        let parts = [part(0..4), part(4..6), part(6..8), part(8..10), part(10..16)];
        parts.join("-")
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// What is wrong with the file system although it can be read.
    pub(crate) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Opens the file at `path`, following symbolic links; `None` when there is no such file.
    pub(crate) fn open_file<'d, R: Read + Seek>(
        &self,
        disk: &'d DiskSource<R>,
        path: &str,
    ) -> io::Result<Option<DiskFile<'d, R>>> {
        let Some(inode) = self.lookup(disk, path)?.filter(|inode| inode.kind == Kind::File) else {
            return Ok(None);
        };
        let extents = self.extents(disk, &inode)?;
        Ok(Some(DiskFile::sparse(disk, extents, inode.size)))
    }

    /// Names of the files and links in the directory at `path`, in the order of the disk; `None` when there is no such directory.
    pub(crate) fn list<R: Read + Seek>(
        &self,
        disk: &DiskSource<R>,
        path: &str,
    ) -> io::Result<Option<Vec<String>>> {
        let Some(inode) = self
            .lookup(disk, path)?
            .filter(|inode| inode.kind == Kind::Directory)
        else {
            return Ok(None);
        };
        let entries = self.entries(disk, &inode)?;
        let name = |entry: directory::Entry| String::from_utf8(entry.name).ok();
        Ok(Some(entries.into_iter().filter_map(name).collect()))
    }

    /// The inode that `path` leads to from the root; `None` when it leads nowhere.
    fn lookup<R: Read + Seek>(&self, disk: &DiskSource<R>, path: &str) -> io::Result<Option<Inode>> {
        // What is still to be walked, the next component last.
        let mut ahead: Vec<Vec<u8>> = components(path.as_bytes());
        let (mut here, mut links, mut steps) = (self.inode(disk, ROOT)?, 0, 0);
        while let Some(name) = ahead.pop() {
            steps += 1;
            if steps > MAX_STEPS {
                return Err(invalid("a path has more than 256 components"));
            }
            if here.kind != Kind::Directory {
                return Ok(None);
            }
            let Some(entry) = self
                .entries(disk, &here)?
                .into_iter()
                .find(|entry| entry.name == name)
            else {
                return Ok(None);
            };
            let next = self.inode(disk, entry.inode)?;
            if next.kind != Kind::Link {
                here = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(invalid("a path goes through more than 8 symbolic links"));
            }
            let target = self.link_target(disk, &next)?;
            if target.starts_with(b"/") {
                here = self.inode(disk, ROOT)?;
            }
            ahead.extend(components(&target));
        }
        Ok(Some(here))
    }

    fn link_target<R: Read + Seek>(&self, disk: &DiskSource<R>, link: &Inode) -> io::Result<Vec<u8>> {
        if link.size < 60 {
            return Ok(link.map[..link.size as usize].to_vec());
        }
        if link.size > MAX_TARGET {
            return Err(invalid("a symbolic link is longer than any path"));
        }
        let extents = self.extents(disk, link)?;
        let mut target = Vec::new();
        DiskFile::sparse(disk, extents, link.size).read_to_end(&mut target)?;
        Ok(target)
    }

    /// Reads from `offset` of block `block`, or of what the journal has in its place. What is read lies in that block.
    fn read_block<R: Read + Seek>(
        &self,
        disk: &DiskSource<R>,
        block: u64,
        offset: u64,
        data: &mut [u8],
    ) -> io::Result<()> {
        let block = *self.replayed.get(&block).unwrap_or(&block);
        let size = self.geometry.block;
        if block == 0 && size > SUPERBLOCK
            || block >= self.geometry.blocks
            || offset + data.len() as u64 > size
        {
            return Err(invalid("it names a block that is none of its own"));
        }
        let mut place = self.range.start + block * size + offset;
        // In small pieces, which the disk counts as structure and bounds.
        for piece in data.chunks_mut(1024) {
            disk.read_at(place, piece)?;
            place += piece.len() as u64;
        }
        Ok(())
    }
}

impl Geometry {
    fn parse(raw: &[u8; 1024], room: u64) -> io::Result<Self> {
        if raw[56..58] != MAGIC {
            return Err(invalid("no ext2, ext3 or ext4 superblock"));
        }
        let incompatible = dword(raw, 96);
        if incompatible & !READABLE != 0 {
            return Err(invalid(
                "it has features that are not known (meta_bg, compression, a journal of its own?)",
            ));
        }
        let is_wide = incompatible & WIDE != 0;
        let high = if is_wide { u64::from(dword(raw, 336)) } else { 0 };
        let scale = dword(raw, 24);
        if scale > 6 {
            return Err(invalid("its superblock is damaged: the block size"));
        }
        let geometry = Self {
            block: 1024 << scale,
            blocks: u64::from(dword(raw, 4)) | high << 32,
            first_block: u64::from(dword(raw, 20)),
            groups: 0,
            inode_size: if dword(raw, 76) == 0 {
                128
            } else {
                u64::from(word(raw, 88))
            },
            inodes_per_group: u64::from(dword(raw, 40)),
            descriptor_size: if is_wide { u64::from(word(raw, 254)) } else { 32 },
        };
        let per_group = u64::from(dword(raw, 32));
        let fits = geometry
            .blocks
            .checked_mul(geometry.block)
            .is_some_and(|size| size <= room);
        let data = geometry.blocks.checked_sub(geometry.first_block);
        let (Some(data), true) = (data, fits && per_group > 0 && geometry.inodes_per_group > 0) else {
            return Err(invalid(
                "its superblock is damaged: it is larger than its partition, or has no groups",
            ));
        };
        let sound = |size: u64, least: u64| size >= least && size.is_power_of_two() && size <= geometry.block;
        if !sound(geometry.inode_size, 128) || !sound(geometry.descriptor_size, if is_wide { 64 } else { 32 })
        {
            return Err(invalid(
                "its superblock is damaged: the size of inodes or of group descriptors",
            ));
        }
        Ok(Self {
            groups: data.div_ceil(per_group),
            ..geometry
        })
    }
}

/// The names between the slashes of a path, the first one last.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
    let mut names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
    names.reverse();
    names
}

fn word(raw: &[u8], at: usize) -> u16 {
    raw.get(at..at + 2)
        .map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn dword(raw: &[u8], at: usize) -> u32 {
    u32::from(word(raw, at)) | u32::from(word(raw, at + 2)) << 16
}

const SUPERBLOCK: u64 = 1024;
const MAGIC: [u8; 2] = [0x53, 0xef];
const ROOT: u32 = 2;
const HAS_JOURNAL: u32 = 4;
const NEEDS_RECOVERY: u32 = 4;
const WIDE: u32 = 0x80;
/// filetype, recover, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data, encrypt, casefold: what the last
/// three do to a file is refused where the file is read.
const READABLE: u32 =
    0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000;
/// As many as GRUB follows.
const MAX_LINKS: u32 = 8;
const MAX_STEPS: u32 = 256;
const MAX_TARGET: u64 = 4096;
