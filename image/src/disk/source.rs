//! Positioned reads from a disk image or a block device. There is no way to write through it.
//!
//! Small reads (table entries, allocation table, directories) go through one cached page; file contents go past it.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

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
}

impl<R: Read + Seek> DiskSource<R> {
    pub(crate) fn new(mut reader: R) -> io::Result<Self> {
        let size = reader.seek(SeekFrom::End(0))?;
        let inner = Inner {
            reader,
            cached: u64::MAX,
            filled: 0,
            page: [0; PAGE],
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
