//! Where a process stands: told when a guest does not come to what is waited for, so that a slow one is known from one that hangs.

use std::fmt::Write;
use std::fs::{read_dir, read_to_string};
use std::path::Path;
use std::time::Duration;

/// Each thread with its state and CPU time in clock ticks, and the exits of its vCPUs, twice with a second between.
pub(crate) fn standing(pid: u32) -> String {
    let first = sample(pid);
    std::thread::sleep(Duration::from_secs(1));
    format!("its threads and vCPUs:\n{first}a second later:\n{}", sample(pid))
}

/// Where the processes stand that wait in the kernel and cannot be woken.
pub(crate) fn blocked() -> String {
    let mut text = String::new();
    for entry in read_dir("/proc").into_iter().flatten().flatten() {
        let read = |name: &str| read_to_string(entry.path().join(name)).unwrap_or_default();
        let status = read("status");
        if status.contains("State:\tD") {
            let name = status.lines().next().unwrap_or_default();
            let _in_memory = writeln!(text, "{name} stands at\n{}", read("stack"));
        }
    }
    text
}

fn sample(pid: u32) -> String {
    let mut text = String::new();
    for entry in read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let read = |name: &str| read_to_string(entry.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        let (head, fields) = stat.rsplit_once(") ").unwrap_or_default();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // Fields 3, 14 and 15 of proc(5): state, user and system time.
        let [state, user, system] = [3, 14, 15].map(|field| fields.get(field - 3).copied().unwrap_or("?"));
        let _in_memory = writeln!(
            text,
            "  {head}) {state}, user {user}, system {system}, in {:?}",
            read("wchan")
        );
    }
    let machines = read_dir("/sys/kernel/debug/kvm").into_iter().flatten().flatten();
    let own = machines.filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("{pid}-"))
    });
    for machine in own {
        for vcpu in (0..)
            .map(|index| machine.path().join(format!("vcpu{index}")))
            .take_while(|path| path.exists())
        {
            let _in_memory = writeln!(text, "  {}: {}", vcpu.display(), counts(&vcpu));
        }
    }
    text
}

fn counts(vcpu: &Path) -> String {
    let count = |name: &&str| {
        let text = read_to_string(vcpu.join(name)).ok()?;
        Some(format!("{name} {}", text.trim()))
    };
    let all: Vec<String> = ["exits", "halt_exits", "io_exits", "mmio_exits", "irq_exits"]
        .iter()
        .filter_map(count)
        .collect();
    all.join(", ")
}
