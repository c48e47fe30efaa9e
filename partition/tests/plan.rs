//! What a host carries and what it does not: each refusal says what was asked, why not, who has it, and what would fit.
#![allow(clippy::unwrap_used, reason = "a test")]

mod fixture;

use fixture::{GIB, Host, MIB};
use pellucid_partition::{
    CpuMode, CpuRequest, KvmFacts, NodeRequest, PageSize, PartitionSpec, Plan, PlanError, PlanNode, Planner,
    Siblings,
};

fn spec(vcpus: usize, memory: u64) -> PartitionSpec {
    PartitionSpec::new("db1", vcpus, memory).unwrap()
}

fn listed(cpus: &[usize]) -> PartitionSpec {
    let cpus = CpuRequest::list(cpus.iter().copied()).unwrap();
    PartitionSpec::on("db1", cpus, 512 * MIB).unwrap()
}

fn huge(memory: u64, pages: PageSize) -> PartitionSpec {
    spec(2, memory).with_pages(pages).unwrap()
}

fn fit(host: &Host, spec: &PartitionSpec) -> Result<Plan, PlanError> {
    Plan::fit(&host.survey(), spec)
}

fn refusal(host: &Host, spec: &PartitionSpec) -> String {
    fit(host, spec).unwrap_err().to_string()
}

#[test]
fn a_plan_repeats_what_was_asked_and_says_where_memory_lies() {
    let plan = fit(&Host::one_socket(), &spec(2, 4 * GIB)).unwrap();
    assert_eq!(
        (plan.name(), plan.vcpus(), plan.mode()),
        ("db1", 2, CpuMode::Shared)
    );
    assert_eq!((plan.pages(), plan.node()), (PageSize::Size4K, None));
    assert!(
        plan.pinned().is_empty(),
        "the scheduler places a shared partition"
    );
    assert!(plan.isolation().is_none() && plan.held_cpus().is_empty());
    assert_eq!(plan.layout().memory(), 4 * GIB);
}

