//! systemd-boot as a source of the boot menu: its entries of both types on the ESP and on XBOOTLDR, in its order, and the one that
//! it would start.

use std::io::{self, Read, Seek};

use super::unified::{self, unified_kernels};
use super::{EntryKind, LoaderEntry, Rank, default_pattern, matches};
use crate::boot_disk::BootDisk;
use crate::boot_file::{BootFile, Volume};
use crate::boot_menu::{Choice, EntrySource, LinuxFiles, LoaderMenu, MenuEntry, Verdict};
use crate::error::DiscoverError;

/// An entry with what its place in the menu depends on.
pub(super) type Ranked = (Rank, MenuEntry);

/// What systemd-boot would show, and start.
pub(crate) fn systemd_boot<R: Read + Seek>(disk: &BootDisk<R>) -> Result<LoaderMenu, DiscoverError> {
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    for volume in [Volume::Esp, Volume::Xbootldr] {
        found.extend(unified_kernels(disk, volume)?);
        found.extend(loader_entries(disk, volume)?);
        warnings.extend(addons(disk, volume)?);
    }
    found.sort_by(|(a, _), (b, _)| a.compare(b));
    let entries: Vec<MenuEntry> = found.into_iter().map(|(_, entry)| entry).collect();
    let configuration = disk.small_file(Volume::Esp, "\\loader\\loader.conf")?;
    let pattern = configuration.and_then(|content| default_pattern(&content));
    if let Some(Err(error)) = disk.extended() {
        warnings.push(format!(
            "the extended boot loader partition (XBOOTLDR) cannot be read: {error}"
        ));
    }
    Ok(LoaderMenu {
        choice: choose(&entries, pattern.as_deref()),
        warnings,
        entries,
    })
}

/// The default of `loader.conf`, else the first entry of the menu.
fn choose(entries: &[MenuEntry], pattern: Option<&str>) -> Choice {
    let is_shown = |(_, entry): &(usize, &MenuEntry)| !matches!(entry.verdict, Verdict::Skipped(_));
    let shown = || entries.iter().enumerate().filter(is_shown);
    let by_default = pattern.and_then(|pattern| {
        let (index, _) = shown().find(|(_, entry)| matches(pattern, &entry.id))?;
        Some((index, format!("the default of loader.conf ({pattern})")))
    });
    let first = || {
        Some((
            shown().next()?.0,
            "the first entry of systemd-boot's menu".to_owned(),
        ))
    };
    match by_default.or_else(first) {
        Some((index, why)) => Choice::Entry { index, why },
        None => Choice::Undecided {
            why: "systemd-boot passes over all of its entries".to_owned(),
        },
    }
}

/// The entries in `loader/entries`, in the order of the directory.
fn loader_entries<R: Read + Seek>(disk: &BootDisk<R>, volume: Volume) -> Result<Vec<Ranked>, DiscoverError> {
    let mut found = Vec::new();
    for file in disk.list(volume, ENTRIES)? {
        if file.is_directory || !is_entry(&file.name, ".conf") {
            continue;
        }
        if found.len() == MAX_ENTRIES {
            return Err(disk.read_error(ENTRIES, too_many()));
        }
        let path = format!("{ENTRIES}\\{}", file.name);
        let content = disk.content(volume, &path, &file)?;
        if let Some(entry) = LoaderEntry::parse(&file.name, &content) {
            let shown = MenuEntry {
                source: EntrySource::LoaderEntry,
                volume,
                id: entry.id.clone(),
                title: entry.shown_title().to_owned(),
                tries_left: entry.tries_left,
                verdict: verdict(disk, volume, &entry)?,
            };
            found.push((entry.rank(), shown));
        }
    }
    Ok(found)
}

/// Whether systemd-boot reads a file of this name as an entry.
pub(super) fn is_entry(name: &str, end: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.ends_with(end) && !lower.starts_with('.') && !lower.starts_with("auto-")
}

pub(super) fn too_many() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "more than 512 boot loader entries")
}

fn verdict<R: Read + Seek>(
    disk: &BootDisk<R>,
    volume: Volume,
    entry: &LoaderEntry,
) -> Result<Verdict, DiscoverError> {
    let kernel = BootFile::new(volume, &entry.kernel);
    let Some(mut opened) = disk.open_file(&kernel)? else {
        return Ok(Verdict::Skipped(format!(
            "it names {}, which is missing",
            entry.kernel
        )));
    };
    if entry.initrds.len() > MAX_INITRDS {
        return Ok(Verdict::Refused(format!(
            "it names more than {MAX_INITRDS} initrds"
        )));
    }
    if let Some(verdict) = unified::of_entry(&mut opened, &kernel, entry) {
        return Ok(verdict);
    }
    if entry.kind != EntryKind::Linux {
        return Ok(Verdict::Refused(format!(
            "it starts the EFI program {}, which needs firmware",
            entry.kernel
        )));
    }
    for path in &entry.initrds {
        if !disk.exists(volume, path)? {
            return Ok(Verdict::Refused(format!(
                "it names the initrd {path}, which is missing"
            )));
        }
    }
    Ok(Verdict::Boots(LinuxFiles {
        kernel,
        initrds: entry
            .initrds
            .iter()
            .map(|path| BootFile::new(volume, path))
            .collect(),
        command_line: entry.command_line(),
    }))
}

/// What systemd's stub adds to unified kernels, and this crate does not.
fn addons<R: Read + Seek>(disk: &BootDisk<R>, volume: Volume) -> Result<Vec<String>, DiscoverError> {
    let mut found = Vec::new();
    let is_extra = |name: &str| name.to_ascii_lowercase().ends_with(".efi.extra.d");
    for file in disk.list(volume, unified::FOLDER)? {
        if file.is_directory && is_extra(&file.name) {
            found.push(format!("{volume}:{}\\{}", unified::FOLDER, file.name));
        }
    }
    for folder in ["\\loader\\addons", "\\loader\\credentials"] {
        if disk.list(volume, folder)?.iter().any(|file| !file.is_directory) {
            found.push(format!("{volume}:{folder}"));
        }
    }
    let told =
        |place| format!("{place} has add-ons or credentials for unified kernels, which are not applied");
    Ok(found.into_iter().map(told).collect())
}

const ENTRIES: &str = "\\loader\\entries";
pub(super) const MAX_ENTRIES: usize = 512;
const MAX_INITRDS: usize = 64;
