//! What the kernel tells of a CPU: how long it was idle or stolen, and which tasks were there last.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::thread::Pid;

use crate::cgroup::CgroupTree;

/// A CPU's line of `/proc/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTimes {
    /// Idle, also while it waited for a disk.
    pub(super) idle: Duration,
    /// Taken by a hypervisor above.
    pub(super) stolen: Duration,
}

/// Every CPU's times.
pub(super) fn cpu_times(tree: &CgroupTree) -> BTreeMap<usize, CpuTimes> {
    let text = fs::read_to_string(tree.proc("stat")).unwrap_or_default();
    let tick = Duration::from_secs(1) / rustix::param::clock_ticks_per_second().max(1) as u32;
    let line = |line: &str| {
        let mut words = line.strip_prefix("cpu")?.split_whitespace();
        let cpu = words.next()?.parse().ok()?;
        let ticks: Vec<u32> = words
            .map(|word| word.parse::<u64>().unwrap_or(0) as u32)
            .collect();
        let idle = tick * ticks.get(3)?.checked_add(*ticks.get(4)?)?;
        let stolen = tick * *ticks.get(7)?;
        Some((cpu, CpuTimes { idle, stolen }))
    };
    text.lines().filter_map(line).collect()
}

/// Some of the tasks that run on the CPU now, or that ran there last, by name; neither `vcpu` nor the kernel's own threads of that CPU.
pub(super) fn last_on(tree: &CgroupTree, cpu: usize, vcpu: Pid) -> Vec<String> {
    let own = vcpu.as_raw_nonzero().to_string();
    let mut found = Vec::new();
    for process in numbered(&tree.proc("")) {
        for task in numbered(&process.join("task")) {
            let is_vcpu = task.file_name().is_some_and(|name| name.to_string_lossy() == own);
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            found.extend(seen_on(&stat, cpu).filter(|_| !is_vcpu));
        }
    }
    // Those that run now first.
    found.sort();
    found.into_iter().map(|(_, name)| name).take(MOST_TASKS).collect()
}

/// Whether a task waits, and its name, if it is one that moves between CPUs and ran on that one last (fields 2, 3 and 39 of `stat`).
fn seen_on(stat: &str, cpu: usize) -> Option<(bool, String)> {
    let (head, fields) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let last: usize = fields.split_whitespace().nth(39 - 3)?.parse().ok()?;
    let per_cpu = name.rsplit_once('/').is_some_and(|(_, rest)| {
        rest.split(':')
            .next()
            .is_some_and(|number| number == cpu.to_string())
    });
    let waits = !fields.starts_with('R');
    (last == cpu && !per_cpu).then(|| (waits, name.to_owned()))
}

/// The folders below whose names are numbers.
fn numbered(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .map(|entry| entry.path())
}

const MOST_TASKS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(name: &str, cpu: usize) -> String {
        let zeros = "0 ".repeat(35);
        format!("7 ({name}) S {zeros}{cpu} 0 0\n")
    }

    fn name(stat: &str, cpu: usize) -> Option<String> {
        seen_on(stat, cpu).map(|(_, name)| name)
    }

    #[test]
    fn who_runs_now_is_told_from_who_waits() {
        let runs = stat("sshd", 1).replace(") S", ") R");
        assert_eq!(seen_on(&runs, 1), Some((false, "sshd".to_owned())));
        assert_eq!(seen_on(&stat("sshd", 1), 1), Some((true, "sshd".to_owned())));
    }

    #[test]
    fn a_task_is_named_where_it_ran_last_whatever_its_name_looks_like() {
        assert_eq!(name(&stat("sshd", 1), 1).as_deref(), Some("sshd"));
        assert_eq!(name(&stat("a) S 1 (b", 1), 1).as_deref(), Some("a) S 1 (b"));
        assert_eq!(name(&stat("sshd", 1), 2), None);
        assert_eq!(name("7 (sshd) S 1", 1), None);
    }

    #[test]
    fn the_kernels_own_threads_of_a_cpu_are_not_foreign_there() {
        for own in ["ksoftirqd/1", "kworker/1:2-events", "migration/1"] {
            assert_eq!(name(&stat(own, 1), 1), None, "{own}");
        }
        assert_eq!(name(&stat("kworker/u4:1", 1), 1).as_deref(), Some("kworker/u4:1"));
    }
}
