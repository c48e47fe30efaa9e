//! One inode: what it is, its size, and where its map of blocks begins.

use std::io::{self, Read, Seek};

use super::{Ext4, dword, invalid, word};
use crate::disk::DiskSource;

/// What a file or directory is, and where its blocks are.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    pub(super) kind: Kind,
    /// Bytes.
    pub(super) size: u64,
    /// Whether `map` is the root of a tree of extents; else it has the numbers of blocks.
    pub(super) has_extents: bool,
    pub(super) map: [u8; 60],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Link,
    Other,
}

impl Ext4 {
    /// Reads the inode `number`, counted from 1.
    pub(super) fn inode<R: Read + Seek>(&self, disk: &DiskSource<R>, number: u32) -> io::Result<Inode> {
        let geometry = &self.geometry;
        let index = number.checked_sub(1).map(u64::from);
        let index = index.ok_or_else(|| invalid("a directory names the inode 0"))?;
        let (group, index) = (
            index / geometry.inodes_per_group,
            index % geometry.inodes_per_group,
        );
        if group >= geometry.groups {
            return Err(invalid("a directory names an inode that is not there"));
        }
        let mut descriptor = [0; 64];
        let size = geometry.descriptor_size.min(64) as usize;
        let place = group * geometry.descriptor_size;
        let table = geometry.first_block + 1 + place / geometry.block;
        self.read_block(disk, table, place % geometry.block, &mut descriptor[..size])?;
        let first = u64::from(dword(&descriptor, 8)) | u64::from(dword(&descriptor, 40)) << 32;
        let place = index * geometry.inode_size;
        let block = first.checked_add(place / geometry.block);
        let mut raw = [0; 128];
        self.read_block(
            disk,
            block.ok_or_else(|| invalid("a table of inodes is nowhere"))?,
            place % geometry.block,
            &mut raw,
        )?;
        Inode::parse(&raw)
    }
}

impl Inode {
    fn parse(raw: &[u8; 128]) -> io::Result<Self> {
        let flags = dword(raw, 32);
        if flags & (ENCRYPTED | INLINE) != 0 {
            return Err(invalid(
                "a file or directory is encrypted or lies in its inode, which is not read",
            ));
        }
        let mut map = [0; 60];
        map.copy_from_slice(&raw[40..100]);
        Ok(Self {
            kind: match word(raw, 0) & 0xf000 {
                0x8000 => Kind::File,
                0x4000 => Kind::Directory,
                0xa000 => Kind::Link,
                _ => Kind::Other,
            },
            size: u64::from(dword(raw, 4)) | u64::from(dword(raw, 108)) << 32,
            has_extents: flags & EXTENTS != 0,
            map,
        })
    }
}

const ENCRYPTED: u32 = 0x800;
const EXTENTS: u32 = 0x8_0000;
const INLINE: u32 = 0x1000_0000;
