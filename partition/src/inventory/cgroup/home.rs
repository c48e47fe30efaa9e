//! Home: the group below which this process can make groups, and all that decides what the kernel lets be done there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_dir;

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use crate::inventory::files::Files;

/// The group below which a partition's groups are made: the tree's root if it may be written to, else the process's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupHome {
    /// The group, from the root that this process sees.
    pub path: String,
    /// Controllers that groups below it can have.
    pub controllers: Vec<String>,
    /// `cpuset.cpus.partition`: `member`, `root` or `isolated`. The host's root has no such file, and is a partition.
    pub partition: Option<String>,
    /// CPUs that it has and that no cpuset partition below it has taken.
    pub cpus: BTreeSet<usize>,
    /// Groups directly below that name CPUs of their own: a cpuset partition beside them may have none of those.
    pub named: BTreeMap<String, BTreeSet<usize>>,
}

impl CgroupHome {
    /// Looks below `mount`, where version 2 is; `own` is this process's group.
    pub(super) fn survey(files: &Files<'_>, mount: &str, own: &str) -> Result<Self, String> {
        let group = |path: &str| format!("{mount}{}", path.trim_end_matches('/'));
        let may_write = |path: &&str| {
            ["", "/cgroup.procs", "/cgroup.subtree_control"]
                .iter()
                .all(|file| {
                    let path = files.path(&format!("{}{file}", group(path)));
                    access(path, Access::WRITE_OK).is_ok()
                })
        };
        let Some(path) = ["/", own].into_iter().find(may_write) else {
            return Err(format!(
                "{} may not be written to; run as root, or in a unit with Delegate=yes",
                group(own)
            ));
        };
        let base = group(path);
        let partition = files.found(&format!("{base}/cpuset.cpus.partition"));
        Ok(Self {
            path: path.to_owned(),
            controllers: files.words(&format!("{base}/cgroup.controllers")),
            partition: partition.map(|state| state.trim().to_owned()),
            cpus: files.set(&format!("{base}/cpuset.cpus.effective")),
            named: named_below(files, &base),
        })
    }
}

/// The children that name CPUs. Those that are partitions have taken theirs, so nobody else finds them free.
fn named_below(files: &Files<'_>, base: &str) -> BTreeMap<String, BTreeSet<usize>> {
    let children = read_dir(files.path(base)).into_iter().flatten().flatten();
    let names = children.map(|child| child.file_name().to_string_lossy().into_owned());
    names
        .map(|name| (files.set(&format!("{base}/{name}/cpuset.cpus")), name))
        .filter(|(cpus, _)| !cpus.is_empty())
        .map(|(cpus, name)| (name, cpus))
        .collect()
}
