//! GRUB as a source of the boot menu: its configuration is run as GRUB runs it, up to what every entry would start.
//!
//! From `EFI/*/grub.cfg` on the ESP the script leads to the real configuration, mostly on another file system. Nothing is executed
//! and nothing written. Where the outcome hangs on what the disk does not tell, the choice is left open and the entries are listed.

mod bls;
mod commands;
mod condition;
mod device;
mod environment;
mod ignored;
mod lexer;
mod load;
mod machine;
mod menu;
mod notes;
mod script;
mod volumes;
mod words;

use std::io::{Read, Seek};

use crate::boot_disk::BootDisk;
use crate::boot_file::Volume;
use crate::boot_menu::{Choice, EntrySource, LoaderMenu, MenuEntry, Verdict};
use environment::Environment;
use machine::Machine;
use menu::Menu;
use volumes::{DiskVolumes, Volumes};

/// What GRUB would show, and start. Nothing when there is no GRUB on the disk.
pub(crate) fn grub<R: Read + Seek>(disk: &BootDisk<R>) -> LoaderMenu {
    let mut found = LoaderMenu {
        entries: Vec::new(),
        choice: Choice::Undecided { why: String::new() },
        warnings: Vec::new(),
    };
    let Some(installation) = Installation::find(disk) else {
        return found;
    };
    let volumes = DiskVolumes::new(disk);
    found.warnings.extend(disk.file_system_notes().iter().cloned());
    let mut menus: Vec<(Menu, Vec<String>)> = Vec::new();
    for start in installation.starts(&volumes) {
        let run = run(&volumes, installation.platform, &start);
        found.warnings.extend(run.warnings);
        match run.menu {
            Some(menu) if menus.iter().all(|(known, _)| known.file != menu.file) => {
                menus.push((menu, run.doubts))
            }
            Some(_) => {}
            None if run.doubts.is_empty() => {
                let (device, directory) = (start.device, start.directory);
                let text = format!("GRUB's configuration ({device}){directory}/grub.cfg leads to no menu");
                found.warnings.push(text);
            }
            None => found.warnings.extend(run.doubts),
        }
    }
    found.warnings.dedup();
    found.choice = choice(&menus);
    for (menu, _) in &menus {
        let volume = volume_of(&volumes, &menu.file);
        found
            .entries
            .extend(menu.leaves().into_iter().map(|leaf| MenuEntry {
                source: EntrySource::Grub,
                volume,
                id: leaf.id,
                title: leaf.title,
                tries_left: None,
                verdict: match leaf.files {
                    Ok(files) => Verdict::Boots(files.clone()),
                    Err(reason) => Verdict::Refused(reason.clone()),
                },
            }));
    }
    found
}

/// GRUB's default, unless the script cannot be followed for sure or the firmware could start several.
fn choice(menus: &[(Menu, Vec<String>)]) -> Choice {
    let undecided = |why: &str| Choice::Undecided { why: why.to_owned() };
    match menus {
        [] => undecided("GRUB is on the disk, but its configuration leads to no menu"),
        [(menu, doubts)] => match (doubts.first(), menu.chosen()) {
            (Some(doubt), _) => undecided(&format!("in {}, {doubt}", menu.file)),
            (None, Ok((index, why))) => Choice::Entry { index, why },
            (None, Err(why)) => undecided(&why),
        },
        [(first, _), (second, _), ..] => undecided(&format!(
            "firmware may start GRUB with {} or with {}, as its variables say",
            first.file, second.file
        )),
    }
}

/// What running a configuration came to.
struct Run {
    menu: Option<Menu>,
    doubts: Vec<String>,
    warnings: Vec<String>,
}

/// Where GRUB begins: the device and directory of its first configuration file.
struct Start {
    device: String,
    directory: String,
}

fn run(volumes: &dyn Volumes, platform: &str, start: &Start) -> Run {
    let prefix = format!("({}){}", start.device, start.directory);
    let file = format!("{prefix}/grub.cfg");
    let mut machine = Machine::new(volumes, Environment::new(platform));
    let outcome = machine.begin(&start.device, &prefix, &file);
    let mut doubts = machine.doubts;
    if let Err(error) = outcome {
        doubts.push(format!(
            "GRUB's configuration cannot be followed from {file} on: {error}"
        ));
    }
    Run {
        menu: machine.shown,
        doubts,
        warnings: machine.warnings,
    }
}

/// How GRUB is on the disk.
struct Installation {
    platform: &'static str,
    /// Directories in EFI on the ESP that have a configuration file.
    stubs: Vec<String>,
}

impl Installation {
    fn find<R: Read + Seek>(disk: &BootDisk<R>) -> Option<Self> {
        if !disk.has_esp() {
            // Installed for a BIOS, in sectors that belong to no file system.
            return Some(Self {
                platform: "pc",
                stubs: Vec::new(),
            });
        }
        let list = |path: &str| disk.list(Volume::Esp, path).unwrap_or_default();
        let directories: Vec<String> = list("\\EFI")
            .into_iter()
            .filter(|file| file.is_directory && !file.name.starts_with('.'))
            .map(|file| file.name)
            .take(MAX_DIRECTORIES)
            .collect();
        let has = |directory: &String, named: &dyn Fn(&str) -> bool| {
            let files = list(&format!("\\EFI\\{directory}"));
            files
                .iter()
                .any(|file| !file.is_directory && named(&file.name.to_ascii_lowercase()))
        };
        let mut stubs = directories.clone();
        stubs.retain(|directory| has(directory, &|name| name == "grub.cfg"));
        // The fallback for a firmware without variables is a copy of another one, where there is another one.
        if stubs.len() > 1 {
            stubs.retain(|directory| !directory.eq_ignore_ascii_case("BOOT"));
        }
        let is_program = |name: &str| name.starts_with("grub") && name.ends_with(".efi");
        let is_there = !stubs.is_empty() || directories.iter().any(|directory| has(directory, &is_program));
        is_there.then_some(Self {
            platform: "efi",
            stubs,
        })
    }

    /// The stubs; without any, the program itself knows where its configuration is, and it is looked for where it always is.
    fn starts(&self, volumes: &dyn Volumes) -> Vec<Start> {
        let esp = volumes.volumes().iter().find(|found| found.volume == Volume::Esp);
        let device = esp.map(|found| found.device.clone()).unwrap_or_default();
        if !self.stubs.is_empty() {
            let start = |directory: &String| Start {
                device: device.clone(),
                directory: format!("/EFI/{directory}"),
            };
            return self.stubs.iter().map(start).collect();
        }
        let mut found = Vec::new();
        for (index, volume) in volumes.volumes().iter().enumerate() {
            for directory in ["/boot/grub", "/boot/grub2", "/grub", "/grub2"] {
                if matches!(
                    volumes.look(index, &format!("{directory}/grub.cfg")),
                    Ok(Some(Some(_)))
                ) {
                    found.push(Start {
                        device: volume.device.clone(),
                        directory: directory.to_owned(),
                    });
                }
            }
        }
        found
    }
}

fn volume_of(volumes: &dyn Volumes, file: &str) -> Volume {
    let device = file.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let found = volumes
        .volumes()
        .iter()
        .find(|volume| device.is_some_and(|(name, _)| name == volume.device));
    found.map_or(Volume::Esp, |volume| volume.volume)
}

const MAX_DIRECTORIES: usize = 64;
