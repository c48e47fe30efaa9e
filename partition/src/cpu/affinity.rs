//! Where threads may run: vCPU threads pinned and proved, the process's others kept off dedicated CPUs.

use std::collections::BTreeSet;
use std::io;

use rustix::process::getpid;
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

use crate::cgroup::{CgroupTree, Home, threads};
use crate::error::CpuError;
use crate::inventory::list_text;
use crate::step::step;
use crate::sys::schedule;

/// Puts a vCPU's thread on its CPU, proved by reading back where it may run.
pub(super) fn pin(vcpu: u32, thread: Pid, cpu: usize) -> Result<(), CpuError> {
    let refused = |source: io::Error| CpuError::Affinity { vcpu, cpu, source };
    if cpu >= CpuSet::MAX_CPU {
        return Err(refused(io::ErrorKind::InvalidInput.into()));
    }
    let wanted = set([cpu]);
    let pinned = step("pin a vCPU thread", || sched_setaffinity(Some(thread), &wanted));
    pinned.map_err(|errno| refused(errno.into()))?;
    let got = sched_getaffinity(Some(thread)).map_err(|errno| refused(errno.into()))?;
    match got == wanted {
        true => Ok(()),
        false => Err(CpuError::NotPinned {
            vcpu,
            cpu,
            got: list_text(cpus(&got)),
        }),
    }
}

/// Lets a thread run wherever the host leaves CPUs: kernels before 6.2 count other partitions' CPUs in, so they are told which.
pub(super) fn let_roam(tree: &CgroupTree, thread: Pid) {
    let home = Home::of(tree).map(|home| home.cpus().clone());
    let left = home.ok().filter(|cpus| !cpus.is_empty());
    let wanted = left.map_or_else(|| set(0..CpuSet::MAX_CPU), set);
    if let Err(error) = step("let a vCPU thread roam", || {
        sched_setaffinity(Some(thread), &wanted)
    }) {
        tracing::warn!(%error, "a vCPU thread keeps its affinity");
    }
}

/// Puts a thread under SCHED_FIFO, or back.
pub(super) fn schedule(vcpu: u32, thread: Pid, priority: Option<u8>) -> Result<(), CpuError> {
    let refused = |source| CpuError::Realtime {
        vcpu,
        priority: priority.unwrap_or(0),
        source,
    };
    if schedule::priority_of(thread).map_err(refused)? == priority {
        return Ok(());
    }
    let scheduled = step("change the scheduling policy", || {
        schedule::use_policy(thread, priority)
    });
    scheduled.map_err(refused)
}

/// The process's threads that are no vCPUs, kept off dedicated CPUs until dropped.
#[derive(Debug)]
pub(super) struct Housekeeping {
    before: CpuSet,
    after: CpuSet,
}

impl Housekeeping {
    /// As the process is now; making a cpuset partition may change it.
    pub(super) fn before() -> Self {
        let before = sched_getaffinity(Some(getpid())).unwrap_or_else(|_| CpuSet::new());
        Self {
            before,
            after: before,
        }
    }

    /// Keeps all threads but `vcpus` off `dedicated`; one that could run nowhere else stays as it is. Later threads inherit it.
    pub(super) fn keep_off(&mut self, dedicated: &[usize], vcpus: &[Pid]) {
        for thread in threads().filter(|thread| !vcpus.contains(thread)) {
            let Ok(mask) = sched_getaffinity(Some(thread)) else {
                continue;
            };
            let rest = without(&mask, dedicated);
            if rest.count() > 0 {
                // A thread that has ended needs none.
                let _ = step("keep a thread off", || sched_setaffinity(Some(thread), &rest));
            }
        }
        self.after = without(&self.before, dedicated);
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        for thread in threads() {
            if self.after.count() > 0 && sched_getaffinity(Some(thread)) == Ok(self.after) {
                let _ = step("let a thread back", || {
                    sched_setaffinity(Some(thread), &self.before)
                });
            }
        }
    }
}

fn without(mask: &CpuSet, cpus: &[usize]) -> CpuSet {
    let mut rest = *mask;
    for cpu in cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU) {
        rest.unset(*cpu);
    }
    rest
}

fn set(cpus: impl IntoIterator<Item = usize>) -> CpuSet {
    let mut set = CpuSet::new();
    for cpu in cpus.into_iter().filter(|cpu| *cpu < CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    set
}

fn cpus(set: &CpuSet) -> BTreeSet<usize> {
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}
