//! `doctor` and `clean`.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use pellucid_testbed::setup::Needs;
use pellucid_testbed::{Cache, Progress, Testbed, setup};

use super::Acted;

/// Says what is missing on this machine.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Install what is missing without asking
    #[arg(long)]
    install: bool,
}

impl Doctor {
    pub(crate) fn act(&self, progress: Progress) -> Acted {
        let missing = setup::survey(Needs::Disk);
        for shortage in &missing {
            println!("missing: {} (package {})", shortage.program, shortage.package);
        }
        if !missing.is_empty() {
            let root = rustix::process::geteuid().is_root();
            let in_ci = std::env::var_os("CI").is_some();
            let wanted = self.install || (root && in_ci) || (root && agreed()?);
            if !wanted || !root {
                println!("install with: {}", setup::remedy(&missing));
                return Ok(1);
            }
            setup::install_missing(Needs::Disk, progress)?;
        }
        let testbed = Testbed::ready(progress)?;
        println!(
            "emulator: QEMU {} ({})",
            testbed.emulator.version,
            testbed.emulator.program.display()
        );
        println!(
            "igb with SR-IOV: {}",
            if testbed.emulator.has("igb") {
                "yes"
            } else {
                "no, needs QEMU 8"
            }
        );
        println!(
            "kernel: {} ({})",
            testbed.kernel.release,
            testbed.kernel.image.display()
        );
        println!("cache: {}", testbed.cache.root().display());
        println!("/dev/kvm on this machine: {}", kvm());
        println!("nothing is missing");
        Ok(0)
    }
}

/// Removes the cache.
pub(crate) fn clean(progress: Progress) -> Acted {
    let cache = Cache::open()?;
    let bytes = cache.clear()?;
    let folders = pellucid_testbed::l1::remove_stale_folders();
    progress.say(format!("removed the folders of {folders} runs that are over"));
    progress.say(format!(
        "removed {} MiB in {}",
        bytes >> 20,
        cache.root().display()
    ));
    Ok(0)
}

fn agreed() -> std::io::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("install them now? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

fn kvm() -> String {
    match std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        Ok(_) => "usable; tier 1 also runs directly".to_owned(),
        Err(error) => format!("not usable ({error}); tier 1 runs in the emulated server only"),
    }
}
