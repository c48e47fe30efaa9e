//! What holds of every plan on every host: a plan only uses what is there, and a refusal is never wrong.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

use pellucid_partition::{
    Cpu, CpuMode, CpuRequest, Inventory, Layout, Node, PageSize, PartitionSpec, Plan, PlanError,
};
use proptest::prelude::*;

fn cpus() -> impl Strategy<Value = Vec<Cpu>> {
    let flags = (
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.8),
        any::<bool>(),
        0u32..3,
    );
    prop::collection::vec(flags, 1..12).prop_map(|flags| {
        let cpu = |(id, (online, allowed, isolated, node))| Cpu {
            id,
            online,
            allowed,
            isolated,
            node,
            package: node as i32,
            core: id as i32,
            siblings: vec![id],
        };
        flags.into_iter().enumerate().map(cpu).collect()
    })
}

fn inventory() -> impl Strategy<Value = Inventory> {
    let sizes = (0u64..4096, 0u64..1024, 0u64..4);
    let nodes = prop::collection::vec(sizes, 3);
    let memlock = prop::option::of(0u64..4096);
    (cpus(), nodes, 0u64..8192, memlock).prop_map(|(cpus, nodes, available, memlock)| Inventory {
        cpus,
        nodes: (0..)
            .zip(nodes)
            .map(|(id, (free, free_2m, free_1g))| Node {
                id,
                total: free << 20,
                free: free << 20,
                free_2m,
                free_1g,
            })
            .collect(),
        memory_available: available << 20,
        memlock: memlock.map(|mebibytes| mebibytes << 20),
        cgroup_controllers: Vec::new(),
        kvm: Err("not asked".to_owned()),
    })
}

fn request() -> impl Strategy<Value = CpuRequest> {
    prop_oneof![
        (0usize..14).prop_map(CpuRequest::Count),
        prop::collection::vec(0usize..14, 0..6).prop_map(CpuRequest::List),
    ]
}

fn spec() -> impl Strategy<Value = PartitionSpec> {
    let pages = prop_oneof![
        Just(PageSize::Size4K),
        Just(PageSize::Size2M),
        Just(PageSize::Size1G)
    ];
    (
        request(),
        any::<bool>(),
        8u64..2048,
        pages,
        prop::option::of(0u32..4),
        any::<bool>(),
    )
        .prop_map(|(cpus, dedicated, granules, pages, node, locked)| PartitionSpec {
            cpus,
            mode: if dedicated {
                CpuMode::Dedicated
            } else {
                CpuMode::Shared
            },
            memory: granules << 21,
            pages,
            node,
            locked,
            ..PartitionSpec::new("any", 1, 0)
        })
}

