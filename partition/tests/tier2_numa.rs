//! A host of two memory nodes: CPUs are taken where the memory is, and each range of RAM lies on the node that the plan says, by the kernel's
//! own account.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod pool;

use std::collections::{BTreeMap, BTreeSet};

use pellucid_partition::{
    CpuTerms, GuestAddress, Inventory, NodeRequest, PageSize, PartitionSpec, Plan, Populated, StateDir,
};
use pool::Pool;

const MIB: u64 = 1 << 20;

fn state() -> (tempfile::TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    (directory, state)
}

fn spec(name: &str, vcpus: usize, memory: u64) -> PartitionSpec {
    PartitionSpec::new(name, vcpus, memory).unwrap().dedicated()
}

fn populated(spec: &PartitionSpec, state: &StateDir) -> Populated {
    let plan = Plan::fit(&Inventory::survey().unwrap(), spec).unwrap();
    plan.reserve(state).unwrap().populate(&|_| {}).unwrap()
}

/// What the kernel says of the mapping that begins there: the policy, and the pages on each node.
fn numa_maps(address: u64) -> (String, BTreeMap<u32, u64>) {
    let text = std::fs::read_to_string("/proc/self/numa_maps").unwrap();
    let start = format!("{address:08x} ");
    let line = text.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("nothing begins at {address:#x}:\n{text}"));
    let nodes = line.split(' ').filter_map(|word| {
        let (node, pages) = word.strip_prefix('N')?.split_once('=')?;
        Some((node.parse().ok()?, pages.parse().ok()?))
    });
    (line.split(' ').nth(1).unwrap().to_owned(), nodes.collect())
}

/// Every range of RAM lies whole on the node of the plan, which the kernel was told and keeps to. Returns the bytes on each node.
#[track_caller]
fn each_range_is_on_its_node(partition: &Populated) -> BTreeMap<u32, u64> {
    let page = match partition.plan().pages() {
        PageSize::Size4K => 4 << 10,
        PageSize::Size2M => 2 * MIB,
        PageSize::Size1G => 1 << 30,
    };
    let mut found = BTreeMap::new();
    for (range, node) in partition.plan().ram() {
        let (node, size) = (node.unwrap(), range.end - range.start);
        let regions = partition.memory().regions();
        let region = regions
            .iter()
            .rfind(|region| region.guest <= GuestAddress(range.start))
            .unwrap();
        let host = region.host.0 + (range.start - region.guest.0);
        let (policy, pages) = numa_maps(host);
        println!("{range:#x?} on node {node}: {policy} {pages:?}");
        assert_eq!(policy, format!("bind:{node}"));
        let pages: BTreeMap<_, _> = pages
            .into_iter()
            .map(|(node, count)| (node, count * page))
            .collect();
        assert_eq!(pages, BTreeMap::from([(node, size)]), "{range:x?}");
        *found.entry(node).or_default() += size;
    }
    let residence = partition.residence();
    assert_eq!(
        (&residence.nodes, residence.misplaced.as_slice()),
        (&found, &[][..])
    );
    found
}

/// The nodes of the CPUs that a plan pins vCPUs to, by vCPU.
fn nodes_of_cpus(plan: &Plan) -> Vec<u32> {
    let inventory = Inventory::survey().unwrap();
    let node = |cpu: &usize| inventory.cpus.iter().find(|known| known.id == *cpu).unwrap().node;
    plan.pinned().iter().map(node).collect()
}

#[test]
fn the_survey_sees_both_nodes_and_how_far_they_are() {
    let inventory = Inventory::survey().unwrap();
    let cpus = |node: u32| inventory.cpus.iter().filter(move |cpu| cpu.node == node).count();
    assert_eq!((inventory.nodes.len(), cpus(0), cpus(1)), (2, 2, 2));
    for (place, node) in inventory.nodes.iter().enumerate() {
        assert_eq!((node.distances.len(), node.distances[place]), (2, 10));
        assert!(
            node.distances[1 - place] > 10 && node.available > 512 * MIB,
            "{node:?}"
        );
    }
}

