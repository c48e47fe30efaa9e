//! What a disk would boot: chosen as its boot loader chooses, or by name, and kept as a plain value.

use std::io::{Read, Seek};

use serde::{Deserialize, Serialize};

use crate::boot_disk::BootDisk;
use crate::boot_file::BootFile;
use crate::boot_menu::{BootMenu, Choice, MenuEntry, Verdict};
use crate::error::DiscoverError;

/// What a disk would boot. Its kernel and initrds are there; nothing of them has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPlan {
    /// What the boot menu shows.
    pub title: String,
    /// The entry's name, as its boot loader has it.
    pub entry_id: String,
    /// Why this entry.
    pub why: String,
    /// The kernel.
    pub kernel: BootFile,
    /// The initrds, in order.
    pub initrds: Vec<BootFile>,
    /// The command line, as the kernel finds it in `/proc/cmdline`.
    pub command_line: String,
    /// All entries, the chosen one among them.
    pub menu: BootMenu,
}

impl<R: Read + Seek> BootDisk<R> {
    /// What this disk would boot by itself.
    pub fn plan(&self) -> Result<BootPlan, DiscoverError> {
        self.plan_of(self.menu()?, None)
    }

    /// What this disk boots when the entry `wanted` is chosen at its menu: an id, or a volume and an id (`xbootldr:debian.conf`)
    /// where several entries have that id.
    pub fn plan_entry(&self, wanted: &str) -> Result<BootPlan, DiscoverError> {
        self.plan_of(self.menu()?, Some(wanted))
    }

    /// The plan for a menu that was read before: of the entry `wanted`, or of the one that the disk would start.
    pub fn plan_of(&self, menu: BootMenu, wanted: Option<&str>) -> Result<BootPlan, DiscoverError> {
        let (entry, why) = match wanted {
            Some(wanted) => (self.asked(&menu, wanted)?, "asked for by name".to_owned()),
            None => self.chosen(&menu)?,
        };
        let files = match &entry.verdict {
            Verdict::Boots(files) => files.clone(),
            Verdict::Skipped(reason) | Verdict::Refused(reason) => {
                return Err(DiscoverError::NotBootable {
                    disk: self.name().to_owned(),
                    entry: entry.full_id(),
                    reason: reason.clone(),
                    entries: menu.summary(),
                });
            }
        };
        Ok(BootPlan {
            title: entry.title.clone(),
            entry_id: entry.id.clone(),
            why,
            kernel: files.kernel,
            initrds: files.initrds,
            command_line: files.command_line,
            menu,
        })
    }

    fn asked<'m>(&self, menu: &'m BootMenu, wanted: &str) -> Result<&'m MenuEntry, DiscoverError> {
        match menu.named(wanted)[..] {
            [entry] => Ok(entry),
            [] if menu.entries.is_empty() => Err(self.nothing(menu)),
            ref others => Err(DiscoverError::NoSuchEntry {
                disk: self.name().to_owned(),
                wanted: wanted.to_owned(),
                found: others.len(),
                entries: menu.summary(),
            }),
        }
    }

    fn chosen<'m>(&self, menu: &'m BootMenu) -> Result<(&'m MenuEntry, String), DiscoverError> {
        let undecided = |why: &str| DiscoverError::Undecided {
            disk: self.name().to_owned(),
            why: why.to_owned(),
            entries: menu.summary(),
        };
        match &menu.choice {
            _ if menu.entries.is_empty() => Err(self.nothing(menu)),
            Choice::Undecided { why } => Err(undecided(why)),
            Choice::Entry { index, why } => match menu.entries.get(*index) {
                Some(entry) => Ok((entry, why.clone())),
                None => Err(undecided("its menu is shorter than its choice")),
            },
        }
    }

    fn nothing(&self, menu: &BootMenu) -> DiscoverError {
        DiscoverError::NoEntry {
            disk: self.name().to_owned(),
            found: menu
                .warnings
                .iter()
                .map(|warning| format!(", {warning}"))
                .collect(),
        }
    }
}
