//! Prints what a server's disk would boot, as its own boot loader would choose. The disk is only read.
//!
//! `cargo run -p pellucid-image --example boot_plan -- DISK`

use std::path::Path;
use std::process::ExitCode;

use pellucid_image::{BootDisk, DiscoverError};

fn main() -> ExitCode {
    let Some(disk) = std::env::args_os().nth(1) else {
        eprintln!("usage: boot_plan DISK (an image file or a block device)");
        return ExitCode::from(2);
    };
    match print_plan(Path::new(&disk)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print_plan(path: &Path) -> Result<(), DiscoverError> {
    let disk = BootDisk::open(path)?;
    let plan = disk.plan()?;
    println!("boots        {} ({}): {}", plan.title, plan.entry_id, plan.why);
    for file in [&plan.kernel].into_iter().chain(&plan.initrds) {
        let size = disk.open_file(file)?.map_or(0, |opened| opened.size());
        println!("file         {file}, {} KiB", size.div_ceil(1024));
    }
    println!("command line {}", plan.command_line);
    for (index, entry) in plan.menu.entries.iter().enumerate() {
        let note = match (entry.obstacle(), entry.tries_left) {
            (Some(reason), _) => format!(" (cannot be booted: {reason})"),
            (None, Some(left)) => format!(" ({left} boot attempts left)"),
            (None, None) => String::new(),
        };
        println!("menu {:>3}     {}{note}", index + 1, entry.title);
    }
    for warning in &plan.menu.warnings {
        println!("warning      {warning}");
    }
    Ok(())
}
