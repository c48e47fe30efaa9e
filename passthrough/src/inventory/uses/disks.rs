//! From a function's block devices up through partitions, LVM, RAID and multipath to mounted file systems and swap; and the folders of
//! a machine below that virtio functions bring.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Use;
use crate::error::SurveyError;
use crate::inventory::attribute::{list, names, text};

/// The mounts and swaps of a host.
pub(super) struct Disks {
    class: PathBuf,
    mounts: Vec<Mount>,
    /// Kernel names of swap devices.
    swaps: BTreeSet<String>,
    /// The tags of virtiofs, each with the real place of its device.
    tags: Vec<(PathBuf, String)>,
}

/// One mounted file system.
struct Mount {
    /// `major:minor`.
    number: String,
    source: String,
    kind: String,
    point: String,
}

impl Disks {
    pub(super) fn read(root: &Path) -> Result<Disks, SurveyError> {
        let mounts = root.join("proc/self/mountinfo");
        if root.join("proc").is_dir() && !mounts.exists() {
            // Without /proc every disk would look free.
            let source = io::Error::from(io::ErrorKind::NotFound);
            return Err(SurveyError { path: mounts, source });
        }
        let mounts = list(&mounts)?;
        let swaps = list(&root.join("proc/swaps"))?;
        let kernel_name = |path: &str| path.strip_prefix("/dev/").map(str::to_owned);
        Ok(Disks {
            class: root.join("sys/class/block"),
            mounts: mounts.lines().filter_map(Mount::of).collect(),
            swaps: swaps
                .lines()
                .skip(1)
                .filter_map(|line| kernel_name(line.split_whitespace().next()?))
                .collect(),
            tags: virtiofs_tags(&root.join("sys/fs/virtiofs")),
        })
    }

    /// Adds what is used of the disks below a function's directory.
    pub(super) fn of(&self, function: &Path, uses: &mut BTreeSet<Use>) {
        self.shares(function, uses);
        let mut disks = BTreeSet::new();
        blocks_below(function, &mut disks);
        // Each device, and the one that it was found on.
        let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut open: Vec<(String, Option<String>)> = disks.into_iter().map(|disk| (disk, None)).collect();
        while let Some((device, below)) = open.pop() {
            // Holders that hold each other end here.
            if found.contains_key(&device) {
                continue;
            }
            let directory = self.class.join(&device);
            let mut parts = names(&directory);
            parts.retain(|part| directory.join(part).join("partition").exists());
            let holders = names(&directory.join("holders"));
            let top = holders.is_empty() && parts.is_empty();
            open.extend(parts.into_iter().map(|part| (part, below.clone())));
            open.extend(holders.into_iter().map(|holder| (holder, Some(device.clone()))));
            let used = self.used(&device, uses);
            if let (true, false, Some(on)) = (top, used, &below) {
                uses.insert(Use::Held {
                    device: on.clone(),
                    holder: device.clone(),
                });
            }
            found.insert(device, below);
        }
    }

    /// Adds the folders that a virtio function brings and that are mounted. Mounts name them by their tags.
    fn shares(&self, function: &Path, uses: &mut BTreeSet<Use>) {
        let plan9 = names(function)
            .into_iter()
            .filter(|name| name.starts_with("virtio"));
        let plan9 = plan9.filter_map(|name| Some(("9p", text(&function.join(name), "mount_tag")?)));
        let virtiofs = self
            .tags
            .iter()
            .filter(|(device, _)| device.starts_with(function));
        let virtiofs = virtiofs.map(|(_, tag)| ("virtiofs", tag.clone()));
        for (kind, tag) in plan9.chain(virtiofs) {
            let tag = tag.trim_matches(['\0', '\n', ' ']);
            let mounted = self
                .mounts
                .iter()
                .filter(|mount| mount.kind == kind && mount.source == tag);
            uses.extend(mounted.map(|mount| mount.used_by(tag)));
        }
    }

    /// Adds how one block device is used itself, and says whether it is.
    fn used(&self, device: &str, uses: &mut BTreeSet<Use>) -> bool {
        let number = text(&self.class.join(device), "dev").unwrap_or_default();
        let source = format!("/dev/{device}");
        let mounted = self
            .mounts
            .iter()
            .filter(|mount| mount.number == number || mount.source == source);
        let before = uses.len();
        uses.extend(mounted.map(|mount| mount.used_by(device)));
        if self.swaps.contains(device) {
            uses.insert(Use::Swap {
                device: device.to_owned(),
            });
        }
        uses.len() > before
    }
}

/// Finds directories of the block subsystem below `path`, not following links. Functions behind this one are entered: a controller
/// with a PCI domain of its own takes its disks with it.
fn blocks_below(path: &Path, found: &mut BTreeSet<String>) {
    let mut open = vec![(path.to_owned(), 0)];
    while let Some((path, depth)) = open.pop() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_directory || depth > MAX_DEPTH {
                continue;
            }
            let below = entry.path();
            let subsystem = fs::read_link(below.join("subsystem")).unwrap_or_default();
            if subsystem.file_name().is_some_and(|name| name == "block") {
                found.insert(disk_of_path(&entry.file_name().to_string_lossy()));
            } else {
                open.push((below, depth + 1));
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

impl Mount {
    /// A line of mountinfo (proc_pid_mountinfo(5)); octal escapes in paths are undone.
    fn of(line: &str) -> Option<Mount> {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let number = fields.nth(2)?.to_owned();
        let point = fields.nth(1)?;
        let mut after = after.split(' ');
        let kind = after.next()?.to_owned();
        Some(Mount {
            number,
            source: after.next()?.to_owned(),
            kind,
            point: point
                .replace("\\040", " ")
                .replace("\\011", "\t")
                .replace("\\134", "\\"),
        })
    }

    fn used_by(&self, device: &str) -> Use {
        Use::Mount {
            device: device.to_owned(),
            mount_point: self.point.clone(),
        }
    }
}

/// Linux 6.9 and later tell them (Documentation/ABI/testing/sysfs-fs-virtiofs).
fn virtiofs_tags(folder: &Path) -> Vec<(PathBuf, String)> {
    let tag = |name: String| {
        let place = folder.join(name);
        Some((fs::canonicalize(place.join("device")).ok()?, text(&place, "tag")?))
    };
    names(folder).into_iter().filter_map(tag).collect()
}

/// Deeper than sysfs nests below a function, also below one that has a domain of its own.
const MAX_DEPTH: usize = 32;
