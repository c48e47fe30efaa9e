//! Prints what a server's disk has to boot, and what of it would be booted, as its own boot loader would choose. The disk is only
//! read.
//!
//! `cargo run -p pellucid-image --example boot_plan -- DISK [ENTRY]`

use std::path::Path;
use std::process::ExitCode;

use pellucid_image::{BootDisk, DiscoverError};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [disk, entry @ ..] = &arguments[..] else {
        eprintln!("usage: boot_plan DISK [ENTRY] (an image file or a block device; an entry of its menu)");
        return ExitCode::from(2);
    };
    let entry = entry.first().and_then(|entry| entry.to_str());
    match print_plan(Path::new(disk), entry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print_plan(path: &Path, entry: Option<&str>) -> Result<(), DiscoverError> {
    let disk = BootDisk::open(path)?;
    let menu = disk.menu()?;
    for entry in &menu.entries {
        println!("menu         {}: {}", entry.full_id(), entry.title);
        match (entry.obstacle(), entry.tries_left) {
            (Some(reason), _) => println!("             cannot be booted: {reason}"),
            (None, Some(left)) => println!("             {left} boot attempts left"),
            (None, None) => {}
        }
    }
    for warning in &menu.warnings {
        println!("warning      {warning}");
    }
    let plan = disk.plan_of(menu, entry)?;
    println!("boots        {}, {}", plan.entry_id, plan.why);
    for file in [&plan.kernel].into_iter().chain(&plan.initrds) {
        let size = disk.open_file(file)?.map_or(0, |opened| opened.size());
        println!("file         {file}, {} KiB", size.div_ceil(1024));
    }
    println!("command line {}", plan.command_line);
    Ok(())
}
