//! What is left of a partition in the control group tree: the way back, as its owner recorded it, for the owner and for a healer.
//!
//! Some of it is common to partitions (the folder of shared ones, a controller): that goes with the last of them.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::bystanders::Bystanders;
use super::footprint::{CHILDREN, PATIENCE, lock_tree};
use super::{Group, Isolation};
use crate::error::CpuError;
use crate::heal::Healer;
use crate::state_dir::StateDir;
use crate::step::step;

/// The way back, as it is on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Left {
    pub(super) home: PathBuf,
    /// Groups below home, each after those above it.
    pub(super) groups: Vec<PathBuf>,
    /// Controllers that nobody had enabled for the home's children.
    pub(super) enabled: Vec<String>,
    /// Who had an affinity of its own.
    #[serde(default)]
    pub(super) bystanders: Bystanders,
}

impl Left {
    /// The same, with who has an affinity of its own now, where cpusets are concerned.
    pub(super) fn with_bystanders(&self) -> Self {
        let concerned = self.enabled.iter().any(|controller| controller == "cpuset")
            || self.groups.iter().any(|group| is_dedicated(group));
        match concerned {
            true => Self {
                bystanders: self.bystanders.with_present(&self.home),
                ..self.clone()
            },
            false => self.clone(),
        }
    }

    /// Removes what is left; whoever calls holds the tree's lock. Done twice, it changes nothing more.
    pub(super) fn undo(&self) -> Result<(), CpuError> {
        let undone = self.remove_all();
        self.bystanders.remind();
        undone
    }

    fn remove_all(&self) -> Result<(), CpuError> {
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
    pub(super) const KIND: &str = "cgroup";

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
        Ok(left.with_bystanders().undo()?)
    }
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

fn is_dedicated(group: &Path) -> bool {
    group.to_string_lossy().starts_with(super::DEDICATED)
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
