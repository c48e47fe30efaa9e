//! The survey of a host, on trees of files: what the kernel may write there, and what it may leave out.
#![allow(clippy::unwrap_used, reason = "a test")]

mod fixture;

use std::collections::{BTreeMap, BTreeSet};

use fixture::{GIB, Host};
use pellucid_partition::{CacheKind, Cgroup, CgroupVersion, CoreKind, Cpu, Inventory, PageSize};

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
fn a_container_with_a_reduced_cpuset_can_use_that_and_no_more() {
    let inventory = Host::one_socket().in_container("1,3").survey();
    assert_eq!(ids(inventory.usable_cpus()), [1, 3]);
    assert!(inventory.cpus[0].online && !inventory.cpus[0].allowed);
    let home = inventory.cgroup.home.unwrap();
    assert_eq!(
        (home.path.as_str(), home.partition.as_deref()),
        ("/", Some("member"))
    );
}

#[test]
fn an_affinity_mask_hides_no_cpu_that_can_be_had() {
    let host = Host::one_socket().with_cgroup_v2();
    host.write("sys/devices/system/cpu/isolated", "2-3\n");
    host.status("0-1", "0");
    assert_eq!(
        ids(host.survey().usable_cpus()),
        [0, 1, 2, 3],
        "as with isolcpus=2-3"
    );
}

#[test]
fn the_cpuset_is_that_of_the_nearest_group_that_has_one() {
    let host = Host::one_socket().with_cgroup_v2();
    host.write("sys/fs/cgroup/system.slice/cpuset.cpus.effective", "0-2\n");
    assert_eq!(ids(host.survey().usable_cpus()), [0, 1, 2]);
    host.write(
        "sys/fs/cgroup/system.slice/vmm.service/cpuset.cpus.effective",
        "1\n",
    );
    assert_eq!(ids(host.survey().usable_cpus()), [1]);
}

