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
    println!("boots        {} ({})", plan.title, plan.entry_id);
    for path in [&plan.kernel].into_iter().chain(&plan.initrds) {
        let size = disk.file(path)?.map_or(0, |file| file.size());
        println!("file         {path}, {} KiB", size.div_ceil(1024));
    }
    println!("command line {}", plan.command_line);
    for (index, candidate) in plan.candidates.iter().enumerate() {
        let note = match (&candidate.missing, candidate.tries_left) {
            (Some(path), _) => format!(" (passed over: {path} is missing)"),
            (None, Some(left)) => format!(" ({left} boot attempts left)"),
            (None, None) => String::new(),
        };
        println!("menu {:>3}     {}{note}", index + 1, candidate.title);
    }
    Ok(())
}
