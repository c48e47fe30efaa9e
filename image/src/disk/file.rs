//! One file on the disk as a stream: it holds where the file lies, not what is in it.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use super::DiskSource;

/// A file on a server's disk, open for reading.
pub struct DiskFile<'d, R> {
    disk: &'d DiskSource<R>,
    /// Where in the file each range of the disk begins; ascending.
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
        Self {
            disk,
            extents: placed.collect(),
            size,
            position: 0,
        }
    }

    /// Bytes in the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The disk range that starts with the byte at the current position.
    fn here(&self) -> Option<Range<u64>> {
        let behind = self.extents.partition_point(|(begin, _)| *begin <= self.position);
        let (begin, extent) = self.extents.get(behind.checked_sub(1)?)?;
        let start = extent.start.checked_add(self.position - begin)?;
        (start < extent.end).then_some(start..extent.end)
    }
}

impl<R: Read + Seek> Read for DiskFile<'_, R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let Some(range) = self.here() else { return Ok(0) };
        let count = (range.end - range.start).min(data.len() as u64) as usize;
        self.disk.read_at(range.start, &mut data[..count])?;
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
