//! Control groups as this process sees them: which version, which controllers, and the CPUs that its own group has.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::files::Files;
use super::parse_list;

mod home;

pub use home::CgroupHome;

/// What control groups there are, and this process's place in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Which interface is mounted.
    pub version: CgroupVersion,
    /// Where version 2 is mounted; empty without it.
    pub mount: String,
    /// Controllers of version 2 at the root that this process sees, in the kernel's order; of version 1 where there is only that.
    pub controllers: Vec<String>,
    /// This process's own group in version 2, from the root that it sees; without version 2, its group of the controller cpuset.
    pub path: String,
    /// Controllers that a group made inside the own group could use.
    pub own_controllers: Vec<String>,
    /// The CPUs that its cpuset has; `None` where no controller restricts them.
    pub cpus: Option<BTreeSet<usize>>,
    /// Where this process can make groups of version 2; or why nowhere.
    pub home: Result<CgroupHome, String>,
}

/// The versions of the control group interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CgroupVersion {
    /// Not mounted.
    #[default]
    None,
    /// Version 1 only.
    V1,
    /// Version 1 with version 2 beside it.
    Hybrid,
    /// Version 2 only.
    V2,
}

impl Default for Cgroup {
    /// A host without control groups.
    fn default() -> Self {
        Self {
            version: CgroupVersion::None,
            mount: String::new(),
            controllers: Vec::new(),
            path: String::new(),
            own_controllers: Vec::new(),
            cpus: None,
            home: Err("no control groups are mounted here; mount cgroup2 at /sys/fs/cgroup".to_owned()),
        }
    }
}

/// Reads mounts, `/proc/self/cgroup` and the files of the own group.
pub(super) fn survey(files: &Files<'_>) -> Cgroup {
    let mounts = mounts(files);
    let unified = mounts.iter().find(|mount| mount.kind == "cgroup2");
    let legacy: Vec<_> = mounts.iter().filter(|mount| mount.kind == "cgroup").collect();
    let own = files.optional("proc/self/cgroup");
    let version = match (unified, legacy.is_empty()) {
        (None, true) => return Cgroup::default(),
        (None, false) => CgroupVersion::V1,
        (Some(_), false) => CgroupVersion::Hybrid,
        (Some(_), true) => CgroupVersion::V2,
    };
    let cpuset = cpuset_v1(files, &legacy, &own);
    let Some(mount) = unified else {
        let controllers: Vec<String> = legacy.iter().flat_map(|mount| mount.controllers()).collect();
        return Cgroup {
            version,
            own_controllers: controllers.clone(),
            controllers,
            path: own_path(&own, Some("cpuset")).unwrap_or_default(),
            cpus: cpuset,
            home: Err("this host has cgroup v1; boot it with systemd.unified_cgroup_hierarchy=1".to_owned()),
            ..Cgroup::default()
        };
    };
    let (root, path) = (mount.point.as_str(), own_path(&own, None));
    let home = match &path {
        _ if mount.is_read_only() => Err(format!("{root} is mounted read-only; run outside of a container")),
        None => Err("this process is in no group of cgroup v2".to_owned()),
        Some(path) => CgroupHome::survey(files, root, path),
    };
    let path = path.unwrap_or_default();
    let here = format!("{root}{}", path.trim_end_matches('/'));
    Cgroup {
        version,
        mount: root.to_owned(),
        controllers: files.words(&format!("{root}/cgroup.controllers")),
        own_controllers: files.words(&format!("{here}/cgroup.controllers")),
        cpus: cpuset.or_else(|| cpuset_v2(files, root, &path)),
        path,
        home,
    }
}

/// The CPUs of the own group, or of the nearest group above it that restricts them.
fn cpuset_v2(files: &Files<'_>, root: &str, path: &str) -> Option<BTreeSet<usize>> {
    let mut at = path.trim_end_matches('/');
    loop {
        let text = files.found(&format!("{root}{at}/cpuset.cpus.effective"));
        if let Some(set) = text.as_deref().and_then(parse_list).filter(|set| !set.is_empty()) {
            return Some(set);
        }
        at = at.rsplit_once('/')?.0;
    }
}

fn cpuset_v1(files: &Files<'_>, mounts: &[&Mount], own: &str) -> Option<BTreeSet<usize>> {
    let mount = mounts
        .iter()
        .find(|mount| mount.controllers().any(|controller| controller == "cpuset"))?;
    let path = own_path(own, Some("cpuset"))?;
    // In a container the group's path is the host's, and its own files are at the root of the mount.
    let bases = [
        format!("{}{}", mount.point, path.trim_end_matches('/')),
        mount.point.clone(),
    ];
    let names = ["cpuset.effective_cpus", "cpuset.cpus"];
    let all = bases
        .iter()
        .flat_map(|base| names.map(|name| format!("{base}/{name}")));
    all.filter_map(|file| parse_list(&files.found(&file)?))
        .find(|set| !set.is_empty())
}

/// The own group of a controller of version 1, or of version 2.
fn own_path(text: &str, controller: Option<&str>) -> Option<String> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let ours = match controller {
            Some(name) => controllers.split(',').any(|one| one == name),
            None => controllers.is_empty(),
        };
        ours.then(|| path.to_owned())
    })
}

/// A line of `/proc/self/mounts`.
struct Mount {
    kind: String,
    point: String,
    options: String,
}

impl Mount {
    /// The controllers of a mount of version 1.
    fn controllers(&self) -> impl Iterator<Item = String> {
        let known = self
            .options
            .split(',')
            .filter(|option| CONTROLLERS.contains(option));
        known.map(str::to_owned)
    }

    fn is_read_only(&self) -> bool {
        self.options.split(',').any(|option| option == "ro")
    }
}

/// Mounts of control groups, in the order in which they were made.
fn mounts(files: &Files<'_>) -> Vec<Mount> {
    let text = files.optional("proc/self/mounts");
    let mount = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (point, kind, options) = (words.next()?, words.next()?, words.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| Mount {
            kind: kind.to_owned(),
            point: point.replace("\\040", " "),
            options: options.to_owned(),
        })
    };
    text.lines().filter_map(mount).collect()
}

/// Controllers of version 1 (Documentation/admin-guide/cgroup-v1).
const CONTROLLERS: [&str; 13] = [
    "cpuset",
    "cpu",
    "cpuacct",
    "blkio",
    "memory",
    "devices",
    "freezer",
    "net_cls",
    "perf_event",
    "net_prio",
    "hugetlb",
    "pids",
    "rdma",
];
