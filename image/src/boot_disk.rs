//! A server's disk as a boot loader sees it: its partitions that hold boot files, and the files on them.
//!
//! Nothing is written, and only what is asked for is read.

use std::cell::OnceCell;
use std::fmt;
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::path::Path;

use crate::boot_file::{BootFile, Volume};
use crate::boot_plan::BootPlan;
use crate::disk::{
    DirectoryEntry, DiskFile, DiskImage, DiskSource, Fat, FileSystem, Partition, TableError, boot_partitions,
};
use crate::error::DiscoverError;
use crate::file_systems::FileSystems;
use crate::kernel::{Linux, SourceFile};

/// An opened disk with a partition table. Nothing is known yet of what it boots.
pub struct BootDisk<R> {
    name: String,
    source: DiskSource<R>,
    esp: Option<Fat>,
    /// The extended boot loader partition, or why it cannot be read.
    extended: Option<io::Result<Fat>>,
    /// What is wrong with the partition table although it could be read.
    notes: Vec<String>,
    partitions: Vec<Partition>,
    /// Where the ESP lies.
    esp_range: Option<Range<u64>>,
    /// The file systems of the partitions, opened when a boot loader asks for them.
    systems: OnceCell<FileSystems>,
}

impl BootDisk<DiskImage> {
    /// Opens a raw or qcow2 disk image or a block device for reading.
    pub fn open(path: &Path) -> Result<Self, DiscoverError> {
        let disk = path.display().to_string();
        match DiskImage::open(path) {
            Ok(image) => Self::new(&disk, image),
            Err(source) => Err(DiscoverError::Open { disk, source }),
        }
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
                found: " (only boot code or a bare file system)",
            },
            TableError::Damaged(reason) => read(
                "its partition table",
                io::Error::new(io::ErrorKind::InvalidData, reason),
            ),
            TableError::Read(source) => read("its partition table", source),
        })?;
        let esp_range = table.esp.first().cloned();
        let esp = esp_range.clone().map(|range| Fat::open(&source, range));
        let esp = esp.transpose().map_err(|e| read("its EFI system partition", e))?;
        tracing::debug!(disk = name, ?esp_range, "EFI system partition");
        let extended = table.extended.map(|range| Fat::open(&source, range));
        Ok(Self {
            name,
            source,
            esp,
            extended,
            notes: table.notes,
            partitions: table.volumes,
            esp_range,
            systems: OnceCell::new(),
        })
    }

    /// The disk's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is wrong with the disk although it can be booted from, in sentences: a damaged table that its backup stood in for.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Opens a file on the ESP; upper and lower case are the same, as FAT has it.
    pub fn file(&self, path: &str) -> Result<Option<DiskFile<'_, R>>, DiscoverError> {
        self.fat_file(Volume::Esp, path)
    }

    /// Opens a boot file, or the part of one; `None` when it is not there.
    pub fn open_file<'d>(&'d self, file: &BootFile) -> Result<Option<SourceFile<'d>>, DiscoverError>
    where
        R: 'd,
    {
        let Some(opened) = self.fat_file(file.volume, &file.path)? else {
            return Ok(None);
        };
        let (name, size) = (format!("{}:{file}", self.name), opened.size());
        let whole = SourceFile::new(&name, size, opened);
        Ok(Some(match &file.part {
            Some(part) => whole.part(part.offset, part.size),
            None => whole,
        }))
    }

    /// The kernel and initrds of `plan`, opened, ready to be loaded into a guest's memory.
    pub fn linux<'d>(&'d self, plan: &BootPlan) -> Result<Linux<'d>, DiscoverError>
    where
        R: 'd,
    {
        let open = |file: &BootFile| -> Result<SourceFile<'d>, DiscoverError> {
            self.open_file(file)?.ok_or_else(|| DiscoverError::MissingFile {
                disk: self.name.clone(),
                entry: plan.entry_id.clone(),
                file: file.to_string(),
            })
        };
        Ok(Linux {
            kernel: open(&plan.kernel)?,
            initrds: plan.initrds.iter().map(open).collect::<Result<_, _>>()?,
            command_line: plan.command_line.clone(),
        })
    }

    /// The extended boot loader partition, or why it cannot be read; `None` when the disk has none.
    pub(crate) fn extended(&self) -> Option<Result<&Fat, &io::Error>> {
        self.extended.as_ref().map(Result::as_ref)
    }

    pub(crate) fn exists(&self, volume: Volume, path: &str) -> Result<bool, DiscoverError> {
        Ok(self.fat_file(volume, path)?.is_some())
    }

    /// What a directory holds, in the order of the disk; nothing when it is not there.
    pub(crate) fn list(&self, volume: Volume, path: &str) -> Result<Vec<DirectoryEntry>, DiscoverError> {
        let listed = self.fat(volume).map(|fat| fat.list(&self.source, path));
        let listed = listed
            .transpose()
            .map_err(|source| self.read_error(path, source))?;
        Ok(listed.flatten().unwrap_or_default())
    }

    /// A configuration file's content; `None` when it is not there.
    pub(crate) fn small_file(&self, volume: Volume, path: &str) -> Result<Option<Vec<u8>>, DiscoverError> {
        let file = self.fat_file(volume, path)?;
        file.map(|file| self.read_small(path, file)).transpose()
    }

    /// The content of a configuration file that was listed.
    pub(crate) fn content(
        &self,
        volume: Volume,
        path: &str,
        listed: &DirectoryEntry,
    ) -> Result<Vec<u8>, DiscoverError> {
        let Some(fat) = self.fat(volume) else {
            return Ok(Vec::new());
        };
        let opened = fat.open_entry(&self.source, listed);
        self.read_small(path, opened.map_err(|source| self.read_error(path, source))?)
    }

    fn fat(&self, volume: Volume) -> Option<&Fat> {
        match volume {
            Volume::Esp => self.esp.as_ref(),
            Volume::Xbootldr => self.extended()?.ok(),
            Volume::Partition(_) => None,
        }
    }

    /// The file systems of the disk's partitions, in the order of the table.
    pub(crate) fn file_systems(&self) -> &[(Partition, Volume, FileSystem)] {
        &self.systems().readable
    }

    /// What is wrong with partitions that were looked at for a file system.
    pub(crate) fn file_system_notes(&self) -> &[String] {
        &self.systems().notes
    }

    pub(crate) fn has_esp(&self) -> bool {
        self.esp.is_some()
    }

    /// The refusal of a disk without an EFI system partition.
    pub(crate) fn no_esp(&self) -> DiscoverError {
        DiscoverError::NoEsp {
            disk: self.name.clone(),
            partitions: self.partitions.len(),
        }
    }

    pub(crate) fn source(&self) -> &DiskSource<R> {
        &self.source
    }

    fn systems(&self) -> &FileSystems {
        let open = || FileSystems::open(&self.source, &self.partitions, self.esp_range.as_ref());
        self.systems.get_or_init(open)
    }

    fn fat_file(&self, volume: Volume, path: &str) -> Result<Option<DiskFile<'_, R>>, DiscoverError> {
        if let Volume::Partition(_) = volume {
            let system = self.file_systems().iter().find(|(_, known, _)| *known == volume);
            let opened = system
                .map(|(_, _, system)| system.open_file(&self.source, path))
                .transpose();
            return Ok(opened.map_err(|source| self.read_error(path, source))?.flatten());
        }
        let opened = self.fat(volume).map(|fat| fat.open_file(&self.source, path));
        let opened = opened
            .transpose()
            .map_err(|source| self.read_error(path, source))?;
        Ok(opened.flatten())
    }

    fn read_small(&self, path: &str, mut file: DiskFile<'_, R>) -> Result<Vec<u8>, DiscoverError> {
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
