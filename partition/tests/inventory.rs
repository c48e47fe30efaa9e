//! The survey of a host, on trees of files: what the kernel may write there, and what it may leave out.
#![allow(clippy::unwrap_used, reason = "a test")]

mod fixture;

use fixture::{GIB, Host};
use pellucid_partition::{Cpu, Inventory};

fn ids<'c>(cpus: impl Iterator<Item = &'c Cpu>) -> Vec<usize> {
    cpus.map(|cpu| cpu.id).collect()
}

#[test]
fn siblings_of_a_core_know_each_other() {
    let inventory = Host::one_socket().survey();
    assert_eq!(ids(inventory.cpus.iter()), [0, 1, 2, 3]);
    assert_eq!(inventory.cpus[1].siblings, [1, 3]);
    assert_eq!((inventory.cpus[3].package, inventory.cpus[3].core), (0, 1));
}

#[test]
fn a_cpu_counts_itself_among_its_siblings_also_where_the_kernel_says_nothing() {
    let host = Host::one_socket();
    host.remove("sys/devices/system/cpu/cpu2/topology/thread_siblings_list");
    host.remove("sys/devices/system/cpu/cpu2/topology/core_id");
    let inventory = host.survey();
    assert_eq!(inventory.cpus[2].siblings, [2]);
    assert_eq!(
        inventory.cpus[2].core, 2,
        "a core of its own, not one of another CPU's"
    );
}

#[test]
fn two_nodes_share_out_cpus_memory_and_huge_pages() {
    let inventory = Host::two_nodes().survey();
    let nodes: Vec<_> = inventory.cpus.iter().map(|cpu| cpu.node).collect();
    assert_eq!(nodes, [0, 0, 1, 1]);
    assert_eq!(inventory.nodes.len(), 2);
    let node = &inventory.nodes[1];
    assert_eq!((node.id, node.total, node.free), (1, 4 * GIB, GIB));
    assert_eq!((node.free_2m, node.free_1g), (512, 2));
}

#[test]
fn a_kernel_without_memory_nodes_has_one_with_everything() {
    let host = Host::one_socket();
    host.write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "7\n");
    let inventory = host.survey();
    assert_eq!(inventory.nodes.len(), 1);
    let node = &inventory.nodes[0];
    assert_eq!((node.id, node.total, node.free), (0, 8 * GIB, 6 * GIB));
    assert_eq!((node.free_2m, node.free_1g), (7, 0));
    assert!(inventory.cpus.iter().all(|cpu| cpu.node == 0));
}

#[test]
fn a_node_without_cpus_is_there_all_the_same() {
    let host = Host::two_nodes();
    host.write("sys/devices/system/node/online", "0-2\n");
    host.node(2, "", (16 * GIB, 16 * GIB), (0, 0));
    let inventory = host.survey();
    assert_eq!(inventory.nodes[2].free, 16 * GIB);
    assert!(inventory.cpus.iter().all(|cpu| cpu.node != 2));
}

#[test]
fn offline_cpus_are_listed_and_not_usable() {
    let host = Host::one_socket();
    host.write("sys/devices/system/cpu/online", "0-2\n");
    let inventory = host.survey();
    assert_eq!(ids(inventory.cpus.iter()), [0, 1, 2, 3]);
    assert!(!inventory.cpus[3].online);
    assert_eq!(ids(inventory.usable_cpus()), [0, 1, 2]);
}

#[test]
fn isolated_cpus_are_marked_and_usable() {
    let host = Host::one_socket();
    host.write("sys/devices/system/cpu/isolated", "2-3\n");
    let inventory = host.survey();
    let isolated = inventory.cpus.iter().filter(|cpu| cpu.isolated);
    assert_eq!(ids(isolated), [2, 3]);
    assert_eq!(ids(inventory.usable_cpus()), [0, 1, 2, 3]);
}

#[test]
fn cpus_that_this_process_may_not_use_are_not_usable() {
    let host = Host::one_socket();
    host.status("1,3", "0");
    let inventory = host.survey();
    assert_eq!(ids(inventory.usable_cpus()), [1, 3]);
    assert!(inventory.cpus[0].online && !inventory.cpus[0].allowed);
}

#[test]
fn cpus_count_as_allowed_where_the_kernel_does_not_say() {
    let host = Host::one_socket();
    host.write("proc/self/status", "CapEff:\t0\n");
    assert_eq!(ids(host.survey().usable_cpus()), [0, 1, 2, 3]);
}

