//! Positioned reads from a disk image or a block device. There is no way to write through it.
//!
//! Small reads (table entries, allocation table, directories) go through one cached page; file contents go past it.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use super::fat::invalid;

/// A disk that can be read at any offset, through a shared reference.
pub(crate) struct DiskSource<R> {
    size: u64,
    inner: RefCell<Inner<R>>,
}

struct Inner<R> {
    reader: R,
    /// Offset of the page in `page`; `u64::MAX` when there is none.
    cached: u64,
    filled: usize,
    page: [u8; PAGE],
    /// Bytes of structure (tables, directories) that may still be read.
    budget: u64,
}

impl<R: Read + Seek> DiskSource<R> {
    pub(crate) fn new(mut reader: R) -> io::Result<Self> {
        let size = reader.seek(SeekFrom::End(0))?;
        let inner = Inner {
            reader,
            cached: u64::MAX,
            filled: 0,
            page: [0; PAGE],
            budget: MAX_STRUCTURE,
        };
        Ok(Self {
            size,
            inner: RefCell::new(inner),
        })
    }

    /// Bytes on the disk.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Fills `data` from `offset`; a range that leaves the disk is an error.
    pub(crate) fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|&end| end <= self.size);
        if end.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the range lies behind the end of the disk",
            ));
        }
        let mut inner = self.inner.borrow_mut();
        if data.len() >= PAGE {
            inner.reader.seek(SeekFrom::Start(offset))?;
            return inner.reader.read_exact(data);
        }
        let mut done = 0;
        while done < data.len() {
            done += inner.read_cached(offset + done as u64, &mut data[done..])?;
        }
        Ok(())
    }
}

impl<R: Read + Seek> Inner<R> {
    /// Copies what the page holding `offset` has; never nothing, since the caller stays inside the disk.
    fn read_cached(&mut self, offset: u64, data: &mut [u8]) -> io::Result<usize> {
        let page = offset - offset % PAGE as u64;
        if self.cached != page {
            self.cached = u64::MAX;
            self.reader.seek(SeekFrom::Start(page))?;
            self.filled = fill(&mut self.reader, &mut self.page)?;
            self.cached = page;
        }
        let start = (offset - page) as usize;
        let available = self.page.get(start..self.filled).unwrap_or_default();
        let count = available.len().min(data.len());
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the disk became shorter while it was read",
            ));
        }
        let left = self.budget.checked_sub(count as u64);
        self.budget =
            left.ok_or_else(|| invalid("its directories and tables are larger than any boot disk's"))?;
        data[..count].copy_from_slice(&available[..count]);
        Ok(count)
    }
}

impl<R> fmt::Debug for DiskSource<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskSource")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Reads until `data` is full or the reader ends; returns the bytes read.
pub(crate) fn fill(reader: &mut impl Read, data: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match reader.read(&mut data[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

const PAGE: usize = 4096;
/// Ends the reading of a disk made to keep its reader busy: no honest one has a hundredth of it.
const MAX_STRUCTURE: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn reading_structures_without_end_is_ended() {
        let disk = DiskSource::new(Cursor::new(vec![7; 2 * PAGE])).unwrap();
        let mut piece = [0; 4000];
        let refused = (0..100_000).find(|_| disk.read_at(0, &mut piece).is_err());
        assert_eq!(refused, Some(MAX_STRUCTURE / 4000));
        assert!(
            disk.read_at(0, &mut [0; PAGE]).is_ok(),
            "contents can still be read"
        );
    }

    #[test]
    fn a_read_across_pages_and_to_the_end_is_whole_and_one_further_is_refused() {
        let bytes: Vec<u8> = (0..5000u32).map(|i| (i % 255) as u8).collect();
        let disk = DiskSource::new(Cursor::new(bytes.clone())).unwrap();
        let mut piece = [0; 1000];
        disk.read_at(4000, &mut piece).unwrap();
        assert_eq!(piece, bytes[4000..]);
        assert!(disk.read_at(4001, &mut piece).is_err() && disk.read_at(u64::MAX, &mut piece).is_err());
    }
}
