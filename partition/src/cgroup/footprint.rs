//! What a partition makes in the control group tree, recorded before it is made, and how it is unmade by its owner or a healer.
//!
//! Some of it is common to partitions (the folder of shared ones, a controller): that goes with the last of them.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Group, Isolation};
use crate::claim::{Claim, Resource};
use crate::error::{ClaimError, CpuError};
use crate::heal::Healer;
use crate::state_dir::StateDir;
use crate::step::step;

/// A partition's groups.
#[derive(Debug)]
pub(crate) struct Footprint {
    claim: Claim,
    state: StateDir,
    left: Left,
}

/// The way back, as it is on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Left {
    home: PathBuf,
    /// Groups below home, each after those above it.
    groups: Vec<PathBuf>,
    /// Controllers that nobody had enabled for the home's children.
    enabled: Vec<String>,
}

impl Footprint {
    /// The kind of resource that it is claimed as.
    pub(crate) const RESOURCE: &str = "cgroup";

    /// Nothing yet, below `home`.
    pub(crate) fn new(state: &StateDir, partition: &str, home: &Path) -> Result<Self, CpuError> {
        Ok(Self {
            claim: state.claim(Resource::new(Self::RESOURCE, partition), partition)?,
            state: state.clone(),
            left: Left {
                home: home.to_owned(),
                groups: Vec::new(),
                enabled: Vec::new(),
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
        self.record(ahead)?;
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

    /// Removes the group at the end of `path`, and those above it that nobody else needs.
    pub(crate) fn unmake(&mut self, path: &Path) -> Result<(), CpuError> {
        let _lock = lock_tree(&self.state)?;
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
    pub(crate) fn end(self) -> Result<(), CpuError> {
        let _lock = lock_tree(&self.state)?;
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

impl Left {
    /// Removes what is left; whoever calls holds the tree's lock. Done twice, it changes nothing more.
    fn undo(&self) -> Result<(), CpuError> {
        for group in self.groups.iter().rev() {
            remove(&self.home.join(group), is_common(group))?;
        }
        if self.enabled.is_empty() || any_left(&self.home) {
            return Ok(());
        }
        let home = Group::at(&self.home);
        for controller in &self.enabled {
            if let Err(error) = home.write(CHILDREN, &format!("-{controller}"), "a controller stays enabled")
            {
                // Somebody else uses it by now, so it is theirs.
                tracing::debug!(%error, "left as it is");
            }
        }
        Ok(())
    }
}

/// Removes the groups that a dead partition left.
#[derive(Debug)]
pub struct CgroupHealer {
    state: StateDir,
}

impl CgroupHealer {
    const KIND: &str = "cgroup";

    /// A healer of what the records of that directory tell.
    #[must_use]
    pub fn new(state: &StateDir) -> Self {
        Self { state: state.clone() }
    }
}

impl Healer for CgroupHealer {
    fn kind(&self) -> &str {
        Self::KIND
    }

    fn undo(&self, _resource: &str, data: &serde_json::Value) -> Result<(), Box<dyn Error + Send + Sync>> {
        let left: Left = serde_json::from_value(data.clone())?;
        let _lock = lock_tree(&self.state)?;
        Ok(left.undo()?)
    }
}

/// A group and the groups above it up to home, those first: `pellucid`, `pellucid/group-a`.
fn lineage(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let mut all: Vec<_> = path.ancestors().map(Path::to_owned).collect();
    all.retain(|path| !path.as_os_str().is_empty());
    all.into_iter().rev()
}

/// Whether others may have groups below it: the folder of shared partitions, and their groups.
fn is_common(group: &Path) -> bool {
    let name = group.file_name().unwrap_or_default().to_string_lossy();
    name == super::SHARED || name.starts_with(super::COMMON)
}

/// Whether any partition has a group below home.
fn any_left(home: &Path) -> bool {
    let names = std::fs::read_dir(home).into_iter().flatten().flatten();
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .any(|name| name == super::SHARED || name.starts_with(super::DEDICATED))
}

/// Keeps others from changing the tree meanwhile.
fn lock_tree(state: &StateDir) -> Result<Claim, ClaimError> {
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

/// Removes a group. The kernel lets go of a killed process's threads a little later than of its locks.
fn remove(dir: &Path, common: bool) -> Result<(), CpuError> {
    Isolation::end(&Group::at(dir))?;
    let patience = Instant::now() + PATIENCE;
    loop {
        match step("remove a control group", || std::fs::remove_dir(dir)) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                let busy = matches!(
                    error.kind(),
                    io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty
                );
                if busy && common {
                    return Ok(());
                }
                if !busy || Instant::now() > patience {
                    return Err(CpuError::Tree {
                        path: dir.to_owned(),
                        act: "it cannot be removed (cgroup.threads names who is in it)",
                        source: error,
                    });
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

const CHILDREN: &str = "cgroup.subtree_control";
/// How long a dead process may take to leave its groups, or a living one to change the tree.
const PATIENCE: Duration = Duration::from_secs(5);
