//! What a host is like: control groups, where its tasks may run and how, huge pages, drivers. Two moments can be compared.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

use super::eventually;

/// The host at one moment, as the kernel tells it.
#[derive(Debug)]
pub(crate) struct HostState {
    /// Every file of the control group tree that holds what somebody has set.
    groups: BTreeMap<PathBuf, String>,
    /// By number and start: the beginning of the name, `Cpus_allowed_list`, scheduling policy and priority.
    tasks: BTreeMap<(u32, String), [String; 4]>,
    /// Counts of every pool of every node, and the host's.
    huge_pages: BTreeMap<PathBuf, String>,
    /// The driver, the override and the power policy of every PCI function.
    drivers: BTreeMap<PathBuf, (Option<PathBuf>, String, String)>,
}

impl HostState {
    pub(crate) fn now() -> Self {
        Self {
            groups: groups(),
            tasks: tasks(),
            huge_pages: huge_pages(),
            drivers: drivers(),
        }
    }

    /// It is as it was then, as soon as the kernel has finished what it does by the way (a controller's disk appears some time after
    /// its driver). Tasks that have come or gone meanwhile are no difference.
    #[track_caller]
    pub(crate) fn is_now(&self, moment: &str) {
        let mut last = String::new();
        for _ in 0..SETTLING {
            last = self.difference(&Self::now());
            if last.is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{moment}: {last}");
    }

    /// What is not as it was; empty if nothing.
    fn difference(&self, now: &Self) -> String {
        let alive = |task: &(&(u32, String), &[String; 4])| now.tasks.contains_key(task.0);
        let lived = |task: &(&(u32, String), &[String; 4])| self.tasks.contains_key(task.0);
        [
            changes(self.groups.iter(), now.groups.iter()),
            changes(self.tasks.iter().filter(alive), now.tasks.iter().filter(lived)),
            changes(self.huge_pages.iter(), now.huge_pages.iter()),
            changes(self.drivers.iter(), now.drivers.iter()),
        ]
        .concat()
    }
}

fn changes<'m, K: Ord + Debug + 'm, V: PartialEq + Debug + 'm>(
    before: impl Iterator<Item = (&'m K, &'m V)>,
    now: impl Iterator<Item = (&'m K, &'m V)>,
) -> String {
    let (before, now): (BTreeMap<_, _>, BTreeMap<_, _>) = (before.collect(), now.collect());
    let gone = before.iter().filter(|(key, value)| now.get(*key) != Some(*value));
    let come = now.iter().filter(|(key, _)| !before.contains_key(*key));
    let gone = gone.map(|(key, value)| format!("{key:?} was {value:?} and is {:?}; ", now.get(key)));
    let come = come.map(|(key, value)| format!("{key:?} is new: {value:?}; "));
    gone.chain(come).collect()
}

fn groups() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in read_dir(&folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type().unwrap().is_dir() {
                found.insert(path.clone(), String::new());
                folders.push(path);
            } else if !COUNTED.iter().any(|part| name.contains(part)) {
                found.insert(path.clone(), read_to_string(path).unwrap_or_default());
            }
        }
    }
    found
}

fn tasks() -> BTreeMap<(u32, String), [String; 4]> {
    let numbers = |folder: &Path| {
        let entries = read_dir(folder).into_iter().flatten().flatten();
        let number = |name: std::ffi::OsString| name.to_string_lossy().parse::<u32>().ok();
        entries
            .filter_map(move |entry| number(entry.file_name()))
            .collect::<Vec<_>>()
    };
    let mut found = BTreeMap::new();
    for process in numbers(Path::new("/proc")) {
        let folder = Path::new("/proc").join(process.to_string()).join("task");
        for thread in numbers(&folder) {
            let read = |name: &str| read_to_string(folder.join(thread.to_string()).join(name)).ok();
            // It may end meanwhile.
            found.extend(read("stat").zip(read("status")).and_then(|(stat, status)| {
                let (head, fields) = stat.rsplit_once(") ")?;
                let fields: Vec<&str> = fields.split_whitespace().collect();
                let allowed = status
                    .lines()
                    .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
                // Fields 22, 40 and 41 of proc(5): start, real-time priority, policy.
                let [started, priority, policy] = [22, 40, 41].map(|field| fields[field - 3].to_owned());
                let name = head.split_once('(')?.1;
                // One of the kernel's workers is named for what it did last.
                let name = name.split('-').next().unwrap_or(name).to_owned();
                let flags: u64 = fields[9 - 3].parse().ok()?;
                let allowed = match flags & PF_NO_SETAFFINITY {
                    0 => allowed.trim(),
                    // A kernel's thread that the kernel alone moves: a rescuer is set onto the CPUs of whom it rescues, each time anew.
                    _ => "the kernel's own affair",
                };
                Some(((thread, started), [name, allowed.to_owned(), policy, priority]))
            }));
        }
    }
    found
}

fn huge_pages() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::from("/sys/kernel/mm/hugepages")];
    for entry in read_dir("/sys/devices/system/node")
        .into_iter()
        .flatten()
        .flatten()
    {
        folders.push(entry.path().join("hugepages"));
    }
    for pool in folders
        .iter()
        .flat_map(|folder| read_dir(folder).into_iter().flatten().flatten())
    {
        for file in read_dir(pool.path()).into_iter().flatten().flatten() {
            found.insert(file.path(), read_to_string(file.path()).unwrap_or_default());
        }
    }
    let meminfo = read_to_string("/proc/meminfo").unwrap();
    let lines = meminfo.lines().filter(|line| line.starts_with("HugePages_"));
    found.extend(lines.map(|line| (PathBuf::from("/proc/meminfo").join(&line[..14]), line.to_owned())));
    found
}

fn drivers() -> BTreeMap<PathBuf, (Option<PathBuf>, String, String)> {
    let functions = read_dir("/sys/bus/pci/devices")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let state = |function: PathBuf| {
        let driver = std::fs::read_link(function.join("driver")).ok();
        let read = |file: &str| read_to_string(function.join(file)).unwrap_or_default();
        let (only, power) = (read("driver_override"), read("power/control"));
        (function, (driver, only, power))
    };
    functions.map(state).collect()
}

/// Waits until the serial number of a controller can be read, and returns it.
#[track_caller]
pub(crate) fn serial_of(device: &str) -> String {
    eventually(&format!("the serial number of {device}"), || {
        let folder = format!("/sys/bus/pci/devices/{device}/nvme");
        let controller = read_dir(folder).ok()?.flatten().next()?.path();
        let serial = read_to_string(controller.join("serial")).ok()?;
        Some(serial.trim().to_owned())
    })
}

/// Files of the control group tree that count what happens, instead of saying what somebody wants.
const COUNTED: [&str; 7] = [
    "stat", "pressure", "events", "current", "peak", "procs", "threads",
];
/// Looks at the host before a difference is one.
const SETTLING: u32 = 50;
/// include/linux/sched.h: user space may not change the affinity of this thread.
const PF_NO_SETAFFINITY: u64 = 0x0400_0000;
