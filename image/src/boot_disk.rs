//! A server's disk as a boot loader sees it: its EFI system partition, and what would be booted from there.
//!
//! Nothing is written, and only what is asked for is read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::boot_plan::BootPlan;
use crate::disk::{DiskFile, DiskSource, Fat, TableError, boot_partitions};
use crate::error::DiscoverError;
use crate::kernel::{Linux, SourceFile};

/// An opened disk with an EFI system partition. Nothing is known yet of what it boots.
pub struct BootDisk<R> {
    pub(crate) name: String,
    pub(crate) source: DiskSource<R>,
    pub(crate) esp: Fat,
    pub(crate) has_extended: bool,
}

impl BootDisk<File> {
    /// Opens a disk image or a block device for reading.
    pub fn open(path: &Path) -> Result<Self, DiscoverError> {
        let disk = path.display().to_string();
        let failed = |source| DiscoverError::Open {
            disk: disk.clone(),
            source,
        };
        // Asked first: opening a pipe would wait for its other end.
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(failed(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a file nor a block device",
            )));
        }
        let file = File::open(path).map_err(failed)?;
        Self::new(&disk, file)
    }
}

impl<R: Read + Seek> BootDisk<R> {
    /// A disk behind any reader; `name` is what errors call it.
    pub fn new(name: &str, reader: R) -> Result<Self, DiscoverError> {
        let name = name.to_owned();
        let source = DiskSource::new(reader);
        let source = source.map_err(|source| DiscoverError::Open {
            disk: name.clone(),
            source,
        })?;
        let read = |subject: &str, source: io::Error| DiscoverError::Read {
            disk: name.clone(),
            subject: subject.to_owned(),
            source,
        };
        let table = boot_partitions(&source).map_err(|error| match error {
            TableError::Absent { mbr: false } => DiscoverError::NoTable {
                disk: name.clone(),
                found: "",
            },
            TableError::Absent { mbr: true } => DiscoverError::NoTable {
                disk: name.clone(),
                found: " (only an MBR or a bare file system)",
            },
            TableError::Damaged(reason) => read(
                "its partition table",
                io::Error::new(io::ErrorKind::InvalidData, reason),
            ),
            TableError::Read(source) => read("its partition table", source),
        })?;
        let Some(range) = table.esp.first() else {
            return Err(DiscoverError::NoEsp {
                disk: name.clone(),
                partitions: table.count,
            });
        };
        let esp = Fat::open(&source, range.clone()).map_err(|e| read("its EFI system partition", e))?;
        tracing::debug!(disk = name, start = range.start, "EFI system partition");
        Ok(Self {
            name,
            source,
            esp,
            has_extended: table.has_extended,
        })
    }

    /// The disk's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens a file on the ESP; upper and lower case are the same, as FAT has it.
    pub fn file(&self, path: &str) -> Result<Option<DiskFile<'_, R>>, DiscoverError> {
        self.esp
            .open_file(&self.source, path)
            .map_err(|source| self.read_error(path, source))
    }

    /// The kernel and initrds of `plan`, opened, ready to be loaded into a guest's memory.
    pub fn linux<'d>(&'d self, plan: &BootPlan) -> Result<Linux<'d>, DiscoverError>
    where
        R: 'd,
    {
        let open = |path: &String| -> Result<SourceFile<'d>, DiscoverError> {
            let file = self
                .file(path)?
                .ok_or_else(|| self.missing(&plan.entry_id, path))?;
            Ok(SourceFile::new(
                &format!("{}:{path}", self.name),
                file.size(),
                file,
            ))
        };
        Ok(Linux {
            kernel: open(&plan.kernel)?,
            initrds: plan.initrds.iter().map(open).collect::<Result<_, _>>()?,
            command_line: plan.command_line.clone(),
        })
    }

    pub(crate) fn exists(&self, path: &str) -> Result<bool, DiscoverError> {
        Ok(self.file(path)?.is_some())
    }

    /// A configuration file's content; `None` when it is not there.
    pub(crate) fn small_file(&self, path: &str) -> Result<Option<Vec<u8>>, DiscoverError> {
        self.file(path)?.map(|file| self.content(path, file)).transpose()
    }

    pub(crate) fn content(&self, path: &str, mut file: DiskFile<'_, R>) -> Result<Vec<u8>, DiscoverError> {
        if file.size() > MAX_CONFIGURATION {
            let limit = io::Error::new(
                io::ErrorKind::FileTooLarge,
                "a configuration file of more than 64 KiB",
            );
            return Err(self.read_error(path, limit));
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content)
            .map_err(|source| self.read_error(path, source))?;
        Ok(content)
    }

    pub(crate) fn missing(&self, entry: &str, path: &str) -> DiscoverError {
        let (entry, path) = (entry.to_owned(), path.to_owned());
        DiscoverError::MissingFile {
            disk: self.name.clone(),
            entry,
            path,
        }
    }

    pub(crate) fn read_error(&self, subject: &str, source: io::Error) -> DiscoverError {
        let subject = subject.trim_start_matches('\\').to_owned();
        DiscoverError::Read {
            disk: self.name.clone(),
            subject,
            source,
        }
    }
}

impl<R> fmt::Debug for BootDisk<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootDisk")
            .field("name", &self.name)
            .field("esp", &self.esp)
            .finish_non_exhaustive()
    }
}

const MAX_CONFIGURATION: u64 = 64 << 10;
