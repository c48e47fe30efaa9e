//! What a host cannot carry: each refusal says what was asked, why not, and what would fit.
#![allow(clippy::unwrap_used, reason = "a test")]

mod fixture;

use fixture::{GIB, Host, MIB};
use pellucid_partition::{
    CpuMode, CpuRequest, KvmFacts, LayoutError, PageSize, PartitionSpec, Plan, PlanError,
};

fn spec(change: impl FnOnce(&mut PartitionSpec)) -> PartitionSpec {
    let mut spec = PartitionSpec::new("db1", 2, 512 * MIB);
    change(&mut spec);
    spec
}

fn fit(host: &Host, change: impl FnOnce(&mut PartitionSpec)) -> Result<Plan, PlanError> {
    Plan::fit(&host.survey(), &spec(change))
}

#[test]
fn a_plan_repeats_what_was_asked_and_says_where_memory_lies() {
    let plan = fit(&Host::one_socket(), |spec| spec.memory = 4 * GIB).unwrap();
    assert_eq!(
        (plan.name(), plan.vcpus(), plan.mode()),
        ("db1", 2, CpuMode::Shared)
    );
    assert_eq!((plan.pages(), plan.node()), (PageSize::Size4K, None));
    assert!(
        plan.pinned().is_empty(),
        "the scheduler places a shared partition"
    );
    assert_eq!(plan.layout().memory(), 4 * GIB);
}