#[test]
fn cpus_count_as_allowed_where_no_cpuset_restricts_them() {
    let inventory = Host::one_socket().survey();
    assert_eq!(inventory.cgroup, Cgroup::default());
    assert_eq!(ids(inventory.usable_cpus()), [0, 1, 2, 3]);
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
fn controllers_of_cgroup_v2_are_those_of_the_root_and_those_of_the_own_group() {
    let cgroup = Host::one_socket().with_cgroup_v2().survey().cgroup;
    assert_eq!(cgroup.version, CgroupVersion::V2);
    assert_eq!(
        cgroup.controllers,
        ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"]
    );
    assert_eq!(cgroup.own_controllers, ["cpu", "memory", "pids"]);
    assert_eq!(
        (cgroup.mount.as_str(), cgroup.path.as_str()),
        ("/sys/fs/cgroup", "/system.slice/vmm.service")
    );
}

#[test]
fn home_is_the_root_that_may_be_written_to_else_the_own_group_else_it_is_said_why_not() {
    let home = |host: &Host| host.survey().cgroup.home;
    let host = Host::one_socket().with_cgroup_v2();
    host.write("sys/fs/cgroup/machine.slice/cpuset.cpus", "3\n");
    host.write("sys/fs/cgroup/user.slice/cpuset.cpus", "\n");
    let root = home(&host).unwrap();
    assert_eq!((root.path.as_str(), root.partition), ("/", None));
    assert_eq!(root.cpus, BTreeSet::from([0, 1, 2, 3]));
    assert_eq!(
        root.named,
        BTreeMap::from([("machine.slice".to_owned(), BTreeSet::from([3]))])
    );
    host.remove("sys/fs/cgroup/cgroup.procs");
    let refusal = home(&host).unwrap_err();
    assert!(
        refusal.starts_with("/sys/fs/cgroup/system.slice/vmm.service may not be written to; run as root"),
        "{refusal}"
    );
    let own = "sys/fs/cgroup/system.slice/vmm.service";
    host.write(&format!("{own}/cgroup.subtree_control"), "\n");
    let delegated = home(&host).unwrap();
    assert_eq!(delegated.path, "/system.slice/vmm.service");
    assert_eq!(delegated.controllers, ["cpu", "memory", "pids"]);
    host.write("proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 ro 0 0\n");
    assert!(home(&host).unwrap_err().contains("mounted read-only"));
    host.write("proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
    host.write("proc/self/cgroup", "1:cpu:/\n");
    assert!(home(&host).unwrap_err().contains("in no group"));
    assert!(home(&Host::one_socket()).unwrap_err().contains("mount cgroup2"));
}

#[test]
fn a_host_with_cgroup_v1_only_tells_its_controllers_and_its_cpuset() {
    let host = Host::one_socket().with_cgroup_v1();
    host.write("sys/fs/cgroup/cpuset/jobs/cpuset.effective_cpus", "0-1\n");
    let inventory = host.survey();
    assert_eq!(inventory.cgroup.version, CgroupVersion::V1);
    assert_eq!(
        inventory.cgroup.controllers,
        ["cpu", "cpuacct", "cpuset", "memory"]
    );
    assert_eq!(inventory.cgroup.path, "/jobs");
    assert_eq!(ids(inventory.usable_cpus()), [0, 1]);
}

#[test]
fn version_2_beside_version_1_is_a_hybrid_whose_cpuset_is_that_of_version_1() {
    let host = Host::one_socket().with_cgroup_v1();
    host.write(
        "proc/self/mounts",
        "cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
    );
    host.write("proc/self/cgroup", "3:cpuset:/jobs\n0::/\n");
    host.write("sys/fs/cgroup/unified/cgroup.controllers", "\n");
    host.write("sys/fs/cgroup/cpuset/jobs/cpuset.effective_cpus", "2-3\n");
    let inventory = host.survey();
    assert_eq!(inventory.cgroup.version, CgroupVersion::Hybrid);
    assert!(inventory.cgroup.controllers.is_empty());
    assert_eq!(ids(inventory.usable_cpus()), [2, 3]);
}

#[test]
fn hybrid_cores_are_told_apart_by_the_kernels_list_or_by_their_capacity() {
    let slow = |inventory: &Inventory| {
        ids(inventory
            .cpus
            .iter()
            .filter(|cpu| cpu.kind == CoreKind::Efficiency))
    };
    assert_eq!(slow(&Host::hybrid().survey()), [4, 5, 6, 7]);
    let host = Host::one_socket();
    for (cpu, capacity) in [(0, 1024), (1, 446), (2, 1024), (3, 446)] {
        host.write(
            &format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity"),
            &format!("{capacity}\n"),
        );
    }
    assert_eq!(slow(&host.survey()), [1, 3]);
    assert_eq!(slow(&Host::two_nodes().survey()), [] as [usize; 0]);
}

#[test]
fn a_cache_is_told_once_with_those_who_share_it() {
    let host = Host::one_socket();
    for cpu in 0..4 {
        let core = format!("{},{}", cpu % 2, cpu % 2 + 2);
        host.cache(cpu, 0, (1, "Data", "48K", &core));
        host.cache(cpu, 1, (1, "Instruction", "32K", &core));
        host.cache(cpu, 2, (3, "Unified", "32M", "0-3"));
    }
    let caches = host.survey().caches;
    let told: Vec<_> = caches
        .iter()
        .map(|c| (c.level, c.kind, c.cpus.clone(), c.size))
        .collect();
    assert_eq!(
        told,
        [
            (1, CacheKind::Data, vec![0, 2], 48 << 10),
            (1, CacheKind::Data, vec![1, 3], 48 << 10),
            (1, CacheKind::Instruction, vec![0, 2], 32 << 10),
            (1, CacheKind::Instruction, vec![1, 3], 32 << 10),
            (3, CacheKind::Unified, vec![0, 1, 2, 3], 32 << 20),
        ]
    );
}

#[test]
fn what_a_node_could_free_without_swapping_counts_as_available() {
    let host = Host::two_nodes();
    host.write(
        "sys/devices/system/node/node1/meminfo",
        "Node 1 MemTotal: 4096 kB\nNode 1 MemFree: 1024 kB\nNode 1 Active(file): 512 kB\nNode 1 Inactive(file): 256 kB\nNode 1 SReclaimable: 128 kB\n",
    );
    let node = &host.survey().nodes[1];
    assert_eq!((node.free, node.available), (1024 << 10, 1920 << 10));
    assert_eq!(node.free_pages(PageSize::Size4K), 480);
    let pools = &Host::two_nodes().survey().nodes[1];
    assert_eq!(
        (
            pools.free_pages(PageSize::Size2M),
            pools.free_pages(PageSize::Size1G)
        ),
        (512, 2)
    );
}

#[test]
fn distances_stand_in_the_order_of_the_nodes() {
    let nodes = Host::two_nodes().survey().nodes;
    assert_eq!(
        (nodes[0].distances.clone(), nodes[1].distances.clone()),
        (vec![10, 21], vec![21, 10])
    );
    assert!(Host::one_socket().survey().nodes[0].distances.is_empty());
}

#[test]
fn the_kernel_and_the_width_of_addresses_are_told_where_they_can_be_read() {
    let inventory = Host::one_socket().survey();
    assert_eq!(
        (inventory.kernel.as_str(), inventory.address_bits),
        ("6.12.30+deb13-amd64", Some(46))
    );
    let host = Host::one_socket();
    host.remove("proc/cpuinfo");
    host.remove("proc/sys/kernel/osrelease");
    let inventory = host.survey();
    assert_eq!((inventory.kernel.as_str(), inventory.address_bits), ("", None));
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
    for cpu in inventory.usable_cpus() {
        let mut only = rustix::thread::CpuSet::new();
        only.set(cpu.id);
        let moved = std::thread::spawn(move || rustix::thread::sched_setaffinity(None, &only));
        assert!(moved.join().unwrap().is_ok(), "CPU {} can be had", cpu.id);
    }
    assert!(inventory.usable_cpus().count() > 0);
    assert!(inventory.memory_available > 0);
    match inventory.kvm {
        Ok(kvm) => assert!(kvm.max_vcpus >= kvm.recommended_vcpus && kvm.capability("IRQFD") > 0),
        Err(reason) => assert!(reason.contains("/dev/kvm"), "{reason}"),
    }
}
