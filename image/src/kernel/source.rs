//! A file to load from: on the host or on a guest's disk. It is streamed into guest memory through one small buffer.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use pellucid_partition::{GuestAddress, GuestMemory};

use crate::error::LoadError;

/// What a file to load from must be able to do.
pub trait ReadSeek: Read + Seek {}

impl<T: Read + Seek> ReadSeek for T {}

/// A kernel or initrd, opened for reading, with a name for errors.
pub struct SourceFile<'a> {
    name: String,
    /// Where in the reader the file begins.
    start: u64,
    size: u64,
    /// Where the next [`Read`] begins.
    position: u64,
    reader: Box<dyn ReadSeek + 'a>,
}

impl SourceFile<'static> {
    /// Opens a file of the host.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let failed = |source: io::Error| LoadError::Open {
            path: path.to_owned(),
            source,
        };
        // Asked first: opening a pipe would wait for its other end.
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            )));
        }
        let file = File::open(path).map_err(failed)?;
        Ok(Self::new(&path.display().to_string(), metadata.len(), file))
    }
}

impl<'a> SourceFile<'a> {
    /// A file of `size` bytes behind any reader.
    pub fn new(name: &str, size: u64, reader: impl ReadSeek + 'a) -> Self {
        Self {
            name: name.to_owned(),
            start: 0,
            size,
            position: 0,
            reader: Box::new(reader),
        }
    }

    /// The `size` bytes from `offset` as a file of their own, as far as they lie in this one.
    pub(crate) fn part(self, offset: u64, size: u64) -> Self {
        let offset = offset.min(self.size);
        Self {
            start: self.start.saturating_add(offset),
            size: size.min(self.size - offset),
            ..self
        }
    }

    /// What errors call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes in the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Begins anew with reading.
    pub(crate) fn rewind(&mut self) {
        self.position = 0;
    }

    /// Fills `data` from `offset`, or as much as there is; returns the bytes read.
    pub(crate) fn read_at(&mut self, offset: u64, data: &mut [u8]) -> Result<usize, LoadError> {
        self.position = offset;
        let filled = crate::disk::fill(self, data);
        filled.map_err(|source| LoadError::Read {
            name: self.name.clone(),
            source,
        })
    }

    /// Copies `size` bytes from `offset` to guest memory at `to`. A file that ends before is an error.
    pub(crate) fn copy_to(
        &mut self,
        offset: u64,
        size: u64,
        memory: &GuestMemory,
        to: GuestAddress,
    ) -> Result<(), LoadError> {
        let mut buffer = vec![0; CHUNK.min(size) as usize];
        let mut done = 0;
        while done < size {
            let chunk = &mut buffer[..CHUNK.min(size - done) as usize];
            if self.read_at(offset + done, chunk)? < chunk.len() {
                let source = io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file became shorter while it was read",
                );
                return Err(LoadError::Read {
                    name: self.name.clone(),
                    source,
                });
            }
            memory.write(GuestAddress(to.0 + done), chunk)?;
            done += chunk.len() as u64;
        }
        Ok(())
    }
}

impl Read for SourceFile<'_> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.position).min(data.len() as u64) as usize;
        let data = &mut data[..left];
        let from = SeekFrom::Start(self.start.saturating_add(self.position));
        self.reader.seek(from)?;
        let count = self.reader.read(data)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl fmt::Debug for SourceFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceFile")
            .field("name", &self.name)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

const CHUNK: u64 = 128 << 10;
