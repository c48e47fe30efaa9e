//! A disk as the host keeps it: a block device, a raw file, or a qcow2 image.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::fill;
use super::qcow2::Qcow2;

/// The bytes of a server's disk, whatever they are kept in.
pub struct DiskImage<R = File>(Kind<R>);

enum Kind<R> {
    Raw(R),
    Qcow2(Box<Qcow2<R>>),
}

impl DiskImage {
    /// Opens a disk image or a block device for reading. Only a regular file is looked at for being a qcow2 image.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Asked first: opening a pipe would wait for its other end.
        let kind = std::fs::metadata(path)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a file nor a block device",
            ));
        }
        let file = File::open(path)?;
        if kind.is_file() {
            Self::new(file)
        } else {
            Ok(Self(Kind::Raw(file)))
        }
    }
}

impl<R: Read + Seek> DiskImage<R> {
    /// The disk in `reader`: what a qcow2 image holds, else the bytes as they are. An image that continues in other files is refused.
    pub fn new(mut reader: R) -> io::Result<Self> {
        let mut start = [0; 4];
        reader.rewind()?;
        let read = fill(&mut reader, &mut start)?;
        if Qcow2::<R>::is_present(&start[..read]) {
            return Ok(Self(Kind::Qcow2(Box::new(Qcow2::open(reader)?))));
        }
        reader.rewind()?;
        Ok(Self(Kind::Raw(reader)))
    }
}

impl<R: Read + Seek> Read for DiskImage<R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Raw(file) => file.read(data),
            Kind::Qcow2(image) => image.read(data),
        }
    }
}

impl<R: Read + Seek> Seek for DiskImage<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.0 {
            Kind::Raw(file) => file.seek(to),
            Kind::Qcow2(image) => image.seek(to),
        }
    }
}

impl<R> std::fmt::Debug for DiskImage<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::Raw(_) => "DiskImage(raw)",
            Kind::Qcow2(_) => "DiskImage(qcow2)",
        })
    }
}