#[test]
fn a_plan_survives_being_written_down() {
    let plan = fit(&Host::two_nodes(), &spec(3, GIB).dedicated()).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn more_vcpus_than_kvm_has_are_refused_with_the_limit() {
    let mut inventory = Host::one_socket().survey();
    inventory.kvm = Ok(KvmFacts {
        max_vcpus: 3,
        ..KvmFacts::default()
    });
    let refusal = Plan::fit(&inventory, &spec(4, GIB)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "4 vCPUs: this host's KVM has at most 3 in a VM"
    );
}

#[test]
fn a_shared_partition_may_have_more_vcpus_than_the_host_has_cpus() {
    assert_eq!(fit(&Host::one_socket(), &spec(9, GIB)).unwrap().vcpus(), 9);
}

#[test]
fn a_listed_cpu_is_refused_with_its_reason_and_the_free_ones() {
    let host = Host::one_socket().in_container("0-2");
    host.write("sys/devices/system/cpu/online", "0-1,3\n");
    for (cpu, why) in [
        (2, "is offline"),
        (3, "is outside this process's cpuset"),
        (99, "does not exist"),
    ] {
        let text = refusal(&host, &listed(&[0, cpu]));
        assert_eq!(text, format!("CPU {cpu} {why}; free: 0-1"));
    }
    let text = refusal(
        &Host::two_nodes(),
        &listed(&[0, 2]).with_nodes(NodeRequest::node(0)),
    );
    assert_eq!(text, "CPU 2 is on node 1, which was not asked for; free: 0-1");
}

#[test]
fn listed_cpus_are_pinned_in_the_order_of_the_list() {
    let plan = fit(&Host::one_socket(), &listed(&[3, 1])).unwrap();
    assert_eq!((plan.vcpus(), plan.pinned()), (2, &[3, 1][..]));
}

#[test]
fn a_dedicated_pair_is_one_whole_core_the_highest_or_the_isolated_one() {
    let host = Host::one_socket();
    assert_eq!(fit(&host, &spec(2, GIB).dedicated()).unwrap().pinned(), [1, 3]);
    host.write("sys/devices/system/cpu/isolated", "0,2\n");
    assert_eq!(fit(&host, &spec(2, GIB).dedicated()).unwrap().held_cpus(), [0, 2]);
}

#[test]
fn the_sibling_of_a_single_dedicated_cpu_is_withheld_unless_sharing_is_asked_for() {
    let alone = fit(&Host::one_socket(), &spec(1, GIB).dedicated()).unwrap();
    assert_eq!((alone.pinned(), alone.withheld()), (&[1][..], &[3][..]));
    let shared = spec(1, GIB).dedicated().with_siblings(Siblings::Shared);
    let shared = fit(&Host::one_socket(), &shared).unwrap();
    assert_eq!((shared.pinned(), shared.withheld()), (&[1][..], &[][..]));
}

#[test]
fn those_who_share_siblings_fill_a_core_and_nobody_else_comes_near() {
    let inventory = Host::one_socket().survey();
    let mut planner = Planner::new(&inventory);
    let one = |name: &str, siblings| {
        PartitionSpec::new(name, 1, GIB)
            .unwrap()
            .dedicated()
            .with_siblings(siblings)
    };
    let first = planner.fit(&one("a", Siblings::Shared)).unwrap();
    planner.hold(&first);
    let text = planner
        .fit(&one("b", Siblings::Withheld))
        .unwrap_err()
        .to_string();
    assert!(text.contains("1 held by logical server \"a\""), "{text}");
    let listed = PartitionSpec::on("b", CpuRequest::list([3]).unwrap(), GIB)
        .unwrap()
        .dedicated();
    assert_eq!(
        planner.fit(&listed).unwrap_err().to_string(),
        "CPU 3: its sibling 1 is held by logical server \"a\"; share siblings, or take of 0,2-3"
    );
    let second = planner.fit(&one("b", Siblings::Shared)).unwrap();
    assert_eq!(second.pinned(), [3]);
}

#[test]
fn a_guest_finds_fast_cores_or_slow_ones_and_both_only_if_neither_suffices() {
    let host = Host::hybrid();
    let pinned = |vcpus| fit(&host, &spec(vcpus, GIB).dedicated()).unwrap().held_cpus();
    assert_eq!(pinned(2), [2, 3], "one fast core");
    assert_eq!(pinned(3), [5, 6, 7], "one fast core is left beside that of CPU 0");
    assert_eq!(pinned(5), [2, 3, 5, 6, 7], "and the host keeps that of CPU 0");
}

#[test]
fn a_core_stays_with_the_host_unless_all_are_listed() {
    let host = Host::one_socket();
    let text = refusal(&host, &spec(3, GIB).dedicated());
    assert_eq!(
        text,
        "3 dedicated CPUs: this host has 2 to give, since a core stays with the host; ask for fewer, list CPUs by number, or share them"
    );
    let named = fit(&host, &listed(&[0, 1, 2, 3]).dedicated()).unwrap();
    assert_eq!(named.pinned(), [0, 1, 2, 3]);
}

#[test]
fn a_whole_node_may_be_dedicated_while_the_host_keeps_a_core_elsewhere() {
    let on = |vcpus| spec(vcpus, GIB).dedicated().with_nodes(NodeRequest::node(1));
    assert_eq!(fit(&Host::two_nodes(), &on(2)).unwrap().pinned(), [2, 3]);
    let text = refusal(&Host::two_nodes(), &on(3));
    assert!(
        text.starts_with("3 dedicated CPUs: node 1 has 2 to give") && text.contains("node 0 has 2"),
        "{text}"
    );
}

#[test]
fn what_others_hold_is_gone_around_and_named_when_nothing_is_left() {
    let inventory = Host::two_nodes().survey();
    let mut planner = Planner::new(&inventory);
    let first = planner.fit(&spec(2, GIB).dedicated()).unwrap();
    planner.hold(&first);
    let same = planner.fit(&spec(1, GIB)).unwrap_err().to_string();
    assert_eq!(
        same,
        "partition db1 is held by logical server \"db1\"; choose another name, or stop that one"
    );
    let other = PartitionSpec::new("db2", 2, GIB).unwrap().dedicated();
    let text = planner.fit(&other).unwrap_err().to_string();
    assert!(
        text.contains("has 1 to give") && text.contains("held by logical server \"db1\""),
        "{text}"
    );
    planner.give_back(&first);
    assert!(planner.fit(&other).is_ok());
}

#[test]
fn a_node_that_does_not_exist_is_refused_with_those_that_do() {
    let text = refusal(&Host::two_nodes(), &spec(1, GIB).with_nodes(NodeRequest::node(7)));
    assert_eq!(text, "node 7 does not exist; nodes: 0-1");
}

#[test]
fn memory_in_ordinary_pages_is_counted_on_the_host_or_on_the_node() {
    let host = Host::two_nodes();
    assert!(fit(&host, &spec(1, 7 * GIB)).is_ok());
    let text = refusal(&host, &spec(1, 7 * GIB + 2 * MIB));
    assert!(
        text.contains("this host has 7 GiB available; ask for at most 7 GiB"),
        "{text}"
    );
    let on = |memory| spec(1, memory).with_nodes(NodeRequest::node(1));
    assert_eq!(fit(&host, &on(GIB)).unwrap().node(), Some(1));
    assert_eq!(
        refusal(&host, &on(2 * GIB)),
        "2 GiB of memory in 4k pages: node 1 has 1 GiB of 2 GiB available; node 0 has 5 GiB; take node 0, or ask for at most 1 GiB, or free some"
    );
}

#[test]
fn a_refusal_of_huge_pages_says_what_each_node_has_and_what_would_fit() {
    let host = Host::two_nodes();
    host.node(0, "0-1", (64 * GIB, GIB), (0, 1));
    host.node(1, "2-3", (64 * GIB, GIB), (0, 6));
    let on = |node| huge(2 * GIB, PageSize::Size1G).with_nodes(NodeRequest::node(node));
    assert_eq!(fit(&host, &on(1)).unwrap().node(), Some(1));
    assert_eq!(
        refusal(&host, &on(0)),
        "2 GiB of memory in 1g pages: node 0 has 1 of 2 free 1G pages; node 1 has 6; take node 1, or ask for at most 1 GiB, or reserve more in /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"
    );
}

#[test]
fn a_refusal_of_memory_names_who_has_the_rest() {
    let inventory = Host::two_nodes().survey();
    let mut planner = Planner::new(&inventory);
    let first = planner.fit(&huge(GIB, PageSize::Size1G)).unwrap();
    planner.hold(&first);
    let second = PartitionSpec::new("db2", 1, 2 * GIB)
        .unwrap()
        .with_pages(PageSize::Size1G)
        .unwrap();
    let text = planner.fit(&second).unwrap_err().to_string();
    assert!(
        text.contains("node 1 has 1 of 2 free 1G pages (1 held by logical server \"db1\")"),
        "{text}"
    );
}

#[test]
fn huge_pages_come_from_their_pool_and_a_refusal_names_its_file() {
    let host = Host::two_nodes();
    assert!(
        fit(&host, &huge(GIB, PageSize::Size2M)).is_ok(),
        "512 pages of 2 MiB"
    );
    assert!(
        fit(&host, &huge(2 * GIB, PageSize::Size1G)).is_ok(),
        "2 pages of 1 GiB"
    );
    let text = refusal(&host, &huge(GIB + 2 * MIB, PageSize::Size2M));
    assert!(text.contains("hugepages-2048kB/nr_hugepages"), "{text}");
    let none = Host::one_socket();
    let text = refusal(&none, &huge(GIB, PageSize::Size1G));
    assert!(
        text.contains("node 0 has 0 of 1 free 1G pages; reserve more in"),
        "{text}"
    );
}

#[test]
fn memory_that_no_node_has_alone_is_split_and_each_range_knows_its_node() {
    let host = Host::two_nodes();
    let plan = fit(&host, &spec(2, 6 * GIB).dedicated()).unwrap();
    let node = |host, memory, vcpus: &[usize]| PlanNode {
        host: Some(host),
        memory,
        vcpus: vcpus.to_vec(),
    };
    assert_eq!(plan.nodes(), [node(0, 5 * GIB, &[0]), node(1, GIB, &[1])]);
    assert_eq!((plan.node(), plan.pinned()), (None, &[1, 3][..]));
    let ram: Vec<_> = plan.ram().collect();
    assert_eq!(
        ram,
        [
            (0..3 * GIB, Some(0)),
            (4 * GIB..6 * GIB, Some(0)),
            (6 * GIB..7 * GIB, Some(1))
        ]
    );
    let single = spec(2, 6 * GIB).dedicated().with_nodes(NodeRequest::single());
    let text = refusal(&host, &single);
    assert!(text.contains("allow several nodes"), "{text}");
}

#[test]
fn cpus_and_memory_are_taken_side_by_side() {
    let host = Host::two_nodes();
    let on = |memory| fit(&host, &spec(1, memory).dedicated()).unwrap();
    let (small, large) = (on(512 * MIB), on(4 * GIB));
    assert_eq!(
        (small.node(), small.pinned()),
        (Some(1), &[3][..]),
        "the tightest fit"
    );
    assert_eq!(
        (large.node(), large.pinned()),
        (Some(0), &[1][..]),
        "where the memory is"
    );
    let both = fit(&host, &spec(3, 2 * GIB).dedicated()).unwrap();
    let vcpus: Vec<_> = both.nodes().iter().map(|node| node.vcpus.len()).collect();
    assert_eq!((both.nodes().len(), vcpus.iter().sum::<usize>()), (2, 3));
}

#[test]
fn cpus_on_one_node_and_memory_on_another_are_told_apart() {
    let host = Host::two_nodes();
    let first = PartitionSpec::on("a", CpuRequest::list([0, 1]).unwrap(), 64 * MIB)
        .unwrap()
        .dedicated();
    let inventory = host.survey();
    let mut planner = Planner::new(&inventory);
    planner.hold(&Plan::fit(&inventory, &first).unwrap());
    let both = spec(1, 4 * GIB).dedicated().with_nodes(NodeRequest::single());
    let text = planner.fit(&both).unwrap_err().to_string();
    assert!(
        text.contains("are not on one node: node 0 has 0 free CPUs and")
            && text.contains("node 1 has 1 free CPUs and 1 GiB"),
        "{text}"
    );
}

#[test]
fn memory_for_devices_must_be_lockable_and_other_memory_need_not_be() {
    let host = Host::one_socket();
    host.status("0-3", "0");
    host.limits("65536");
    assert!(fit(&host, &spec(1, 512 * MIB)).is_ok());
    let text = refusal(&host, &spec(1, 512 * MIB).locked());
    assert!(
        text.contains("RLIMIT_MEMLOCK is 64 KiB") && text.contains("ulimit -l"),
        "{text}"
    );
    host.status("0-3", "4000");
    let plan = fit(&host, &spec(1, 512 * MIB).locked()).unwrap();
    assert!(plan.locked(), "CAP_IPC_LOCK");
}

#[test]
fn the_map_refuses_through_the_plan_in_its_own_words() {
    let host = Host::one_socket();
    host.meminfo(1 << 40, 1 << 40, 1 << 40);
    let text = refusal(&host, &spec(1, 512 * GIB));
    assert!(text.contains("do not fit in 39 bits of address space"), "{text}");
}

#[test]
fn a_pool_of_absurd_size_does_not_wrap_around() {
    let host = Host::two_nodes();
    for node in [0, 1] {
        host.node(node, "0-3", (8 * GIB, u64::MAX), (u64::MAX, u64::MAX));
    }
    assert!(fit(&host, &huge(512 * MIB, PageSize::Size2M)).is_ok());
    assert!(fit(&host, &huge(GIB, PageSize::Size1G)).is_ok());
}
