//! Unified kernel images as entries of systemd-boot's menu (Boot Loader Specification type 2).

use std::io::{Read, Seek};

use super::entry::parse_tries;
use super::systemd_boot::{MAX_ENTRIES, Ranked, is_entry, too_many};
use super::{LoaderEntry, Rank};
use crate::boot_disk::BootDisk;
use crate::boot_file::{BootFile, Volume};
use crate::boot_menu::{EntrySource, LinuxFiles, MenuEntry, Verdict};
use crate::error::DiscoverError;
use crate::kernel::SourceFile;
use crate::uki::{Profile, UnifiedKernel};

/// The images in `EFI/Linux`, in the order of the directory; each profile is an entry.
pub(super) fn unified_kernels<R: Read + Seek>(
    disk: &BootDisk<R>,
    volume: Volume,
) -> Result<Vec<Ranked>, DiscoverError> {
    let mut found = Vec::new();
    for listed in disk.list(volume, FOLDER)? {
        if listed.is_directory || !is_entry(&listed.name, ".efi") {
            continue;
        }
        let file = BootFile::new(volume, &format!("{FOLDER}\\{}", listed.name));
        let Some(mut opened) = disk.open_file(&file)? else {
            continue;
        };
        found.extend(image_entries(&mut opened, &file, &listed.name));
        if found.len() > MAX_ENTRIES {
            return Err(disk.read_error(FOLDER, too_many()));
        }
    }
    Ok(found)
}

fn image_entries(opened: &mut SourceFile<'_>, file: &BootFile, name: &str) -> Vec<Ranked> {
    let image = match UnifiedKernel::parse(opened) {
        Ok(Some(image)) => image,
        Ok(None) => return vec![passed_over(file, name, "it has no .linux section")],
        Err(error) => return vec![passed_over(file, name, &error.to_string())],
    };
    let entries = image.profiles.iter().enumerate();
    entries
        .map(|(index, profile)| entry(file, name, index, profile))
        .collect()
}

/// The entry of one profile. Those behind the first are named `FILE@ID`, or `FILE@NUMBER` where they have no id.
fn entry(file: &BootFile, name: &str, index: usize, profile: &Profile) -> Ranked {
    let (tries_left, tries_done) = parse_tries(name, ".efi").unzip();
    let mut id = name.to_ascii_lowercase();
    if index > 0 {
        let suffix = profile.id.clone().unwrap_or_else(|| index.to_string());
        id = format!("{id}@{}", suffix.to_ascii_lowercase());
    }
    let os = profile.os.clone().unwrap_or_default();
    let title = match (&os.title, &profile.title) {
        (Some(title), Some(profile)) => format!("{title} ({profile})"),
        (Some(title), None) => title.clone(),
        (None, _) => id.clone(),
    };
    let verdict = match os.title {
        None => Verdict::Skipped("its .osrel section does not name an operating system".to_owned()),
        Some(_) => files(file, profile),
    };
    // Profiles of one image keep their order.
    let rank = Rank {
        id: name.to_ascii_lowercase(),
        sort_key: os.sort_key,
        version: os.version,
        machine_id: None,
        tries_left,
        tries_done,
    };
    (rank, shown(file.volume, id, title, tries_left, verdict))
}

/// The parts of the image that `profile` boots.
pub(super) fn files(file: &BootFile, profile: &Profile) -> Verdict {
    let Some(kernel) = &profile.kernel else {
        return Verdict::Refused("its .linux section is empty".to_owned());
    };
    Verdict::Boots(LinuxFiles {
        kernel: file.with_part(kernel),
        initrds: profile.initrds.iter().map(|part| file.with_part(part)).collect(),
        command_line: profile.command_line.clone(),
    })
}

/// What a loader entry boots that names a unified kernel image; `None` when it does not.
///
/// The options of the entry stand in place of the image's own command line, as the stub has it without secure boot.
pub(super) fn of_entry(opened: &mut SourceFile<'_>, file: &BootFile, entry: &LoaderEntry) -> Option<Verdict> {
    let image = UnifiedKernel::parse(opened).ok().flatten()?;
    if !entry.initrds.is_empty() {
        return Some(Verdict::Refused(
            "it gives initrds to a unified kernel image, which has its own".to_owned(),
        ));
    }
    let mut verdict = files(file, image.profiles.first()?);
    if let (Verdict::Boots(files), Some(options)) = (&mut verdict, &entry.options) {
        files.command_line.clone_from(options);
    }
    Some(verdict)
}

fn passed_over(file: &BootFile, name: &str, reason: &str) -> Ranked {
    let id = name.to_ascii_lowercase();
    let rank = Rank {
        id: id.clone(),
        ..Rank::default()
    };
    let verdict = Verdict::Skipped(reason.to_owned());
    (rank, shown(file.volume, id.clone(), id, None, verdict))
}

fn shown(volume: Volume, id: String, title: String, tries_left: Option<u32>, verdict: Verdict) -> MenuEntry {
    MenuEntry {
        source: EntrySource::UnifiedKernel,
        volume,
        id,
        title,
        tries_left,
        verdict,
    }
}

pub(super) const FOLDER: &str = "\\EFI\\Linux";
