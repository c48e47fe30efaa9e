//! Tasks of the host that were told where to run, and that a kernel before 6.2 lets forget it.
//!
//! Such a kernel gives each task all CPUs of its group again whenever a cpuset partition comes or goes or the controller is turned on or
//! off. So who has an affinity of its own is put on record before, and told it again after: also by a healer.

use std::collections::BTreeSet;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use serde::{Deserialize, Serialize};

use super::CgroupTree;
use super::isolation::version;
use crate::inventory::parse_list;
use crate::step::step;

/// Everybody with an affinity of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bystanders {
    proc: PathBuf,
    tasks: Vec<Bystander>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Bystander {
    thread: i32,
    /// When it started, in ticks since boot: a number may be another's by now.
    started: u64,
    /// Where it may run, as the kernel's list.
    cpus: String,
}

impl Default for Bystanders {
    fn default() -> Self {
        Self {
            proc: PathBuf::from("/proc"),
            tasks: Vec::new(),
        }
    }
}

impl Bystanders {
    /// Nobody yet, on that tree's host.
    pub(super) fn on(tree: &CgroupTree) -> Self {
        Self {
            proc: tree.proc(""),
            tasks: Vec::new(),
        }
    }

    /// Who has an affinity of its own now, beside those known before; nobody on a kernel that remembers by itself.
    #[must_use]
    pub(super) fn with_present(&self, home: &Path) -> Self {
        let effective = read_to_string(home.join("cpuset.cpus.effective")).unwrap_or_default();
        let all = parse_list(&effective).unwrap_or_default();
        let release = read_to_string(self.proc.join("sys/kernel/osrelease")).unwrap_or_default();
        let remembers = version(&release) >= REMEMBERS_SINCE;
        if remembers || all.is_empty() {
            return self.clone();
        }
        let present = threads(&self.proc).filter_map(|task| Bystander::at(&task));
        let tasks = present.filter_map(|now| {
            let before = self.tasks.iter().find(|known| known.is(&now));
            let kept = before.filter(|known| now.is_as_left(known, &all));
            match kept {
                Some(known) => Some(known.clone()),
                None => (now.cpus() != all).then_some(now),
            }
        });
        Self {
            tasks: tasks.collect(),
            proc: self.proc.clone(),
        }
    }

    /// Tells everybody who forgot where to run. Who cannot run there now is told later, when those CPUs are given back.
    pub(super) fn remind(&self) {
        for known in &self.tasks {
            let task = self.proc.join(known.thread.to_string());
            let Some(now) = Bystander::at(&task).filter(|now| now.is(known) && now.cpus != known.cpus) else {
                continue;
            };
            let told = step("tell a task its affinity again", || known.is_told());
            if let Err(error) = told {
                tracing::debug!(thread = now.thread, cpus = known.cpus, %error, "a task keeps another affinity");
            }
        }
    }
}

impl Bystander {
    /// The task of that folder; `None` if it has ended, or is one of the kernel's whose affinity nobody may change.
    fn at(task: &Path) -> Option<Self> {
        let stat = read_to_string(task.join("stat")).ok()?;
        let (head, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // Fields 9 and 22 of proc(5), of which the third is the first here.
        let flags: u64 = fields.get(9 - 3)?.parse().ok()?;
        if flags & PF_NO_SETAFFINITY != 0 {
            return None;
        }
        let status = read_to_string(task.join("status")).ok()?;
        let allowed = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        Some(Self {
            thread: head.split_once(" (")?.0.parse().ok()?,
            started: fields.get(22 - 3)?.parse().ok()?,
            cpus: allowed.trim().to_owned(),
        })
    }

    fn is(&self, other: &Self) -> bool {
        (self.thread, self.started) == (other.thread, other.started)
    }

    fn cpus(&self) -> BTreeSet<usize> {
        parse_list(&self.cpus).unwrap_or_default()
    }

    /// Whether nobody but the kernel has changed it since it was `known`: it has everything, or what was left of its own.
    fn is_as_left(&self, known: &Self, all: &BTreeSet<usize>) -> bool {
        let left: BTreeSet<usize> = known.cpus().intersection(all).copied().collect();
        self.cpus() == *all || self.cpus() == left
    }

    fn is_told(&self) -> std::io::Result<()> {
        let mut wanted = CpuSet::new();
        for cpu in self.cpus().into_iter().filter(|cpu| *cpu < CpuSet::MAX_CPU) {
            wanted.set(cpu);
        }
        Ok(sched_setaffinity(Pid::from_raw(self.thread), &wanted)?)
    }
}

/// The folder of every thread of every process.
fn threads(proc: &Path) -> impl Iterator<Item = PathBuf> {
    let numbered = |folder: &Path| {
        let entries = read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    let processes = numbered(proc);
    processes
        .into_iter()
        .flat_map(move |process| numbered(&process.join("task")))
}

/// "sched: Always preserve the user requested cpumask" came with Linux 6.2.
const REMEMBERS_SINCE: (u32, u32) = (6, 2);
/// include/linux/sched.h: user space may not change the affinity of this thread of the kernel.
const PF_NO_SETAFFINITY: u64 = 0x0400_0000;
