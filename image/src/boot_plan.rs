//! What a disk would boot: chosen as its boot loader chooses, kept as a plain value.

use std::io::{self, Read, Seek};

use serde::{Deserialize, Serialize};

use crate::boot_disk::BootDisk;
use crate::entries::{self, EntryKind, LoaderEntry};
use crate::error::DiscoverError;

/// What a disk would boot, as its own boot loader would choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPlan {
    /// What the boot menu shows.
    pub title: String,
    /// The entry's name, in lower case.
    pub entry_id: String,
    /// Path of the kernel on the ESP.
    pub kernel: String,
    /// Paths of the initrds on the ESP, in order.
    pub initrds: Vec<String>,
    /// The command line, as the kernel finds it in `/proc/cmdline`.
    pub command_line: String,
    /// All entries in menu order, the chosen one among them.
    pub candidates: Vec<Candidate>,
}

/// One line of the boot menu.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The entry's name, in lower case.
    pub entry_id: String,
    /// What the menu shows.
    pub title: String,
    /// Boot attempts left, if they are counted.
    pub tries_left: Option<u32>,
    /// The kernel that the entry names but the ESP does not have: the boot loader passes over such an entry.
    pub missing: Option<String>,
}

impl<R: Read + Seek> BootDisk<R> {
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
        for passed in candidates.iter().filter(|candidate| candidate.missing.is_some()) {
            tracing::warn!(
                disk = self.name,
                entry = passed.entry_id,
                path = passed.missing,
                "entry passed over: its kernel is missing"
            );
        }
        if self.has_extended || self.has_unified_kernels() {
            tracing::warn!(
                disk = self.name,
                "its boot loader also sees entries that are not read (XBOOTLDR, EFI/Linux)"
            );
        }
        self.plan_entry(&found[chosen], candidates)
    }

    fn plan_entry(&self, entry: &LoaderEntry, candidates: Vec<Candidate>) -> Result<BootPlan, DiscoverError> {
        if entry.kind != EntryKind::Linux {
            let (disk, entry, path) = (self.name.clone(), entry.id.clone(), entry.kernel.clone());
            return Err(DiscoverError::NotLinux { disk, entry, path });
        }
        if entry.initrds.len() > MAX_INITRDS {
            let limit = io::Error::new(io::ErrorKind::InvalidData, "it names more than 64 initrds");
            return Err(self.read_error(&format!("{ENTRIES}\\{}", entry.id), limit));
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
        let has_grub = || {
            has("\\EFI")
                .iter()
                .any(|e| e.is_directory && named(&format!("\\EFI\\{}", e.name), "grub.cfg"))
        };
        let found = if self.has_unified_kernels() {
            ", only unified kernel images in EFI/Linux, which are not read yet"
        } else if self.has_extended {
            ", and the extended boot loader partition (XBOOTLDR) beside it is not read yet"
        } else if has_grub() {
            ", only a GRUB configuration, which is not read yet"
        } else {
            ""
        };
        DiscoverError::NoEntry {
            disk: self.name.clone(),
            found,
        }
    }

    fn has_unified_kernels(&self) -> bool {
        let listed = self
            .esp
            .list(&self.source, "\\EFI\\Linux")
            .ok()
            .flatten()
            .unwrap_or_default();
        listed
            .iter()
            .any(|file| file.name.to_ascii_lowercase().ends_with(".efi"))
    }
}

const ENTRIES: &str = "\\loader\\entries";
const MAX_ENTRIES: usize = 512;
const MAX_INITRDS: usize = 64;
