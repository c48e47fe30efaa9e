//! The program that firmware starts from a disk which it knows nothing about: `EFI/BOOT/BOOTX64.EFI`. It is told what it is, and
//! booted where it is a Linux kernel itself.

use std::io::{Read, Seek};

use super::unified;
use crate::boot_disk::BootDisk;
use crate::boot_file::{BootFile, FilePart, Volume};
use crate::boot_menu::{Choice, EntrySource, LinuxFiles, LoaderMenu, MenuEntry, Verdict};
use crate::error::DiscoverError;
use crate::kernel::{BzImageHeader, SourceFile};
use crate::uki::{Program, UkiError, UnifiedKernel};

/// The fallback program as the only entry of a menu; no entry without one.
pub(crate) fn fallback_program<R: Read + Seek>(disk: &BootDisk<R>) -> Result<LoaderMenu, DiscoverError> {
    let file = BootFile::new(Volume::Esp, PATH);
    let mut entries = Vec::new();
    if let Some(mut opened) = disk.open_file(&file)? {
        let verdict = verdict(&mut opened, &file).unwrap_or_else(|error| Verdict::Refused(error.to_string()));
        entries.push(MenuEntry {
            source: EntrySource::FallbackProgram,
            volume: Volume::Esp,
            id: "bootx64.efi".to_owned(),
            title: PATH.to_owned(),
            tries_left: None,
            verdict,
        });
    }
    Ok(LoaderMenu {
        entries,
        choice: Choice::Entry {
            index: 0,
            why: "firmware starts it from a disk that it does not know".to_owned(),
        },
        warnings: vendors(disk)?,
    })
}

/// Whose boot loaders are there, where no menu of theirs was found.
fn vendors<R: Read + Seek>(disk: &BootDisk<R>) -> Result<Vec<String>, DiscoverError> {
    let listed = disk.list(Volume::Esp, "\\EFI")?;
    let folders = listed
        .iter()
        .filter(|file| file.is_directory && !file.name.starts_with('.'));
    let names: Vec<&str> = folders.map(|file| file.name.as_str()).take(8).collect();
    Ok(match names[..] {
        [] => Vec::new(),
        _ => vec![format!("its EFI folder has {}", names.join(", "))],
    })
}

fn verdict(opened: &mut SourceFile<'_>, file: &BootFile) -> Result<Verdict, UkiError> {
    let program = Program::parse(opened)?;
    let unified = UnifiedKernel::of(&program, opened)?;
    if let Some(profile) = unified.as_ref().and_then(|image| image.profiles.first()) {
        return Ok(unified::files(file, profile));
    }
    let mut start = [0; BzImageHeader::SPAN];
    let count = opened.read_at(0, &mut start)?;
    if BzImageHeader::is_present(&start[..count]) {
        return Ok(Verdict::Boots(LinuxFiles {
            kernel: file.clone(),
            initrds: Vec::new(),
            command_line: String::new(),
        }));
    }
    let name = name(&program, opened)?;
    Ok(Verdict::Refused(format!(
        "it is {name}, for which nothing to boot was found"
    )))
}

/// What a boot loader says that it is: systemd-boot in a section of its own, others where revocations look (SBAT).
fn name(program: &Program, opened: &mut SourceFile<'_>) -> Result<String, UkiError> {
    let mut text = |section: Option<&FilePart>| -> Result<String, UkiError> {
        let Some(section) = section else {
            return Ok(String::new());
        };
        let mut content = vec![0; section.size.min(MAX_NAME) as usize];
        let count = opened.read_at(section.offset, &mut content)?;
        let printable = |byte: &u8| (b' '..=b'~').contains(byte) || *byte == b'\n';
        Ok(content[..count]
            .iter()
            .copied()
            .filter(printable)
            .map(char::from)
            .collect())
    };
    let magic = text(program.section(".sdmagic"))?;
    if let Some((_, named)) = magic.split_once("LoaderInfo: ") {
        return Ok(named.split(" ####").next().unwrap_or(named).to_owned());
    }
    let revocations = text(program.section(".sbat"))?;
    let component = revocations
        .lines()
        .skip(1)
        .find_map(|line| line.split(',').next());
    Ok(match component {
        Some("grub") => "GRUB".to_owned(),
        Some("shim") => "shim, which starts another boot loader".to_owned(),
        Some(other) if !other.is_empty() => format!("the EFI program {other:?}"),
        _ => "an EFI program that does not say its name".to_owned(),
    })
}

const PATH: &str = "\\EFI\\BOOT\\BOOTX64.EFI";
const MAX_NAME: u64 = 4096;
