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
    /// Paths of swap devices.
    swaps: BTreeSet<String>,
    /// Of each mounted btrfs, its id and the block devices that it is spread over: a mount names one of them.
    spread: Vec<(String, Vec<String>)>,
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
        Ok(Disks {
            class: root.join("sys/class/block"),
            mounts: mounts.lines().filter_map(Mount::of).collect(),
            swaps: swaps
                .lines()
                .skip(1)
                .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
                .collect(),
            spread: spread(&root.join("sys/fs/btrfs")),
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
        let paths = self.paths(device);
        let named = |mount: &&Mount| {
            mount
                .sources()
                .any(|source| paths.iter().any(|path| path == source))
        };
        let before = uses.len();
        let mounted = self.mounts.iter();
        let mounted = mounted.filter(|mount| mount.number == number || named(mount));
        uses.extend(mounted.map(|mount| mount.used_by(device)));
        if paths.iter().any(|path| self.swaps.contains(path)) {
            uses.insert(Use::Swap {
                device: device.to_owned(),
            });
        }
        self.spread_over(device, uses);
        uses.len() > before
    }

    /// Adds the mounts of a btrfs that has `device` among others.
    fn spread_over(&self, device: &str, uses: &mut BTreeSet<Use>) {
        for (id, members) in &self.spread {
            if !members.iter().any(|member| member == device) {
                continue;
            }
            let paths: Vec<String> = members.iter().flat_map(|member| self.paths(member)).collect();
            let mut mounted = self
                .mounts
                .iter()
                .filter(|mount| mount.kind == "btrfs" && paths.contains(&mount.source))
                .peekable();
            if mounted.peek().is_none() {
                // Under a name that is not known here, or elsewhere than in this mount namespace.
                uses.insert(Use::Held {
                    device: device.to_owned(),
                    holder: format!("{BTRFS}{id}"),
                });
            }
            uses.extend(mounted.map(|mount| mount.used_by(device)));
        }
    }

    /// What mounts and swaps call a block device: its kernel name, or that of its mapping.
    fn paths(&self, device: &str) -> Vec<String> {
        let mapping = text(&self.class.join(device).join("dm"), "name");
        let mapping = mapping.map(|name| format!("/dev/mapper/{}", name.trim()));
        [format!("/dev/{device}")].into_iter().chain(mapping).collect()
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

    /// bcachefs names all of its devices.
    fn sources(&self) -> impl Iterator<Item = &str> {
        self.source.split(':')
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

/// The kernel shows each btrfs that is mounted, with links to its devices (fs/btrfs/sysfs.c).
fn spread(folder: &Path) -> Vec<(String, Vec<String>)> {
    let one = |id: String| {
        let members = names(&folder.join(&id).join("devices"));
        (!members.is_empty()).then_some((id, members))
    };
    names(folder).into_iter().filter_map(one).collect()
}

/// How a btrfs is called that holds a device.
pub(super) const BTRFS: &str = "btrfs ";
/// Deeper than sysfs nests below a function, also below one that has a domain of its own.
const MAX_DEPTH: usize = 32;
