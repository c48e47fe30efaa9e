//! What a disk has to boot: the entries of all its boot loaders, and which of them would be started.
//!
//! Each boot loader that is read is a *source*: a function that looks at the disk and yields a [`LoaderMenu`], its entries in the
//! order of its own menu and its own choice among them. [`BootDisk::menu`] asks every source and puts their menus one behind the
//! other; the choice is that of the first source that has an entry.

use std::io::{Read, Seek};

use serde::{Deserialize, Serialize};

use crate::boot_disk::BootDisk;
use crate::boot_file::{BootFile, Volume};
use crate::error::DiscoverError;
use crate::{entries, grub};

/// All that a disk has to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootMenu {
    /// Every entry: the menu of the boot loader that would run, then those of others on the disk.
    pub entries: Vec<MenuEntry>,
    /// Which of them would be started, and why.
    pub choice: Choice,
    /// What was noticed and is no obstacle.
    pub warnings: Vec<String>,
}

/// One line of a boot menu.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MenuEntry {
    /// What kind of configuration it is from.
    pub source: EntrySource,
    /// The file system that it was read from.
    pub volume: Volume,
    /// Its name, as its boot loader has it: systemd-boot's are file names in lower case.
    pub id: String,
    /// What the menu shows.
    pub title: String,
    /// Boot attempts left, if they are counted.
    pub tries_left: Option<u32>,
    /// Whether it can be booted.
    pub verdict: Verdict,
}

/// Where an entry is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntrySource {
    /// A text file in `loader/entries` (Boot Loader Specification type 1), listed by systemd-boot.
    LoaderEntry,
    /// A unified kernel image in `EFI/Linux` (type 2), listed by systemd-boot.
    UnifiedKernel,
    /// A `menuentry` of GRUB, or a loader entry that its `blscfg` lists.
    Grub,
    /// `EFI/BOOT/BOOTX64.EFI`, listed where there is no other entry.
    FallbackProgram,
}

/// Whether an entry can be booted here, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A Linux kernel with all its files.
    Boots(LinuxFiles),
    /// The boot loader itself passes over it, for this reason.
    Skipped(String),
    /// The boot loader would start it, but it cannot be booted here, for this reason.
    Refused(String),
}

/// A Linux kernel and what goes with it, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxFiles {
    /// The kernel.
    pub kernel: BootFile,
    /// Its initrds, in order.
    pub initrds: Vec<BootFile>,
    /// The command line, as the kernel finds it in `/proc/cmdline`.
    pub command_line: String,
}

/// What a boot loader would start without anybody at its menu.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The entry at `index` of the menu.
    Entry {
        /// Counted from 0.
        index: usize,
        /// Why this one.
        why: String,
    },
    /// It cannot be told from the disk.
    Undecided {
        /// Why not.
        why: String,
    },
}

/// One boot loader's part of the menu, as its source found it: `choice` counts in `entries`.
#[derive(Debug)]
pub(crate) struct LoaderMenu {
    pub(crate) entries: Vec<MenuEntry>,
    pub(crate) choice: Choice,
    pub(crate) warnings: Vec<String>,
}

impl BootMenu {
    /// The entries, each by its id and, if it cannot be booted, why; on one line, not more than sixteen.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut listed: Vec<String> = self.entries.iter().take(16).map(MenuEntry::summary).collect();
        if let Some(more @ 1..) = self.entries.len().checked_sub(16) {
            listed.push(format!("and {more} more"));
        }
        listed.join(", ")
    }

    /// The entries that `wanted` names: by id, or by volume and id (`xbootldr:debian.conf`).
    pub(crate) fn named<'m>(&'m self, wanted: &str) -> Vec<&'m MenuEntry> {
        let is_it = |entry: &&MenuEntry| entry.id == wanted || entry.full_id() == wanted;
        self.entries.iter().filter(is_it).collect()
    }
}

impl MenuEntry {
    /// Why it cannot be booted; `None` when it can.
    #[must_use]
    pub fn obstacle(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Boots(_) => None,
            Verdict::Skipped(reason) | Verdict::Refused(reason) => Some(reason),
        }
    }

    /// Volume and id, as in `xbootldr:debian.conf`.
    #[must_use]
    pub fn full_id(&self) -> String {
        format!("{}:{}", self.volume, self.id)
    }

    fn summary(&self) -> String {
        match self.obstacle() {
            None => self.full_id(),
            Some(reason) => format!("{} ({reason})", self.full_id()),
        }
    }
}

impl<R: Read + Seek> BootDisk<R> {
    /// Reads the menus of all boot loaders on the disk. Nothing of an entry's files is read but whether they are there.
    pub fn menu(&self) -> Result<BootMenu, DiscoverError> {
        let mut menus = vec![entries::systemd_boot(self)?, grub::grub(self)];
        if menus.iter().all(|menu| menu.entries.is_empty()) {
            menus.push(entries::fallback_program(self)?);
        }
        let mut menu = BootMenu {
            entries: Vec::new(),
            choice: Choice::Undecided {
                why: "no boot loader on it has an entry".to_owned(),
            },
            warnings: self.notes().to_vec(),
        };
        for found in menus {
            if menu.entries.is_empty() && !found.entries.is_empty() {
                menu.choice = found.choice;
            }
            menu.entries.extend(found.entries);
            menu.warnings.extend(found.warnings);
        }
        if menu.entries.is_empty() && !self.has_esp() {
            return Err(self.no_esp());
        }
        Ok(menu)
    }
}
