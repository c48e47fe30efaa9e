//! What a machine is given besides its own parts: a folder for its run, channels, shares.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::machine::{Boot, Chardev, Share};
use crate::{L1Error, Machine, Testbed};

/// Adds to a machine what the agent in it needs.
pub(crate) fn furnished(testbed: &Testbed, mut machine: Machine, folder: &Path) -> Machine {
    if let Boot::Kernel { image, initrd, .. } = &mut machine.boot {
        *image = testbed.kernel.image.clone();
        *initrd = testbed.initramfs.clone();
    }
    machine.console = Chardev::File(folder.join("console.log"));
    machine.terminal = Some(folder.join("terminal"));
    machine.management.monitor = Some(folder.join("monitor"));
    machine.management.debugger = Some(folder.join("debugger"));
    machine.management.service = Some(folder.join("service"));
    machine.ports = ["control", "stdout", "stderr", "stdin"]
        .map(|name| (format!("pellucid.{name}"), folder.join(name)))
        .to_vec();
    machine.shares = vec![
        Share {
            tag: "host".into(),
            path: "/".into(),
            writable: false,
        },
        Share {
            tag: "share".into(),
            path: folder.join("share"),
            writable: true,
        },
    ];
    machine
}

/// A folder with a short name, because the path of a Unix socket must be short.
pub(crate) fn run_folder() -> Result<PathBuf, L1Error> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let name = format!(
        "pellucid-testbed.{}.{run}.{:04x}",
        std::process::id(),
        nonce() & 0xffff
    );
    let folder = std::env::temp_dir().join(name);
    let share = folder.join("share");
    fs::create_dir_all(&share).map_err(|source| L1Error::io(share, source))?;
    Ok(folder)
}

pub(crate) fn nonce() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.subsec_nanos())
}

/// Removes the folders that runs of dead processes left, and returns how many.
pub fn remove_stale_folders() -> usize {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return 0;
    };
    let stale = |entry: &fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        owner_of(&name).is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists())
    };
    let stale = entries.flatten().filter(stale);
    stale
        .filter(|entry| fs::remove_dir_all(entry.path()).is_ok())
        .count()
}

/// The process whose run the folder `name` belongs to.
fn owner_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok()
}

const PREFIX: &str = "pellucid-testbed.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_have_two_folders_that_name_their_process() {
        let (one, other) = (run_folder().unwrap(), run_folder().unwrap());
        assert_ne!(one, other);
        assert!(one.join("share").is_dir());
        let name = one.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(owner_of(&name), Some(std::process::id()));
        assert!(
            one.join("terminal").as_os_str().len() < 108,
            "a socket's path must be short"
        );
        for folder in [one, other] {
            fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn folders_of_others_are_not_ours() {
        for name in ["pellucid-testbed.x.0", "pellucid-other.1.0", "systemd-private"] {
            assert_eq!(owner_of(name), None);
        }
    }
}
