//! What a running VMM's process holds that could leak, and what the host has given for its devices.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Counts by what is counted.
pub(crate) type Holdings = BTreeMap<&'static str, usize>;

/// Now.
pub(crate) fn holdings(pid: u32) -> Holdings {
    let process = format!("/proc/{pid}");
    let text = |path: &str| std::fs::read_to_string(path).unwrap();
    let entries = |folder: &str| std::fs::read_dir(format!("{process}/{folder}")).unwrap().count();
    let lines = |path: &str, word: &str| text(path).lines().filter(|line| line.contains(word)).count();
    let status = text(&format!("{process}/status"));
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let locked = locked.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    BTreeMap::from([
        ("descriptors", entries("fd")),
        ("threads", entries("task")),
        ("maps of devices", lines(&format!("{process}/maps"), "vfio")),
        // Those of the heap and of stacks come and go as the allocator likes.
        ("maps of files", lines(&format!("{process}/maps"), "/")),
        ("KiB locked", locked),
        ("vectors", lines("/proc/interrupts", "vfio-msi")),
    ])
}

/// What is held once what ends by the way has ended: what is wanted, or else twice the same.
pub(crate) fn settled(pid: u32, wanted: Option<&Holdings>) -> Holdings {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut last = Holdings::new();
    loop {
        let now = holdings(pid);
        if wanted.map_or(now == last, |wanted| now == *wanted) || Instant::now() > deadline {
            return now;
        }
        last = now;
        std::thread::sleep(Duration::from_millis(if wanted.is_some() { 20 } else { 300 }));
    }
}
