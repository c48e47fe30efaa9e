//! One file on the disk as a stream: it holds where the file lies, not what is in it.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use super::DiskSource;

/// A file on a server's disk, open for reading.
pub struct DiskFile<'d, R> {
    disk: &'d DiskSource<R>,
    /// Where in the file each range of the disk begins; ascending. Between them the file is zero.
    extents: Vec<(u64, Range<u64>)>,
    size: u64,
    position: u64,
}

impl<'d, R: Read + Seek> DiskFile<'d, R> {
    pub(crate) fn new(disk: &'d DiskSource<R>, extents: Vec<Range<u64>>, size: u64) -> Self {
        let mut begin = 0;
        let placed = extents.into_iter().map(|extent| {
            let length = extent.end - extent.start;
            begin += length;
            (begin - length, extent)
        });
        Self::sparse(disk, placed.collect(), size)
    }

    /// A file of which only some places are on the disk.
    pub(crate) fn sparse(disk: &'d DiskSource<R>, extents: Vec<(u64, Range<u64>)>, size: u64) -> Self {
        Self {
            disk,
            extents,
            size,
            position: 0,
        }
    }

    /// Bytes in the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the byte at the current position is.
    fn here(&self) -> Place {
        let left = self.size.saturating_sub(self.position);
        let behind = self.extents.partition_point(|(begin, _)| *begin <= self.position);
        if let Some((begin, extent)) = behind.checked_sub(1).and_then(|at| self.extents.get(at)) {
            let start = extent.start.saturating_add(self.position - begin);
            if start < extent.end {
                return Place::Disk(start..extent.end.min(start.saturating_add(left)));
            }
        }
        let next = self.extents.get(behind).map_or(self.size, |(begin, _)| *begin);
        Place::Hole(next.saturating_sub(self.position).min(left))
    }
}

/// What a file has from some byte on.
enum Place {
    /// These bytes of the disk.
    Disk(Range<u64>),
    /// As many zeros.
    Hole(u64),
}

impl<R: Read + Seek> Read for DiskFile<'_, R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let count = match self.here() {
            Place::Disk(range) => {
                let count = (range.end - range.start).min(data.len() as u64) as usize;
                self.disk.read_at(range.start, &mut data[..count])?;
                count
            }
            Place::Hole(size) => {
                let count = size.min(data.len() as u64) as usize;
                data[..count].fill(0);
                count
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Read + Seek> Seek for DiskFile<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a seek before the start of the file");
        self.position = target.ok_or_else(before)?;
        Ok(self.position)
    }
}

impl<R> fmt::Debug for DiskFile<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("DiskFile");
        text.field("size", &self.size)
            .field("fragments", &self.extents.len())
            .finish_non_exhaustive()
    }
}
