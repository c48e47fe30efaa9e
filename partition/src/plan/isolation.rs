//! How strongly this host can keep others off dedicated CPUs, judged from what was surveyed.

use crate::cgroup::{CpuIsolation, Isolation};
use crate::inventory::{CgroupVersion, Inventory};

/// What can be had for these CPUs.
pub(super) fn planned(inventory: &Inventory, cpus: &[usize]) -> Isolation {
    let decided = |level, reason: String| Isolation { level, reason };
    if let Some(reason) = obstacle(inventory, cpus) {
        return decided(CpuIsolation::Affinity, reason);
    }
    let kernel = &inventory.kernel;
    let at_least = |version| inventory.kernel_is_at_least(version);
    match (at_least(ISOLATED_SINCE), at_least(ROOT_SINCE)) {
        (true, _) => decided(CpuIsolation::Isolated, String::new()),
        (false, true) => decided(
            CpuIsolation::Root,
            format!("kernel {kernel} has no isolated cpuset partitions; they came with 6.1"),
        ),
        (false, false) => decided(
            CpuIsolation::Affinity,
            format!("kernel {kernel:?} has no cpuset partitions; they came with 5.0"),
        ),
    }
}

/// Why no cpuset partition can be made here, if none can.
fn obstacle(inventory: &Inventory, cpus: &[usize]) -> Option<String> {
    let cgroup = &inventory.cgroup;
    let is_partition = matches!(cgroup.partition.as_deref(), Some("root" | "isolated"));
    let reason = match cgroup.version {
        CgroupVersion::None => "no control groups are mounted",
        CgroupVersion::V1 => "control groups of version 1 have no cpuset partitions; mount cgroup2",
        _ if !cgroup.controllers.iter().any(|name| name == "cpuset") => {
            "the cgroup v2 hierarchy lacks the controller cpuset; version 1 may have it"
        }
        _ if !cgroup.writable => {
            "this process may not make control groups; run as root with cgroup2 writable"
        }
        _ if !cgroup.host_root && !is_partition => {
            "this process is in a container whose cpuset is not a partition itself"
        }
        _ if inventory.usable_cpus().all(|cpu| cpus.contains(&cpu.id)) => {
            "a cpuset partition of all CPUs would leave none for other tasks"
        }
        _ => return None,
    };
    Some(reason.to_owned())
}

/// `cpuset.cpus.partition` took `isolated` in Linux 6.1 and `root` in 5.0 (Documentation/admin-guide/cgroup-v2.rst).
const ISOLATED_SINCE: (u32, u32) = (6, 1);
const ROOT_SINCE: (u32, u32) = (5, 0);
