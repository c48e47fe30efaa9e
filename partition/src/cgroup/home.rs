//! Home: the control group that a VMM's process is in while its vCPU threads are in groups below.
//!
//! The kernel makes cpuset partitions below the tree's root only (or another partition), and threads leave their process's group
//! only downwards. So a VMM that may write to the root moves there; one that may not stays where it is, if that was delegated to it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use super::{CgroupTree, Group};
use crate::error::CpuError;
use crate::inventory::{Cgroup, CgroupHome, CgroupVersion};
use crate::step::step;

/// Where a process's groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    cgroup: Cgroup,
    facts: CgroupHome,
    group: Group,
    own: PathBuf,
}

impl Home {
    /// The tree's root if it may be written to, else the process's own group; or why there is none.
    pub(crate) fn of(tree: &CgroupTree) -> Result<Self, String> {
        let (cgroup, _) = tree.survey();
        let facts = cgroup.home.clone()?;
        let dir = |path: &str| tree.path(&format!("{}{}", cgroup.mount, path.trim_end_matches('/')));
        Ok(Self {
            group: Group::at(&dir(&facts.path)),
            own: dir(&cgroup.path),
            cgroup,
            facts,
        })
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// CPUs that no cpuset partition has taken.
    pub(crate) fn cpus(&self) -> &BTreeSet<usize> {
        &self.facts.cpus
    }

    /// Whether its children can have the controller; why not, if not.
    pub(crate) fn offers(&self, controller: &str) -> Result<(), String> {
        offers(&self.cgroup, &self.facts, controller)
    }
}

/// Whether groups below that home can have the controller; why not, if not.
pub(super) fn offers(cgroup: &Cgroup, home: &CgroupHome, controller: &str) -> Result<(), String> {
    if home.controllers.iter().any(|word| word == controller) {
        return Ok(());
    }
    let group = shown(cgroup, home);
    Err(match cgroup.version {
        CgroupVersion::Hybrid => format!(
            "{group} has no controller {controller}, which version 1 may have; boot with systemd.unified_cgroup_hierarchy=1"
        ),
        _ => format!("{group} has no controller {controller}; enable it in cgroup.subtree_control above"),
    })
}

/// A home as its directory.
pub(super) fn shown(cgroup: &Cgroup, home: &CgroupHome) -> String {
    format!("{}{}", cgroup.mount, home.path.trim_end_matches('/'))
}

/// The process is at home, until the last of those who need that is dropped.
#[derive(Debug)]
pub(crate) struct Settled {
    home: PathBuf,
}

/// Homes of this process: who needs it there, and where it came from.
static HOMES: Mutex<BTreeMap<PathBuf, (usize, Option<PathBuf>)>> = Mutex::new(BTreeMap::new());

impl Settled {
    /// Where it is.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Moves the process home, if it is not there. All of its threads keep their affinity.
    pub(crate) fn at(home: &Home) -> Result<Self, CpuError> {
        let mut homes = HOMES.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = home.group.dir().to_owned();
        match homes.get_mut(&dir) {
            Some((users, _)) => *users += 1,
            None => {
                let from = (home.own != dir).then(|| home.own.clone());
                if from.is_some() {
                    move_process(&dir)?;
                }
                homes.insert(dir.clone(), (1, from));
            }
        }
        Ok(Self { home: dir })
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        let mut homes = HOMES.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((users, _)) = homes.get_mut(&self.home) else {
            return;
        };
        *users -= 1;
        if *users > 0 {
            return;
        }
        if let Some((_, Some(from))) = homes.remove(&self.home)
            && let Err(error) = move_process(&from)
        {
            // Whoever made that group may have removed it meanwhile: it was empty.
            tracing::warn!(%error, "the process stays in the tree's root");
        }
    }
}

/// Moves this process. Kernels before 6.2 forget the threads' affinity on the way, so it is told to them again.
fn move_process(to: &Path) -> Result<(), CpuError> {
    let masks: Vec<(Pid, CpuSet)> = threads()
        .filter_map(|thread| Some((thread, sched_getaffinity(Some(thread)).ok()?)))
        .collect();
    Group::at(to).write("cgroup.procs", "0", "this process cannot be moved into it")?;
    for (thread, mask) in masks {
        // A thread that has ended needs none.
        let _ = step("tell a thread its affinity again", || {
            sched_setaffinity(Some(thread), &mask)
        });
    }
    Ok(())
}

/// The threads of this process.
pub(crate) fn threads() -> impl Iterator<Item = Pid> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    tasks.filter_map(|task| Pid::from_raw(task.ok()?.file_name().to_str()?.parse().ok()?))
}
