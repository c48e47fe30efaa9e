//! A server's disk as a boot loader sees it: its EFI system partition, and what would be booted from there.
//!
//! Nothing is written, and only what is asked for is read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use crate::boot_plan::{BootPlan, Candidate};
use crate::disk::{DiskFile, DiskSource, Fat, TableError, boot_partitions};
use crate::entries::{self, EntryKind, LoaderEntry};
use crate::error::DiscoverError;
use crate::kernel::{Linux, SourceFile};

/// An opened disk with an EFI system partition. Nothing is known yet of what it boots.
pub struct BootDisk<R> {
    name: String,
    source: DiskSource<R>,
    esp: Fat,
}

impl BootDisk<File> {
    /// Opens a disk image or a block device for reading.
    pub fn open(path: &Path) -> Result<Self, DiscoverError> {
        let disk = path.display().to_string();
        let is_directory = path.is_dir();
        let opened = match File::open(path) {
            Ok(_) if is_directory => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            other => other,
        };
        let file = opened.map_err(|source| DiscoverError::Open {
            disk: disk.clone(),
            source,
        })?;
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
        Ok(Self { name, source, esp })
    }

    /// The disk's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What this disk would boot: the default of `loader.conf`, else the first entry of the menu.
    pub fn plan(&self) -> Result<BootPlan, DiscoverError> {
        let mut found = self.entries()?;
        entries::sort(&mut found);
        let mut candidates = Vec::with_capacity(found.len());
        for entry in &found {
            let missing = if self.exists(&entry.kernel)? {
                None
            } else {
                Some(entry.kernel.clone())
            };
            if let Some(path) = &missing {
                tracing::warn!(
                    disk = self.name,
                    entry = entry.id,
                    path,
                    "entry passed over: its kernel is missing"
                );
            }
            let (title, tries_left) = (entry.shown_title().to_owned(), entry.tries_left);
            candidates.push(Candidate {
                entry_id: entry.id.clone(),
                title,
                tries_left,
                missing,
            });
        }
        let present = |index: &usize| candidates[*index].missing.is_none();
        let bootable: Vec<usize> = (0..found.len()).filter(present).collect();
        let pattern = self
            .small_file("\\loader\\loader.conf")?
            .and_then(|c| entries::default_pattern(&c));
        let by_default = pattern.and_then(|pattern| {
            bootable
                .iter()
                .find(|&&i| entries::matches(&pattern, &found[i].id))
                .copied()
        });
        let Some(chosen) = by_default.or(bootable.first().copied()) else {
            return Err(self.nothing_to_boot(&candidates));
        };
        self.plan_entry(&found[chosen], candidates)
    }

    /// Opens a file on the ESP; blanks the difference between upper and lower case, as FAT does.
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

    fn plan_entry(&self, entry: &LoaderEntry, candidates: Vec<Candidate>) -> Result<BootPlan, DiscoverError> {
        if entry.kind != EntryKind::Linux {
            let (disk, entry, path) = (self.name.clone(), entry.id.clone(), entry.kernel.clone());
            return Err(DiscoverError::NotLinux { disk, entry, path });
        }
        for path in &entry.initrds {
            if !self.exists(path)? {
                return Err(self.missing(&entry.id, path));
            }
        }
        Ok(BootPlan {
            title: entry.shown_title().to_owned(),
            entry_id: entry.id.clone(),
            kernel: entry.kernel.clone(),
            initrds: entry.initrds.clone(),
            command_line: entry.command_line(),
            candidates,
        })
    }

    /// The entries in `loader/entries`, in the order of the directory.
    fn entries(&self) -> Result<Vec<LoaderEntry>, DiscoverError> {
        let listed = self
            .esp
            .list(&self.source, ENTRIES)
            .map_err(|e| self.read_error(ENTRIES, e))?;
        let mut found = Vec::new();
        for file in listed.unwrap_or_default() {
            let lower = file.name.to_ascii_lowercase();
            let counts =
                lower.ends_with(".conf") && !file.name.starts_with('.') && !file.name.starts_with("auto-");
            if file.is_directory || !counts {
                continue;
            }
            if found.len() == MAX_ENTRIES {
                let limit = io::Error::new(io::ErrorKind::InvalidData, "more than 512 boot loader entries");
                return Err(self.read_error(ENTRIES, limit));
            }
            let path = format!("{ENTRIES}\\{}", file.name);
            let opened = self
                .esp
                .open_entry(&self.source, &file)
                .map_err(|e| self.read_error(&path, e))?;
            found.extend(LoaderEntry::parse(&file.name, &self.content(&path, opened)?));
        }
        Ok(found)
    }

    fn exists(&self, path: &str) -> Result<bool, DiscoverError> {
        Ok(self.file(path)?.is_some())
    }

    /// A configuration file's content; `None` when it is not there.
    fn small_file(&self, path: &str) -> Result<Option<Vec<u8>>, DiscoverError> {
        self.file(path)?.map(|file| self.content(path, file)).transpose()
    }

    fn content(&self, path: &str, mut file: DiskFile<'_, R>) -> Result<Vec<u8>, DiscoverError> {
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

    fn nothing_to_boot(&self, candidates: &[Candidate]) -> DiscoverError {
        if let Some((entry, path)) = candidates
            .iter()
            .find_map(|c| Some((&c.entry_id, c.missing.as_ref()?)))
        {
            return self.missing(entry, path);
        }
        let has = |path: &str| {
            self.esp
                .list(&self.source, path)
                .ok()
                .flatten()
                .unwrap_or_default()
        };
        let named = |path: &str, end: &str| {
            has(path)
                .iter()
                .any(|e| e.name.to_ascii_lowercase().ends_with(end))
        };
        let found = if named("\\EFI\\Linux", ".efi") {
            ", only unified kernel images in EFI/Linux, which are not read yet"
        } else if has("\\EFI")
            .iter()
            .any(|e| e.is_directory && named(&format!("\\EFI\\{}", e.name), "grub.cfg"))
        {
            ", only a GRUB configuration, which is not read yet"
        } else {
            ""
        };
        DiscoverError::NoEntry {
            disk: self.name.clone(),
            found,
        }
    }

    fn missing(&self, entry: &str, path: &str) -> DiscoverError {
        let (entry, path) = (entry.to_owned(), path.to_owned());
        DiscoverError::MissingFile {
            disk: self.name.clone(),
            entry,
            path,
        }
    }

    fn read_error(&self, subject: &str, source: io::Error) -> DiscoverError {
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

const ENTRIES: &str = "\\loader\\entries";
const MAX_ENTRIES: usize = 512;
const MAX_CONFIGURATION: u64 = 64 << 10;