#[test]
fn a_plan_survives_being_written_down() {
    let plan = fit(&Host::one_socket(), |_| {}).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn a_name_that_is_no_file_name_is_refused_with_the_rule() {
    let long = "x".repeat(65);
    for name in ["", ".", "-db", "a/b", "a b", "ä", "../db", "db\0", &long] {
        let refusal = fit(&Host::one_socket(), |spec| spec.name = name.to_owned()).unwrap_err();
        assert_eq!(
            refusal,
            PlanError::Name {
                name: name.to_owned()
            }
        );
        assert!(refusal.to_string().contains("1 to 64 letters"), "{refusal}");
    }
    for name in ["a", "9", "db-1_x.y", &"x".repeat(64)] {
        assert!(
            fit(&Host::one_socket(), |spec| spec.name = name.to_owned()).is_ok(),
            "{name}"
        );
    }
}

#[test]
fn no_cpus_or_more_than_kvm_has_are_refused_with_the_limit() {
    let host = Host::one_socket();
    for asked in [0, 256] {
        let refusal = fit(&host, |spec| spec.cpus = CpuRequest::Count(asked)).unwrap_err();
        assert_eq!(refusal, PlanError::CpuCount { asked, most: 255 });
    }
    let mut inventory = host.survey();
    inventory.kvm = Ok(KvmFacts {
        max_vcpus: 3,
        max_slots: 32,
        disable_exits: 0,
        binary_stats: false,
    });
    let refusal = Plan::fit(&inventory, &spec(|spec| spec.cpus = CpuRequest::Count(4))).unwrap_err();
    assert_eq!(refusal.to_string(), "4 vCPUs: a partition has 1 to 3");
}

#[test]
fn a_shared_partition_may_have_more_vcpus_than_the_host_has_cpus() {
    assert_eq!(
        fit(&Host::one_socket(), |spec| spec.cpus = CpuRequest::Count(9))
            .unwrap()
            .vcpus(),
        9
    );
}

#[test]
fn a_listed_cpu_that_is_offline_or_forbidden_is_refused_with_the_usable_ones() {
    let host = Host::one_socket();
    host.write("sys/devices/system/cpu/online", "0-2\n");
    host.status("0-1,3", "0");
    for cpu in [2, 3, 99] {
        let refusal = fit(&host, |spec| spec.cpus = CpuRequest::List(vec![0, cpu])).unwrap_err();
        assert_eq!(
            refusal,
            PlanError::NoSuchCpu {
                cpu,
                usable: "0-1".to_owned()
            }
        );
    }
}

#[test]
fn a_cpu_listed_twice_is_refused_by_number() {
    for mode in [CpuMode::Dedicated, CpuMode::Shared] {
        let refusal = fit(&Host::one_socket(), |spec| {
            spec.mode = mode;
            spec.cpus = CpuRequest::List(vec![1, 2, 2]);
        });
        assert_eq!(refusal.unwrap_err(), PlanError::CpuTwice { cpu: 2 });
    }
}

#[test]
fn listed_cpus_are_pinned_in_the_order_of_the_list() {
    let plan = fit(&Host::one_socket(), |spec| {
        spec.cpus = CpuRequest::List(vec![3, 1])
    })
    .unwrap();
    assert_eq!((plan.vcpus(), plan.pinned()), (2, &[3, 1][..]));
}

#[test]
fn dedicated_cpus_are_the_highest_and_isolated_ones_come_first() {
    let host = Host::one_socket();
    let dedicated = |spec: &mut PartitionSpec| spec.mode = CpuMode::Dedicated;
    assert_eq!(fit(&host, dedicated).unwrap().pinned(), [2, 3]);
    host.write("sys/devices/system/cpu/isolated", "1\n");
    assert_eq!(fit(&host, dedicated).unwrap().pinned(), [1, 3]);
}

#[test]
fn one_cpu_stays_with_the_host_unless_all_are_named() {
    let host = Host::one_socket();
    let all = |spec: &mut PartitionSpec| {
        spec.mode = CpuMode::Dedicated;
        spec.cpus = CpuRequest::Count(4);
    };
    let refusal = fit(&host, all).unwrap_err();
    assert_eq!(refusal, PlanError::TooFewCpus { asked: 4, most: 3 });
    assert!(refusal.to_string().contains("only 3 can be"), "{refusal}");
    let named = fit(&host, |spec| {
        all(spec);
        spec.cpus = CpuRequest::List(vec![0, 1, 2, 3]);
    });
    assert_eq!(named.unwrap().pinned(), [0, 1, 2, 3]);
}

#[test]
fn a_whole_node_may_be_dedicated_while_the_host_keeps_a_cpu_elsewhere() {
    let plan = fit(&Host::two_nodes(), |spec| {
        spec.mode = CpuMode::Dedicated;
        spec.node = Some(1);
    });
    assert_eq!(plan.unwrap().pinned(), [2, 3]);
    let refusal = fit(&Host::two_nodes(), |spec| {
        spec.mode = CpuMode::Dedicated;
        spec.cpus = CpuRequest::Count(3);
        spec.node = Some(1);
    });
    assert_eq!(refusal.unwrap_err(), PlanError::TooFewCpus { asked: 3, most: 2 });
}

#[test]
fn a_node_that_does_not_exist_is_refused_with_those_that_do() {
    let refusal = fit(&Host::two_nodes(), |spec| spec.node = Some(7)).unwrap_err();
    assert_eq!(refusal.to_string(), "node 7 does not exist; nodes: 0-1");
}

#[test]
fn cpus_of_another_node_are_not_usable_for_a_partition_on_a_node() {
    let refusal = fit(&Host::two_nodes(), |spec| {
        spec.node = Some(0);
        spec.cpus = CpuRequest::List(vec![0, 2]);
    });
    assert_eq!(
        refusal.unwrap_err(),
        PlanError::NoSuchCpu {
            cpu: 2,
            usable: "0-1".to_owned()
        }
    );
}

#[test]
fn memory_is_counted_on_the_host_or_on_the_node() {
    let host = Host::two_nodes();
    assert!(fit(&host, |spec| spec.memory = 7 * GIB).is_ok());
    let refusal = fit(&host, |spec| spec.memory = 7 * GIB + 2 * MIB)
        .unwrap_err()
        .to_string();
    assert!(refusal.contains("this host has 7 GiB available"), "{refusal}");
    let on_node_1 = |memory| fit(&host, |spec| (spec.node, spec.memory) = (Some(1), memory));
    assert!(on_node_1(GIB).is_ok());
    let refusal = on_node_1(2 * GIB).unwrap_err().to_string();
    assert!(
        refusal.contains("node 1 has 1 GiB available; ask for less, or free some"),
        "{refusal}"
    );
}

#[test]
fn huge_pages_come_from_their_pool_and_a_refusal_names_its_file() {
    let host = Host::two_nodes();
    let huge = |pages, memory| fit(&host, |spec| (spec.pages, spec.memory) = (pages, memory));
    assert!(huge(PageSize::Size2M, GIB).is_ok(), "512 pages of 2 MiB");
    assert!(huge(PageSize::Size1G, 2 * GIB).is_ok(), "2 pages of 1 GiB");
    let refusal = huge(PageSize::Size2M, GIB + 2 * MIB).unwrap_err().to_string();
    assert!(refusal.contains("hugepages-2048kB/nr_hugepages"), "{refusal}");
    let refusal = huge(PageSize::Size1G, 3 * GIB).unwrap_err().to_string();
    assert!(refusal.contains("hugepages-1048576kB/nr_hugepages"), "{refusal}");
    let refusal = huge(PageSize::Size1G, 512 * MIB).unwrap_err().to_string();
    assert!(refusal.contains("ask for whole 1g pages"), "{refusal}");
}

#[test]
fn memory_for_devices_must_be_lockable_and_other_memory_need_not_be() {
    let host = Host::one_socket();
    host.status("0-3", "0");
    host.limits("65536");
    assert!(fit(&host, |_| {}).is_ok());
    let refusal = fit(&host, |spec| spec.locked = true).unwrap_err();
    assert_eq!(
        refusal,
        PlanError::Memlock {
            asked: 512 * MIB,
            limit: 65_536
        }
    );
    let text = refusal.to_string();
    assert!(
        text.contains("RLIMIT_MEMLOCK is 64 KiB") && text.contains("ulimit -l"),
        "{text}"
    );
    host.status("0-3", "4000");
    assert!(fit(&host, |spec| spec.locked = true).is_ok(), "CAP_IPC_LOCK");
}

#[test]
fn the_map_refuses_through_the_plan_in_its_own_words() {
    let host = Host::one_socket();
    let refusal = fit(&host, |spec| spec.memory = 4 * MIB).unwrap_err();
    assert_eq!(
        refusal,
        PlanError::Layout(LayoutError::TooSmall {
            memory: 4 * MIB,
            least: 16 * MIB
        })
    );
    assert_eq!(
        refusal.to_string(),
        "4 MiB of memory is too little; give the partition at least 16 MiB"
    );
    let refusal = fit(&host, |spec| spec.address_bits = 36).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "an address width of 36 bits is outside 39 to 52"
    );
}

#[test]
fn a_pool_of_absurd_size_does_not_wrap_around() {
    let host = Host::two_nodes();
    for node in [0, 1] {
        host.node(node, "0-3", (8 * GIB, u64::MAX), (u64::MAX, u64::MAX));
    }
    assert!(fit(&host, |spec| spec.pages = PageSize::Size2M).is_ok());
    assert!(fit(&host, |spec| (spec.pages, spec.memory) = (PageSize::Size1G, GIB)).is_ok());
}

#[test]
fn a_request_for_cpus_is_a_count_or_a_list() {
    let read = |text: &str| text.parse::<CpuRequest>();
    assert_eq!(read("2").unwrap(), CpuRequest::Count(2));
    assert_eq!(read("3,").unwrap(), CpuRequest::List(vec![3]));
    assert_eq!(read("2-5,8").unwrap(), CpuRequest::List(vec![2, 3, 4, 5, 8]));
    assert_eq!(read("2,2").unwrap(), CpuRequest::List(vec![2]));
    for text in ["", "two", "5-2", "1,x", "-1", ",", "0-99999"] {
        let refusal = read(text).unwrap_err();
        assert!(refusal.contains("a list such as 2-5,8"), "{text:?}: {refusal}");
    }
}
