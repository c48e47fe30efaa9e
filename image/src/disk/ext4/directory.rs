//! Directories: lists of names and inodes. Those with an index are read as lists too, which its blocks are made to look like.

use std::io::{self, Read, Seek};

use super::inode::Inode;
use super::{Ext4, dword, invalid, word};
use crate::disk::DiskSource;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) inode: u32,
}

impl Ext4 {
    /// What a directory holds, `.` and `..` included, in the order of the disk.
    pub(super) fn entries<R: Read + Seek>(
        &self,
        disk: &DiskSource<R>,
        directory: &Inode,
    ) -> io::Result<Vec<Entry>> {
        let block_size = self.geometry.block;
        let mut entries = Vec::new();
        for block in self.blocks(disk, directory, MAX_BLOCKS)? {
            let mut offset = 0;
            while offset + 8 <= block_size {
                let mut head = [0; 8];
                self.read_block(disk, block, offset, &mut head)?;
                // 65,535 and 0 stand for a block of 64 KiB.
                let length = match u64::from(word(&head, 4)) {
                    0 | 0xffff => block_size,
                    length => length,
                };
                let name_length = usize::from(head[6]);
                if length < 8 || offset + length > block_size || 8 + name_length as u64 > length {
                    return Err(invalid("a directory's entries do not fit its block"));
                }
                let inode = dword(&head, 0);
                if inode != 0 && name_length > 0 {
                    let mut name = vec![0; name_length];
                    self.read_block(disk, block, offset + 8, &mut name)?;
                    entries.push(Entry { name, inode });
                }
                if entries.len() > MAX_ENTRIES {
                    return Err(invalid("a directory holds more than 65,536 files"));
                }
                offset += length;
            }
        }
        Ok(entries)
    }
}

const MAX_ENTRIES: usize = 65_536;
/// 16 MiB with blocks of 4 KiB.
const MAX_BLOCKS: u64 = 4096;