#[test]
fn online_cpus_are_present_also_where_the_kernel_does_not_say_which_are() {
    let host = Host::one_socket();
    host.remove("sys/devices/system/cpu/present");
    assert_eq!(ids(host.survey().cpus.iter()), [0, 1, 2, 3]);
}

#[test]
fn the_memlock_limit_does_not_bind_who_may_lock_memory() {
    let host = Host::one_socket();
    host.status("0-3", "0000000000004000");
    assert_eq!(host.survey().memlock, None, "CAP_IPC_LOCK is bit 14");
    host.status("0-3", "000001ffffffbfff");
    assert_eq!(
        host.survey().memlock,
        Some(8_388_608),
        "every capability but that one"
    );
}

#[test]
fn an_unlimited_memlock_is_no_limit() {
    let host = Host::one_socket();
    host.status("0-3", "0");
    host.limits("unlimited");
    assert_eq!(host.survey().memlock, None);
}

#[test]
fn available_memory_is_what_the_kernel_would_give_without_swapping() {
    assert_eq!(Host::one_socket().survey().memory_available, 7 * GIB);
}

#[test]
fn a_missing_file_is_named_with_a_remedy() {
    for missing in [
        "sys/devices/system/cpu/online",
        "proc/meminfo",
        "proc/self/status",
        "sys/devices/system/node/node1/meminfo",
    ] {
        let host = Host::two_nodes();
        host.remove(missing);
        let refusal = Inventory::survey_at(host.root()).unwrap_err();
        assert!(refusal.path.ends_with(missing), "{refusal}");
        assert!(refusal.to_string().contains("is it mounted?"), "{refusal}");
    }
}

#[test]
fn a_memory_file_without_its_line_is_named_with_the_line() {
    let host = Host::one_socket();
    host.write("proc/meminfo", "MemTotal: 1 kB\nMemFree: many kB\n");
    let refusal = Inventory::survey_at(host.root()).unwrap_err().to_string();
    assert!(
        refusal.contains("proc/meminfo") && refusal.contains("MemFree"),
        "{refusal}"
    );
}

#[test]
fn absurd_sizes_saturate() {
    let host = Host::one_socket();
    host.write(
        "proc/meminfo",
        &format!(
            "MemTotal: {0} kB\nMemFree: {0} kB\nMemAvailable: {0} kB\n",
            u64::MAX
        ),
    );
    assert_eq!(host.survey().memory_available, u64::MAX);
}

#[test]
fn noise_in_optional_files_counts_as_nothing_said() {
    let host = Host::two_nodes();
    host.write("sys/devices/system/cpu/isolated", "?\n");
    host.write("sys/devices/system/cpu/cpu0/topology/physical_package_id", "\0\0");
    host.write(
        "sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages",
        "-3\n",
    );
    let inventory = host.survey();
    assert!(inventory.cpus.iter().all(|cpu| !cpu.isolated));
    assert_eq!((inventory.cpus[0].package, inventory.nodes[1].free_2m), (0, 0));
}

#[test]
fn controllers_of_cgroup_v2_are_listed_and_their_absence_is_no_error() {
    let host = Host::one_socket();
    assert!(host.survey().cgroup_controllers.is_empty());
    host.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory\n");
    assert_eq!(host.survey().cgroup_controllers, ["cpuset", "cpu", "memory"]);
}

#[test]
fn two_surveys_of_one_host_are_equal_and_survive_being_written_down() {
    let host = Host::two_nodes();
    let inventory = host.survey();
    assert_eq!(inventory, host.survey());
    let text = serde_json::to_string(&inventory).unwrap();
    assert_eq!(serde_json::from_str::<Inventory>(&text).unwrap(), inventory);
}

#[test]
fn a_tree_of_files_is_not_asked_for_kvm() {
    let reason = Host::one_socket().survey().kvm.unwrap_err();
    assert!(
        reason.contains("dev/kvm") && reason.contains("not asked"),
        "{reason}"
    );
}

#[test]
fn this_host_can_be_surveyed() {
    let inventory = Inventory::survey().unwrap();
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    for cpu in &inventory.cpus {
        assert_eq!(
            cpu.online && cpu.allowed,
            allowed.is_set(cpu.id),
            "CPU {}",
            cpu.id
        );
    }
    assert!(inventory.memory_available > 0);
    if let Err(reason) = inventory.kvm {
        assert!(reason.contains("/dev/kvm"), "{reason}");
    }
}
