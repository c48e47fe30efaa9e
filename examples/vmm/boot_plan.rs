//! What a disk would boot and why, for people and for programs. The disk is only read, and neither KVM nor devices are needed.

use std::path::PathBuf;

use clap::Args;
use pellucid::image::{
    BootDisk, BootFile, BootMenu, BootPlan, Choice, DiscoverError, DiskImage, EntrySource, MenuEntry,
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
    if arguments.json {
        let refusal = plan.as_ref().err().map(ToString::to_string);
        let plan = plan.as_ref().ok().map(without_menu);
        say!(
            "{:#}",
            json!({ "disk": disk.name(), "boots": plan, "menu": menu, "refusal": refusal })
        );
    } else {
        if let Ok(plan) = &plan {
            print_plan(&disk, plan)?;
        }
        print_menu(&menu);
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
    for warning in &menu.warnings {
        say!("warning  {warning}");
    }
}

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
