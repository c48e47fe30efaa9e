//! What the host uses a function's disks for: from its block devices up through partitions, LVM and RAID
//! to mounted file systems and swap.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Something on the host that would break if the function went away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Use {
    /// A file system on one of its disks is mounted.
    Mount {
        /// The block device, for example `nvme0n1p2` or `dm-0`.
        device: String,
        /// Where it is mounted.
        mount_point: String,
    },
    /// One of its disks is used for swap.
    Swap {
        /// The block device.
        device: String,
    },
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Mount { device, mount_point } => write!(f, "{device} is mounted at {mount_point}"),
            Use::Swap { device } => write!(f, "{device} is used as swap"),
        }
    }
}

/// The mounts and swaps of a host, read once.
pub(super) struct Usage {
    class: PathBuf,
    /// `major:minor`, source and mount point of each mount.
    mounts: Vec<[String; 3]>,
    /// Kernel names of swap devices.
    swaps: BTreeSet<String>,
}

impl Usage {
    pub(super) fn read(root: &Path) -> Usage {
        let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
        let swaps = fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
        let kernel_name = |path: &str| path.strip_prefix("/dev/").map(str::to_owned);
        Usage {
            class: root.join("sys/class/block"),
            mounts: mounts.lines().filter_map(mount).collect(),
            swaps: swaps
                .lines()
                .skip(1)
                .filter_map(|line| kernel_name(line.split_whitespace().next()?))
                .collect(),
        }
    }

    /// What is used of the disks below a function's directory.
    pub(super) fn of(&self, function: &Path) -> Vec<Use> {
        let mut devices = BTreeSet::new();
        let real = fs::canonicalize(function).unwrap_or_else(|_| function.to_owned());
        self.blocks_below(&real, 0, &mut devices);
        let mut uses = BTreeSet::new();
        for device in devices {
            let number = fs::read_to_string(self.class.join(&device).join("dev")).unwrap_or_default();
            let source = format!("/dev/{device}");
            let mounted = self
                .mounts
                .iter()
                .filter(|[dev, from, _]| dev == number.trim() || *from == source);
            uses.extend(mounted.map(|[_, _, at]| Use::Mount {
                device: device.clone(),
                mount_point: at.clone(),
            }));
            if self.swaps.contains(&device) {
                uses.insert(Use::Swap { device });
            }
        }
        uses.into_iter().collect()
    }

    /// Finds directories of the block subsystem below `path`, not following links, not entering other functions.
    fn blocks_below(&self, path: &Path, depth: usize, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_directory || depth > MAX_DEPTH || name.parse::<pellucid_partition::Bdf>().is_ok() {
                continue;
            }
            let below = entry.path();
            let subsystem = fs::read_link(below.join("subsystem")).unwrap_or_default();
            if subsystem
                .file_name()
                .is_some_and(|subsystem| subsystem == "block")
            {
                self.add(&disk_of_path(&name), found);
            } else {
                self.blocks_below(&below, depth + 1, found);
            }
        }
    }

    /// Adds a block device, its partitions and whatever is built on them.
    fn add(&self, name: &str, found: &mut BTreeSet<String>) {
        if !found.insert(name.to_owned()) {
            return;
        }
        let directory = self.class.join(name);
        for holder in fs::read_dir(directory.join("holders"))
            .into_iter()
            .flatten()
            .flatten()
        {
            self.add(&holder.file_name().to_string_lossy(), found);
        }
        for part in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if part.path().join("partition").exists() {
                self.add(&part.file_name().to_string_lossy(), found);
            }
        }
    }
}

/// A path of a multipath NVMe disk (`nvme0c1n1`) is hidden; the disk itself (`nvme0n1`) is what gets mounted.
fn disk_of_path(name: &str) -> String {
    let split = || {
        let (controller, rest) = name.strip_prefix("nvme")?.split_once('c')?;
        let (path, namespace) = rest.split_once('n')?;
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(controller) && digits(path)).then(|| format!("nvme{controller}n{namespace}"))
    };
    split().unwrap_or_else(|| name.to_owned())
}

/// A line of mountinfo (proc_pid_mountinfo(5)); octal escapes in paths are undone.
fn mount(line: &str) -> Option<[String; 3]> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let number = fields.nth(2)?.to_owned();
    let at = fields.nth(1)?;
    let source = after.split(' ').nth(1)?.to_owned();
    Some([
        number,
        source,
        at.replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\134", "\\"),
    ])
}

/// Deeper than sysfs nests below a function.
const MAX_DEPTH: usize = 16;
