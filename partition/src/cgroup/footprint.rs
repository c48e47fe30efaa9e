//! What a partition makes in the control group tree, recorded before it is made, and unmade by its owner.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::bystanders::Bystanders;
use super::left::{CgroupHealer, Left};
use super::{CgroupTree, Group};
use crate::claim::{Claim, Resource};
use crate::error::{ClaimError, CpuError};
use crate::state_dir::StateDir;
use crate::step::step;

/// A partition's groups.
#[derive(Debug)]
pub(crate) struct Footprint {
    claim: Claim,
    state: StateDir,
    left: Left,
}

impl Footprint {
    /// The kind of resource that it is claimed as.
    pub(crate) const RESOURCE: &str = "cgroup";

    /// Nothing yet, below `home` in `tree`.
    pub(crate) fn new(
        tree: &CgroupTree,
        state: &StateDir,
        partition: &str,
        home: &Path,
    ) -> Result<Self, CpuError> {
        Ok(Self {
            claim: state.claim(Resource::new(Self::RESOURCE, partition), partition)?,
            state: state.clone(),
            left: Left {
                home: home.to_owned(),
                groups: Vec::new(),
                enabled: Vec::new(),
                bystanders: Bystanders::on(tree),
            },
        })
    }

    /// Makes the group at the end of `path` below home, and those above it, with that controller.
    pub(crate) fn make(&mut self, path: &Path, controller: &str) -> Result<Group, CpuError> {
        let _lock = lock_tree(&self.state)?;
        let home = Group::at(&self.left.home);
        let mut ahead = self.left.clone();
        // Sorted, a group comes before those below it.
        ahead.groups.extend(lineage(path));
        ahead.groups.sort();
        ahead.groups.dedup();
        ahead.enabled.extend(self.enabled_by_others()?);
        if !home.words(CHILDREN).iter().any(|word| word == controller) {
            ahead.enabled.push(controller.to_owned());
        }
        ahead.enabled.sort();
        ahead.enabled.dedup();
        self.record(ahead.with_bystanders())?;
        let enable = format!("+{controller}");
        home.write(
            CHILDREN,
            &enable,
            "a controller cannot be enabled for its children",
        )?;
        for group in lineage(path) {
            let group = Group::at(&self.left.home.join(group));
            make_threaded(&group)?;
            // In the last one nobody needs it, but whoever tidies the tree (systemd does) then leaves the controller on.
            group.write(
                CHILDREN,
                &enable,
                "a controller cannot be enabled for its children",
            )?;
        }
        Ok(Group::at(&self.left.home.join(path)))
    }

    /// Tells everybody who has an affinity of its own, after a cpuset partition has come.
    pub(crate) fn remind(&self) {
        self.left.bystanders.remind();
    }

    /// Removes the group at the end of `path`, and those above it that nobody else needs.
    pub(crate) fn unmake(&mut self, path: &Path) -> Result<(), CpuError> {
        let _lock = lock_tree(&self.state)?;
        self.record(self.left.with_bystanders())?;
        let gone: Vec<_> = lineage(path).collect();
        let part = Left {
            groups: gone.clone(),
            enabled: Vec::new(),
            ..self.left.clone()
        };
        part.undo()?;
        let mut rest = self.left.clone();
        let home = &self.left.home;
        rest.groups
            .retain(|group| !gone.contains(group) || home.join(group).exists());
        self.record(rest)
    }

    /// Removes everything, and ends the claim.
    pub(crate) fn end(mut self) -> Result<(), CpuError> {
        let _lock = lock_tree(&self.state)?;
        self.record(self.left.with_bystanders())?;
        self.left.undo()?;
        Ok(self.claim.release()?)
    }

    fn record(&mut self, left: Left) -> Result<(), CpuError> {
        if left != self.left {
            let data = serde_json::to_value(&left).map_err(|source| {
                let path = left.home.clone();
                let source = io::Error::new(io::ErrorKind::InvalidData, source);
                let act = "its path is not text";
                CpuError::Tree { path, act, source }
            })?;
            self.claim.record_undo(CgroupHealer::KIND, &data)?;
            self.left = left;
        }
        Ok(())
    }

    /// Controllers that other partitions have enabled here; whoever goes last disables them.
    fn enabled_by_others(&self) -> Result<Vec<String>, CpuError> {
        let records = self.state.records()?.into_iter();
        let undos = records.filter_map(|(record, _)| record.undo);
        let left = undos
            .filter(|undo| undo.kind == CgroupHealer::KIND)
            .filter_map(|undo| serde_json::from_value::<Left>(undo.data).ok());
        let here = left.filter(|left| left.home == self.left.home);
        Ok(here.flat_map(|left| left.enabled).collect())
    }
}

/// A group and the groups above it up to home, those first: `pellucid`, `pellucid/group-a`.
fn lineage(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let mut all: Vec<_> = path.ancestors().map(Path::to_owned).collect();
    all.retain(|path| !path.as_os_str().is_empty());
    all.into_iter().rev()
}

/// Keeps others from changing the tree meanwhile.
pub(super) fn lock_tree(state: &StateDir) -> Result<Claim, ClaimError> {
    let patience = Instant::now() + PATIENCE;
    loop {
        match state.claim(Resource::new("tree", "cgroup"), "any") {
            Err(ClaimError::Held { .. } | ClaimError::Elsewhere { .. }) if Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

fn make_threaded(group: &Group) -> Result<(), CpuError> {
    match step("make a control group", || std::fs::create_dir(group.dir())) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(CpuError::Tree {
                path: group.dir().to_owned(),
                act: "it cannot be made",
                source: error,
            });
        }
        _ => {}
    }
    if group.read("cgroup.type").is_ok_and(|kind| kind == "threaded") {
        return Ok(());
    }
    group.write("cgroup.type", "threaded", "it cannot be made threaded")
}

pub(super) const CHILDREN: &str = "cgroup.subtree_control";
/// How long a dead process may take to leave its groups, or a living one to change the tree.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
