//! What a disk would boot and why, for people and for programs. The disk is only read, and neither KVM nor devices are needed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use pellucid::CheckWarning;
use pellucid::image::{
    BootDisk, BootFile, BootMenu, BootPlan, Choice, DiscoverError, DiskImage, EntrySource, InitrdModules,
    MenuEntry, Presence,
};
use serde_json::json;

use crate::{Outcome, Status};

#[derive(Args)]
pub(crate) struct BootPlanArguments {
    /// The disk: an image file or a block device, only read
    disk: PathBuf,
    /// Show what this entry of its menu boots, by its id
    #[arg(long, value_name = "ID")]
    entry: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the menu and the plan; a disk from which nothing would be booted is refused after its menu was shown.
pub(crate) fn print(arguments: &BootPlanArguments) -> Outcome {
    let disk = BootDisk::open(&arguments.disk)?;
    let menu = disk.menu()?;
    let plan = disk.plan_of(menu.clone(), arguments.entry.as_deref());
    let drivers = plan.as_ref().ok();
    let drivers = drivers
        .map(|plan| Drivers::of(&disk, plan, &arguments.disk))
        .transpose()?;
    let of_drivers = drivers.iter().flat_map(|drivers| &drivers.warnings);
    let warnings: Vec<&String> = menu.warnings.iter().chain(of_drivers).collect();
    if arguments.json {
        let refusal = plan.as_ref().err().map(ToString::to_string);
        let plan = plan.as_ref().ok().map(without_menu);
        let drivers = drivers.as_ref().map(|drivers| &drivers.known);
        say!(
            "{:#}",
            json!({ "disk": disk.name(), "boots": plan, "drivers": drivers, "menu": menu, "warnings": warnings, "refusal": refusal })
        );
    } else {
        if let Ok(plan) = &plan {
            print_plan(&disk, plan)?;
        }
        if let Some(drivers) = &drivers {
            say!("drivers  {}", drivers.text());
        }
        print_menu(&menu);
        for warning in warnings {
            say!("warning  {warning}");
        }
    }
    match plan {
        Ok(_) => Ok(Status::Done),
        Err(refusal) => {
            tell!("vmm: {refusal}");
            Ok(Status::HostFailed)
        }
    }
}

/// The menu stands beside the plan.
fn without_menu(plan: &BootPlan) -> serde_json::Value {
    json!({ "entry": plan.entry_id, "title": plan.title, "why": plan.why, "kernel": plan.kernel,
            "initrds": plan.initrds, "command_line": plan.command_line })
}

fn print_plan(disk: &BootDisk<DiskImage>, plan: &BootPlan) -> Result<(), DiscoverError> {
    say!("boots    {} ({})", plan.title, plan.entry_id);
    say!("because  {}", plan.why);
    let size = |file: &BootFile| {
        Ok(disk
            .open_file(file)?
            .map_or(0, |opened| opened.size().div_ceil(1024)))
    };
    say!("kernel   {}, {} KiB", plan.kernel, size(&plan.kernel)?);
    for initrd in &plan.initrds {
        say!("initrd   {initrd}, {} KiB", size(initrd)?);
    }
    say!("cmdline  {}", plan.command_line);
    Ok(())
}

fn print_menu(menu: &BootMenu) {
    for (index, entry) in menu.entries.iter().enumerate() {
        let is_chosen = matches!(menu.choice, Choice::Entry { index: chosen, .. } if chosen == index);
        let mark = if is_chosen { '*' } else { ' ' };
        say!(
            "entry  {mark} {} | {} | {}",
            entry.full_id(),
            entry.title,
            note(entry)
        );
    }
}

/// Which storage drivers the kernel has when it looks for its root.
struct Drivers {
    /// By name, whether a module of the initrd or built in.
    known: BTreeMap<&'static str, &'static str>,
    warnings: Vec<String>,
}

impl Drivers {
    /// Reads the initrds of `plan`. A block device tells which controller is above it, so its drivers must be among them.
    fn of(disk: &BootDisk<DiskImage>, plan: &BootPlan, path: &Path) -> Result<Self, DiscoverError> {
        let modules = InitrdModules::survey(&mut disk.linux(plan)?.initrds, &[]);
        let known = COMMON.iter().filter_map(|name| match modules.presence(name) {
            Presence::Module => Some((*name, "module")),
            Presence::BuiltIn => Some((*name, "built in")),
            Presence::Missing | Presence::Unknown => None,
        });
        let mut warnings: Vec<String> = modules.unread().map(str::to_owned).into_iter().collect();
        if let Some((bdf, controller)) = pellucid::controller_of(path) {
            let missing = controller.missing(&modules);
            if !missing.is_empty() {
                let warning = CheckWarning::NoRootDriver {
                    device: bdf,
                    controller,
                    missing: missing.join(", "),
                };
                warnings.push(warning.to_string());
            }
        }
        Ok(Self {
            known: known.collect(),
            warnings,
        })
    }

    fn text(&self) -> String {
        let shown = |(name, how): (&&str, &&str)| match *how {
            "module" => (*name).to_owned(),
            how => format!("{name} ({how})"),
        };
        match self.known.is_empty() {
            true => "none that the initrd tells of".to_owned(),
            false => self.known.iter().map(shown).collect::<Vec<_>>().join(", "),
        }
    }
}

/// Drivers that roots of servers are found by.
const COMMON: [&str; 10] = [
    "nvme",
    "ahci",
    "aacraid",
    "virtio_blk",
    "virtio_scsi",
    "mpt3sas",
    "megaraid_sas",
    "smartpqi",
    "hpsa",
    "vmw_pvscsi",
];

fn note(entry: &MenuEntry) -> String {
    let source = match entry.source {
        EntrySource::LoaderEntry => "loader entry",
        EntrySource::UnifiedKernel => "unified kernel image",
        EntrySource::Grub => "GRUB",
        EntrySource::FallbackProgram => "fallback program",
    };
    match (entry.obstacle(), entry.tries_left) {
        (Some(reason), _) => format!("{source}, cannot be booted: {reason}"),
        (None, Some(left)) => format!("{source}, {left} boot attempts left"),
        (None, None) => source.to_owned(),
    }
}