/// The CPUs that the request could be met from.
fn eligible<'i>(inventory: &'i Inventory, spec: &PartitionSpec) -> Vec<&'i Cpu> {
    let wanted = spec.node;
    let on_node = move |cpu: &&Cpu| wanted.is_none_or(|node| node == cpu.node);
    inventory.usable_cpus().filter(on_node).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn pinned_cpus_are_usable_distinct_and_as_many_as_vcpus(inventory in inventory(), spec in spec()) {
        let Ok(plan) = Plan::fit(&inventory, &spec) else { return Ok(()) };
        let eligible: BTreeSet<_> = eligible(&inventory, &spec).iter().map(|cpu| cpu.id).collect();
        let pinned: BTreeSet<_> = plan.pinned().iter().copied().collect();
        prop_assert!(pinned.is_subset(&eligible), "{pinned:?} of {eligible:?}");
        prop_assert_eq!(pinned.len(), plan.pinned().len(), "a CPU twice");
        match (&spec.cpus, spec.mode) {
            (CpuRequest::List(list), _) => prop_assert_eq!(plan.pinned(), &list[..]),
            (CpuRequest::Count(_), CpuMode::Shared) => prop_assert!(pinned.is_empty()),
            (CpuRequest::Count(count), CpuMode::Dedicated) => {
                prop_assert_eq!(plan.vcpus(), *count);
                prop_assert_eq!(pinned.len(), *count);
                prop_assert!(inventory.usable_cpus().any(|cpu| !pinned.contains(&cpu.id)), "none is left for the host");
            }
        }
    }

    #[test]
    fn no_isolated_cpu_is_passed_over_for_another(inventory in inventory(), spec in spec()) {
        let Ok(plan) = Plan::fit(&inventory, &spec) else { return Ok(()) };
        if let (CpuRequest::Count(_), CpuMode::Dedicated) = (&spec.cpus, spec.mode) {
            let eligible = eligible(&inventory, &spec);
            let (taken, left): (Vec<&Cpu>, Vec<&Cpu>) = eligible.into_iter().partition(|cpu| plan.pinned().contains(&cpu.id));
            prop_assert!(taken.iter().all(|cpu| cpu.isolated) || left.iter().all(|cpu| !cpu.isolated));
        }
    }

    #[test]
    fn planned_memory_is_there(inventory in inventory(), spec in spec()) {
        let Ok(plan) = Plan::fit(&inventory, &spec) else { return Ok(()) };
        let nodes: Vec<_> = inventory.nodes.iter().filter(|n| spec.node.is_none_or(|wanted| wanted == n.id)).collect();
        let there = match (spec.pages, spec.node) {
            (PageSize::Size4K, None) => inventory.memory_available,
            (PageSize::Size4K, Some(_)) => nodes.iter().map(|n| n.free).sum(),
            (PageSize::Size2M, _) => nodes.iter().map(|n| n.free_2m << 21).sum(),
            (PageSize::Size1G, _) => nodes.iter().map(|n| n.free_1g << 30).sum(),
        };
        prop_assert!(plan.layout().memory() <= there);
        prop_assert_eq!(plan.layout().memory(), spec.memory);
        prop_assert!(plan.layout().ram().iter().all(|range| (range.end - range.start).is_multiple_of(spec.pages.bytes())));
        if let (true, Some(limit)) = (spec.locked, inventory.memlock) {
            prop_assert!(spec.memory <= limit);
        }
    }

    #[test]
    fn a_refusal_is_right_and_its_advice_is_good(inventory in inventory(), spec in spec()) {
        let Err(refusal) = Plan::fit(&inventory, &spec) else { return Ok(()) };
        let usable = eligible(&inventory, &spec);
        let asked = match &spec.cpus { CpuRequest::Count(count) => *count, CpuRequest::List(list) => list.len() };
        match refusal {
            PlanError::CpuCount { most, .. } => prop_assert!(asked == 0 || asked > most),
            PlanError::NoSuchCpu { cpu, .. } => prop_assert!(usable.iter().all(|u| u.id != cpu)),
            PlanError::CpuTwice { cpu } => {
                let CpuRequest::List(list) = &spec.cpus else { return Err(TestCaseError::fail("not a list")) };
                prop_assert!(list.iter().filter(|listed| **listed == cpu).count() > 1);
            }
            PlanError::TooFewCpus { most, .. } => {
                prop_assert!(spec.mode == CpuMode::Dedicated && asked > most);
                prop_assert!(most == usable.len() || most + 1 == inventory.usable_cpus().count());
                if most > 0 {
                    let fewer = PartitionSpec { cpus: CpuRequest::Count(most), ..spec };
                    let again = Plan::fit(&inventory, &fewer);
                    prop_assert!(!matches!(again, Err(PlanError::TooFewCpus { .. })), "the advice was no good");
                }
            }
            PlanError::NoSuchNode { node, .. } => prop_assert!(inventory.nodes.iter().all(|n| n.id != node)),
            PlanError::Memory { asked, available, .. } => {
                prop_assert!(asked > available || !asked.is_multiple_of(spec.pages.bytes()));
            }
            PlanError::Memlock { asked, limit } => prop_assert!(spec.locked && asked > limit),
            other => prop_assert!(false, "nothing in this host or request deserves {other:?}"),
        }
    }

    #[test]
    fn a_map_is_refused_only_for_what_it_says(memory: u64, bits: u8) {
        let wide = Layout::new(memory, bits);
        if let Ok(layout) = &wide {
            prop_assert_eq!(layout.memory(), memory);
            prop_assert_eq!(layout.address_bits(), bits);
            prop_assert!(layout.ram_below() <= Layout::MMIO32.start);
            prop_assert_eq!(layout.ram_below() + layout.ram_above(), memory);
        } else {
            let good = (39..=52).contains(&bits) && memory >= 16 << 20 && memory.is_multiple_of(2 << 20);
            prop_assert!(!good || memory > (1 << (bits - 1)) - (1 << 30), "{wide:?}");
        }
    }

    #[test]
    fn the_largest_map_that_a_refusal_names_is_accepted(granules in 1u64 << 17..1 << 42, bits in 39u8..=52) {
        if let Err(pellucid_partition::LayoutError::TooLarge { most, .. }) = Layout::new(granules << 21, bits) {
            prop_assert!(Layout::new(most, bits).is_ok());
            prop_assert!(Layout::new(most + (2 << 20), bits).is_err());
        }
    }
}