#[test]
fn a_partition_that_one_node_carries_lies_there_whole_with_its_cpus() {
    let (_directory, state) = state();
    for wanted in [NodeRequest::any(), NodeRequest::node(0), NodeRequest::node(1)] {
        let named = wanted.named().and_then(|nodes| nodes.first().copied());
        let partition = populated(&spec("one", 1, 64 * MIB).with_nodes(wanted), &state);
        let node = partition.plan().node().unwrap();
        assert!(named.is_none_or(|named| named == node), "{named:?}");
        assert_eq!(nodes_of_cpus(partition.plan()), [node]);
        assert_eq!(
            each_range_is_on_its_node(&partition),
            BTreeMap::from([(node, 64 * MIB)])
        );
        let CpuTerms::Dedicated { isolation, .. } = partition.reserved().cpus().terms() else {
            panic!("it is dedicated")
        };
        assert_eq!(Some(&isolation), partition.plan().isolation());
        partition.release().unwrap();
    }
}

#[test]
fn cpus_of_both_nodes_have_memory_of_both_each_range_on_the_node_of_its_vcpus() {
    let (_directory, state) = state();
    let partition = populated(&spec("both", 3, 96 * MIB), &state);
    let plan = partition.plan();
    let nodes = nodes_of_cpus(plan);
    assert_eq!(
        nodes.iter().collect::<BTreeSet<_>>().len(),
        2,
        "three CPUs need both: {nodes:?}"
    );
    for node in plan.nodes() {
        let host = node.host.unwrap();
        let vcpus = node.vcpus.iter().map(|vcpu| nodes[*vcpu]);
        assert!(vcpus.clone().all(|node| node == host), "{node:?} of {nodes:?}");
        assert_eq!(
            node.memory,
            32 * MIB * vcpus.count() as u64,
            "in proportion: {node:?}"
        );
    }
    let found = each_range_is_on_its_node(&partition);
    assert_eq!(found.values().sum::<u64>(), 96 * MIB);
    assert_eq!(found.len(), 2);
    partition.release().unwrap();
}

/// Where the kernel's own reclaim threads may run, by name.
fn reclaimers() -> BTreeMap<String, String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let statuses =
        processes.filter_map(|process| std::fs::read_to_string(process.path().join("status")).ok());
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    let threads = statuses.map(|status| (field(&status, "Name:"), field(&status, "Cpus_allowed_list:")));
    threads.filter(|(name, _)| name.starts_with("kswapd")).collect()
}

#[test]
fn the_kernels_threads_of_a_node_stay_on_it_when_a_partition_comes_and_goes() {
    let (_directory, state) = state();
    let at = |zero: &str, one: &str| {
        BTreeMap::from(
            [("kswapd0", zero), ("kswapd1", one)].map(|(name, cpus)| (name.to_owned(), cpus.to_owned())),
        )
    };
    assert_eq!(reclaimers(), at("0-1", "2-3"));
    let spec = spec("one", 1, 64 * MIB).with_nodes(NodeRequest::node(1));
    let reserved = Plan::fit(&Inventory::survey().unwrap(), &spec)
        .unwrap()
        .reserve(&state)
        .unwrap();
    assert_eq!(reserved.plan().pinned(), [3]);
    assert_eq!(reclaimers(), at("0-1", "2"));
    reserved.release().unwrap();
    assert_eq!(reclaimers(), at("0-1", "2-3"));
}

#[test]
fn memory_that_no_single_node_has_comes_from_both_and_goes_back_to_both() {
    let (_directory, state) = state();
    let pools = [0, 1].map(|node| Pool::on(node, PageSize::Size2M, 20).unwrap());
    let huge = |name: &str| spec(name, 1, 64 * MIB).with_pages(PageSize::Size2M).unwrap();
    let single = huge("large").with_nodes(NodeRequest::single());
    let refusal = Plan::fit(&Inventory::survey().unwrap(), &single)
        .unwrap_err()
        .to_string();
    println!("{refusal}");
    assert!(refusal.contains("20") && refusal.contains("2m"), "{refusal}");
    let partition = populated(&huge("large"), &state);
    let found = each_range_is_on_its_node(&partition);
    assert_eq!((found.len(), found.values().sum::<u64>()), (2, 64 * MIB));
    let residence = partition.residence();
    assert_eq!((residence.huge, residence.locked), (64 * MIB, 64 * MIB));
    for (node, pool) in (0..).zip(&pools) {
        assert_eq!(pool.free(), 20 - found[&node] / (2 * MIB), "node {node}");
    }
    // The vCPU is where the first of the memory is: the guest's node 0.
    assert_eq!(nodes_of_cpus(partition.plan()).len(), 1);
    partition.release().unwrap();
    assert!(pools.iter().all(|pool| pool.free() == 20));
}
