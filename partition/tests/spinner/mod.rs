//! A partition of one vCPU that spins or idles, what it got, and the control group tree around it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part, and ends where the host fails it"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use pellucid_partition::{Cap, CgroupTree, CpuHold, CpuInterval, CpuShare, StateDir, Weight};

/// The CPU of which the tests take shares, the last of the emulated server's three.
pub(crate) const CPU: usize = 2;

/// All tests change the same tree.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TREE: Mutex<()> = Mutex::new(());
    TREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A partition whose one vCPU spins, idles or ends.
pub(crate) struct Spinner {
    pub(crate) hold: Arc<CpuHold>,
    order: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

impl Spinner {
    pub(crate) fn start(state: &StateDir, name: &str) -> Self {
        let hold = Arc::new(CpuHold::new(&CgroupTree::of_host(), state, name, 1, &[CPU]));
        let order = Arc::new(AtomicU8::new(0));
        let (told, seated, own) = (Arc::clone(&order), channel(), Arc::clone(&hold));
        let thread = std::thread::spawn(move || {
            let _seat = own.seat(0).unwrap();
            seated.0.send(()).unwrap();
            loop {
                match told.load(Ordering::Relaxed) {
                    0 => std::hint::spin_loop(),
                    1 => std::thread::sleep(Duration::from_millis(5)),
                    _ => return,
                }
            }
        });
        seated.1.recv().unwrap();
        let thread = Some(thread);
        Self { hold, order, thread }
    }

    pub(crate) fn idle(&self, idle: bool) {
        self.order.store(u8::from(idle), Ordering::Relaxed);
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.order.store(2, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

pub(crate) fn share(weight: u32, cap: Option<&str>) -> CpuShare {
    CpuShare {
        weight: Weight::new(weight).unwrap(),
        cap: cap.map(|cap| cap.parse::<Cap>().unwrap()),
    }
}

/// What each got in the same time.
pub(crate) fn measure(spinners: &[&Spinner], time: Duration) -> Vec<CpuInterval> {
    let before: Vec<_> = spinners.iter().map(|spinner| spinner.hold.usage()).collect();
    std::thread::sleep(time);
    let after = spinners.iter().map(|spinner| spinner.hold.usage());
    after
        .zip(before)
        .map(|(after, before)| after.since(&before))
        .collect()
}

/// The part of each in what all of them got, in percent.
pub(crate) fn parts(intervals: &[CpuInterval]) -> Vec<f64> {
    let all: f64 = intervals.iter().map(|interval| interval.got.as_secs_f64()).sum();
    intervals
        .iter()
        .map(|interval| interval.got.as_secs_f64() / all * 100.0)
        .collect()
}

pub(crate) fn near(value: f64, wanted: f64, points: f64) -> bool {
    (value - wanted).abs() <= points
}

pub(crate) fn state() -> (tempfile::TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    (directory, state)
}

/// Every group and what was set in it.
pub(crate) fn tree() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for file in [
            "cgroup.subtree_control",
            "cgroup.type",
            "cpuset.cpus",
            "cpuset.cpus.partition",
            "cpuset.cpus.effective",
            "cpu.weight",
            "cpu.max",
        ] {
            found.insert(
                folder.join(file),
                std::fs::read_to_string(folder.join(file)).unwrap_or_default(),
            );
        }
        let entries = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        folders.extend(entries.filter(|path| path.is_dir()));
    }
    found
}

pub(crate) fn own_group() -> String {
    std::fs::read_to_string("/proc/self/cgroup").unwrap()
}
