//! systemd-boot as a source of the boot menu: its entries on the ESP, in its order, and the one that it would start.

use std::io::{self, Read, Seek};

use super::{EntryKind, LoaderEntry, default_pattern, matches, sort};
use crate::boot_disk::BootDisk;
use crate::boot_file::{BootFile, Volume};
use crate::boot_menu::{Choice, EntrySource, LinuxFiles, LoaderMenu, MenuEntry, Verdict};
use crate::error::DiscoverError;

/// What systemd-boot would show, and start.
pub(crate) fn systemd_boot<R: Read + Seek>(disk: &BootDisk<R>) -> Result<LoaderMenu, DiscoverError> {
    let mut found = loader_entries(disk, Volume::Esp)?;
    sort(&mut found);
    let entries: Vec<MenuEntry> = found
        .iter()
        .map(|entry| menu_entry(disk, Volume::Esp, entry))
        .collect::<Result<_, _>>()?;
    let configuration = disk.small_file(Volume::Esp, "\\loader\\loader.conf")?;
    let pattern = configuration.and_then(|content| default_pattern(&content));
    Ok(LoaderMenu {
        choice: choose(&entries, pattern.as_deref()),
        warnings: warnings(disk, &entries),
        entries,
    })
}

/// The default of `loader.conf`, else the first entry of the menu.
fn choose(entries: &[MenuEntry], pattern: Option<&str>) -> Choice {
    let shown = || {
        entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| !matches!(entry.verdict, Verdict::Skipped(_)))
    };
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

fn menu_entry<R: Read + Seek>(
    disk: &BootDisk<R>,
    volume: Volume,
    entry: &LoaderEntry,
) -> Result<MenuEntry, DiscoverError> {
    Ok(MenuEntry {
        source: EntrySource::LoaderEntry,
        volume,
        id: entry.id.clone(),
        title: entry.shown_title().to_owned(),
        tries_left: entry.tries_left,
        verdict: verdict(disk, volume, entry)?,
    })
}

fn verdict<R: Read + Seek>(
    disk: &BootDisk<R>,
    volume: Volume,
    entry: &LoaderEntry,
) -> Result<Verdict, DiscoverError> {
    if !disk.exists(volume, &entry.kernel)? {
        return Ok(Verdict::Skipped(format!(
            "it names {}, which is missing",
            entry.kernel
        )));
    }
    if entry.kind != EntryKind::Linux {
        return Ok(Verdict::Refused(format!(
            "it starts the EFI program {}, which needs firmware",
            entry.kernel
        )));
    }
    if entry.initrds.len() > MAX_INITRDS {
        return Ok(Verdict::Refused(format!(
            "it names more than {MAX_INITRDS} initrds"
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
        kernel: BootFile::new(volume, &entry.kernel),
        initrds: entry
            .initrds
            .iter()
            .map(|path| BootFile::new(volume, path))
            .collect(),
        command_line: entry.command_line(),
    }))
}

/// The entries in `loader/entries`, in the order of the directory.
fn loader_entries<R: Read + Seek>(
    disk: &BootDisk<R>,
    volume: Volume,
) -> Result<Vec<LoaderEntry>, DiscoverError> {
    let mut found = Vec::new();
    for file in disk.list(volume, ENTRIES)? {
        let lower = file.name.to_ascii_lowercase();
        let hidden = lower.starts_with('.') || lower.starts_with("auto-");
        if file.is_directory || hidden || !lower.ends_with(".conf") {
            continue;
        }
        if found.len() == MAX_ENTRIES {
            let limit = io::Error::new(io::ErrorKind::InvalidData, "more than 512 boot loader entries");
            return Err(disk.read_error(ENTRIES, limit));
        }
        let path = format!("{ENTRIES}\\{}", file.name);
        let content = disk.content(volume, &path, &file)?;
        found.extend(LoaderEntry::parse(&file.name, &content));
    }
    Ok(found)
}

/// What else the disk has, and is not read.
fn warnings<R: Read + Seek>(disk: &BootDisk<R>, entries: &[MenuEntry]) -> Vec<String> {
    let named = |path: &str, end: &str| {
        let listed = disk.list(Volume::Esp, path).unwrap_or_default();
        listed.iter().any(|e| e.name.to_ascii_lowercase().ends_with(end))
    };
    let mut found = Vec::new();
    if named("\\EFI\\Linux", ".efi") {
        found.push("unified kernel images in EFI/Linux are not read yet".to_owned());
    }
    match disk.extended() {
        None => {}
        Some(Ok(_)) => found.push("the extended boot loader partition (XBOOTLDR) is not read yet".to_owned()),
        Some(Err(error)) => found.push(format!(
            "the extended boot loader partition (XBOOTLDR) cannot be read: {error}"
        )),
    }
    let directories = disk.list(Volume::Esp, "\\EFI").unwrap_or_default();
    let mut directories = directories.iter().filter(|file| file.is_directory);
    if entries.is_empty() && directories.any(|file| named(&format!("\\EFI\\{}", file.name), "grub.cfg")) {
        found.push("a GRUB configuration is not read yet".to_owned());
    }
    found
}

const ENTRIES: &str = "\\loader\\entries";
const MAX_ENTRIES: usize = 512;
const MAX_INITRDS: usize = 64;
