//! Home: the control group that a VMM's process is in while its vCPU threads are in groups below.
//!
//! The kernel makes cpuset partitions below the tree's root only (or another partition), and threads leave their process's group
//! only downwards. So a VMM that may write to the root moves there; one that may not stays where it is, if that was delegated to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Access, access};
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use super::{CgroupTree, Group};
use crate::error::CpuError;

/// Where a process's groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    group: Group,
    own: PathBuf,
}

impl Home {
    /// The tree's root if it may be written to, else the process's own group; or why there is none.
    pub(crate) fn of(tree: &CgroupTree) -> Result<Self, String> {
        let mount = tree.mount();
        if !mount.join("cgroup.controllers").exists() {
            let v1 = mount.join("cpu").exists() || mount.join("unified").exists();
            return Err(match v1 {
                true => "this host has cgroup v1; boot it with systemd.unified_cgroup_hierarchy=1".to_owned(),
                false => format!("no cgroup v2 at {}; mount it there", mount.display()),
            });
        }
        let own = own_group(tree).ok_or_else(|| "this process is in no group of cgroup v2".to_owned())?;
        let own = mount.join(own);
        let dir = [&mount, &own].into_iter().find(|dir| is_delegated(dir));
        let dir = dir.ok_or_else(|| {
            format!(
                "{} may not be written to; run as root, or in a unit with Delegate=yes",
                own.display()
            )
        })?;
        let group = Group::at(dir);
        Ok(Self { group, own })
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// Whether its children can have the controller; why not, if not.
    pub(crate) fn offers(&self, controller: &str) -> Result<(), String> {
        match self
            .group
            .words("cgroup.controllers")
            .iter()
            .any(|word| word == controller)
        {
            true => Ok(()),
            false => Err(format!(
                "{} has no controller {controller}; enable it in cgroup.subtree_control above",
                self.group.dir().display()
            )),
        }
    }

    /// Whether cpuset partitions can be made below it; why not, if not.
    pub(crate) fn parts_cpus(&self) -> Result<(), String> {
        self.offers("cpuset")?;
        // The root of the hierarchy has no such file, and is a partition.
        match self.group.read("cpuset.cpus.partition") {
            Err(_) => Ok(()),
            Ok(state) if matches!(state.as_str(), "root" | "isolated") => Ok(()),
            Ok(_) => Err(format!(
                "{} is no cpuset partition itself; run as root outside of a container",
                self.group.dir().display()
            )),
        }
    }
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
        let _ = sched_setaffinity(Some(thread), &mask);
    }
    Ok(())
}

/// The threads of this process.
pub(crate) fn threads() -> impl Iterator<Item = Pid> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    tasks.filter_map(|task| Pid::from_raw(task.ok()?.file_name().to_str()?.parse().ok()?))
}

/// The process's group, relative to the mount.
fn own_group(tree: &CgroupTree) -> Option<PathBuf> {
    let text = std::fs::read_to_string(tree.proc("self/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(path))
}

fn is_delegated(dir: &Path) -> bool {
    let writable = |file: &str| access(dir.join(file), Access::WRITE_OK).is_ok();
    access(dir, Access::WRITE_OK).is_ok() && writable("cgroup.procs") && writable("cgroup.subtree_control")
}
