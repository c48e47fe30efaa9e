//! What holds of every plan on every host: plans use what is there and nobody else's, and a refusal is never wrong.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use pellucid_partition::{
    Cgroup, CoreKind, Cpu, CpuMode, CpuRequest, Inventory, Layout, LayoutError, Node, NodeRequest, PageSize,
    PartitionSpec, Plan, PlanError, Planner, Siblings,
};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

/// Cores of one or two threads; each core on a node, isolated or not, fast or slow, with its threads usable or not.
fn cpus() -> impl Strategy<Value = Vec<Cpu>> {
    let thread = (prop::bool::weighted(0.9), prop::bool::weighted(0.9));
    let core = (
        prop::collection::vec(thread, 1..3),
        prop::bool::weighted(0.3),
        any::<bool>(),
        0u32..3,
    );
    prop::collection::vec(core, 1..6).prop_map(|cores| {
        let mut cpus: Vec<Cpu> = Vec::new();
        for (number, (threads, isolated, slow, node)) in cores.into_iter().enumerate() {
            let siblings: Vec<usize> = (cpus.len()..cpus.len() + threads.len()).collect();
            cpus.extend(
                threads
                    .into_iter()
                    .zip(siblings.clone())
                    .map(|((online, allowed), id)| Cpu {
                        id,
                        online,
                        allowed,
                        isolated,
                        kind: if slow {
                            CoreKind::Efficiency
                        } else {
                            CoreKind::Performance
                        },
                        node,
                        package: 0,
                        core: number as i32,
                        siblings: siblings.clone(),
                    }),
            );
        }
        cpus
    })
}

fn inventory() -> impl Strategy<Value = Inventory> {
    let nodes = prop::collection::vec((0u64..4096, 0u64..1024, 0u64..4), 3);
    (cpus(), nodes, 0u64..8192, prop::option::of(0u64..4096)).prop_map(|(cpus, nodes, available, memlock)| {
        Inventory {
            cpus,
            caches: Vec::new(),
            nodes: (0..)
                .zip(nodes)
                .map(|(id, (free, free_2m, free_1g))| Node {
                    id,
                    total: free << 20,
                    free: free << 20,
                    available: free << 20,
                    free_2m,
                    free_1g,
                    distances: Vec::new(),
                })
                .collect(),
            memory_available: available << 20,
            memlock: memlock.map(|mebibytes| mebibytes << 20),
            cgroup: Cgroup::default(),
            kernel: String::new(),
            address_bits: None,
            kvm: Err("not asked".to_owned()),
            held: Vec::new(),
        }
    })
}

fn request() -> impl Strategy<Value = CpuRequest> {
    prop_oneof![
        4 => (1usize..8).prop_map(|count| CpuRequest::count(count).unwrap()),
        1 => prop::collection::btree_set(0usize..10, 1..4).prop_map(|list| CpuRequest::list(list).unwrap()),
    ]
}

fn nodes() -> impl Strategy<Value = NodeRequest> {
    prop_oneof![
        3 => Just(NodeRequest::any()),
        1 => Just(NodeRequest::single()),
        1 => prop::collection::btree_set(0u32..4, 1..3).prop_map(|nodes| NodeRequest::nodes(nodes).unwrap()),
    ]
}

fn spec() -> impl Strategy<Value = PartitionSpec> {
    let memory = (prop::sample::select(PageSize::ALL.to_vec()), 8u64..1500);
    let flags = (prop::bool::weighted(0.8), any::<bool>(), any::<bool>());
    (request(), memory, nodes(), flags).prop_map(
        |(cpus, (pages, size), nodes, (dedicated, share, locked))| {
            let memory = match pages {
                PageSize::Size1G => (size % 4 + 1) << 30,
                _ => size << 21,
            };
            let mut spec = PartitionSpec::on("any", cpus, memory).unwrap();
            spec = spec.with_pages(pages).unwrap().with_nodes(nodes);
            spec = spec.with_mode(if dedicated {
                CpuMode::Dedicated
            } else {
                CpuMode::Shared
            });
            spec = spec.with_siblings(if share {
                Siblings::Shared
            } else {
                Siblings::Withheld
            });
            if locked { spec.locked() } else { spec }
        },
    )
}

fn named(spec: &PartitionSpec, name: &str) -> PartitionSpec {
    let new = PartitionSpec::on(name, spec.cpus().clone(), spec.memory()).unwrap();
    let new = new
        .with_pages(spec.pages())
        .unwrap()
        .with_nodes(spec.nodes().clone());
    let new = new.with_mode(spec.mode()).with_siblings(spec.siblings());
    if spec.is_locked() { new.locked() } else { new }
}

/// What the plans before have taken, kept by other means than the planner's.
#[derive(Debug, Default, Clone)]
struct Taken {
    cpus: BTreeSet<usize>,
    memory: BTreeMap<(u32, PageSize), u64>,
    anywhere: u64,
}

impl Taken {
    fn add(&mut self, plan: &Plan) {
        self.cpus.extend(plan.held_cpus());
        for node in plan.nodes() {
            if let Some(host) = node.host {
                *self.memory.entry((host, plan.pages())).or_default() += node.memory;
            }
        }
        if plan.pages() == PageSize::Size4K {
            self.anywhere += plan.layout().memory();
        }
    }

    fn free(&self, node: &Node, pages: PageSize) -> u64 {
        let all = node.free_pages(pages) * pages.bytes();
        let taken = self.memory.get(&(node.id, pages)).copied().unwrap_or(0);
        let unit = pages.bytes().max(2 * MIB);
        assert!(taken <= all, "more was taken than there is");
        let left = all - taken;
        left / unit * unit
    }
}

/// Whether any choice of CPUs of those nodes meets a counted request, found by trying all of them.
fn some_cpus(inventory: &Inventory, taken: &Taken, spec: &PartitionSpec, on: &dyn Fn(u32) -> bool) -> bool {
    let usable: Vec<&Cpu> = inventory.usable_cpus().collect();
    let count = spec.cpus().vcpus();
    let all_isolated = usable.iter().all(|cpu| cpu.isolated);
    let threads = |cpu: &Cpu| {
        usable
            .iter()
            .filter(|other| cpu.siblings.contains(&other.id))
            .map(|o| o.id)
            .collect::<Vec<_>>()
    };
    (0u32..1 << usable.len())
        .filter(|mask| mask.count_ones() as usize == count)
        .any(|mask| {
            let chosen: BTreeSet<usize> = (0..usable.len())
                .filter(|bit| mask >> bit & 1 == 1)
                .map(|bit| usable[bit].id)
                .collect();
            let good = usable.iter().filter(|cpu| chosen.contains(&cpu.id)).all(|cpu| {
                let beside = threads(cpu).iter().all(|sibling| !taken.cpus.contains(sibling));
                on(cpu.node)
                    && !taken.cpus.contains(&cpu.id)
                    && (spec.siblings() == Siblings::Shared || beside)
            });
            let left_whole = usable.iter().any(|cpu| {
                let untouched = |id: &usize| !chosen.contains(id) && !taken.cpus.contains(id);
                threads(cpu).iter().all(untouched)
                    && (all_isolated
                        || threads(cpu)
                            .iter()
                            .any(|id| usable.iter().any(|other| other.id == *id && !other.isolated)))
            });
            good && left_whole
        })
}

/// Whether a counted, dedicated request fits at all, by trying everything.
fn fits(inventory: &Inventory, taken: &Taken, spec: &PartitionSpec) -> bool {
    let pages = spec.pages();
    if pages == PageSize::Size4K && spec.memory() + taken.anywhere > inventory.memory_available {
        return false;
    }
    let admitted: Vec<&Node> = inventory
        .nodes
        .iter()
        .filter(|node| spec.nodes().admits(node.id))
        .collect();
    if spec.nodes().is_single() {
        return admitted.iter().any(|node| {
            taken.free(node, pages) >= spec.memory() && some_cpus(inventory, taken, spec, &|id| id == node.id)
        });
    }
    let memory: u64 = admitted.iter().map(|node| taken.free(node, pages)).sum();
    memory >= spec.memory() && some_cpus(inventory, taken, spec, &|id| spec.nodes().admits(id))
}

/// What must be true of an accepted plan beside those before it.
fn check(
    inventory: &Inventory,
    taken: &Taken,
    spec: &PartitionSpec,
    plan: &Plan,
) -> Result<(), TestCaseError> {
    let usable: BTreeMap<usize, &Cpu> = inventory.usable_cpus().map(|cpu| (cpu.id, cpu)).collect();
    let pinned: BTreeSet<usize> = plan.pinned().iter().copied().collect();
    prop_assert_eq!(pinned.len(), plan.pinned().len(), "a CPU twice");
    prop_assert!(
        pinned
            .iter()
            .all(|cpu| usable.get(cpu).is_some_and(|cpu| spec.nodes().admits(cpu.node)))
    );
    prop_assert!(pinned.is_disjoint(&taken.cpus), "somebody else's CPU");
    match (spec.cpus().listed(), spec.mode()) {
        (Some(list), _) => prop_assert_eq!(plan.pinned(), list),
        (None, CpuMode::Shared) => prop_assert!(pinned.is_empty()),
        (None, CpuMode::Dedicated) => prop_assert_eq!(pinned.len(), spec.cpus().vcpus()),
    }
    if spec.mode() == CpuMode::Dedicated && spec.siblings() == Siblings::Withheld {
        let beside = pinned.iter().flat_map(|cpu| &usable[cpu].siblings).copied();
        let beside: BTreeSet<usize> = beside
            .filter(|cpu| usable.contains_key(cpu) && !pinned.contains(cpu))
            .collect();
        prop_assert_eq!(
            plan.withheld().iter().copied().collect::<BTreeSet<_>>(),
            beside.clone()
        );
        prop_assert!(beside.is_disjoint(&taken.cpus), "a sibling is somebody else's");
    } else {
        prop_assert!(plan.withheld().is_empty());
    }
    if spec.mode() == CpuMode::Dedicated && spec.cpus().listed().is_none() {
        let held = plan.held_cpus();
        let untouched =
            |id: &usize| !usable.contains_key(id) || !held.contains(id) && !taken.cpus.contains(id);
        let all_isolated = usable.values().all(|cpu| cpu.isolated);
        let keeps = |cpu: &&Cpu| (all_isolated || !cpu.isolated) && cpu.siblings.iter().all(untouched);
        prop_assert!(
            usable.values().copied().any(|cpu| keeps(&cpu)),
            "no core stays with the host"
        );
    }
    prop_assert_eq!(plan.layout().memory(), spec.memory());
    prop_assert_eq!(
        plan.nodes().iter().map(|node| node.memory).sum::<u64>(),
        spec.memory()
    );
    let vcpus: BTreeSet<usize> = plan
        .nodes()
        .iter()
        .flat_map(|node| node.vcpus.iter().copied())
        .collect();
    prop_assert_eq!(vcpus, (0..spec.cpus().vcpus()).collect::<BTreeSet<_>>());
    for node in plan.nodes() {
        let Some(host) = node.host else { continue };
        prop_assert!(spec.nodes().admits(host));
        let there = inventory
            .nodes
            .iter()
            .find(|n| n.id == host)
            .map_or(0, |n| taken.free(n, plan.pages()));
        prop_assert!(node.memory <= there);
        let home = |vcpu: &usize| {
            plan.pinned()
                .get(*vcpu)
                .is_none_or(|cpu| usable[cpu].node == host)
        };
        prop_assert!(node.vcpus.iter().all(home), "a vCPU away from its CPU");
    }
    prop_assert!(!spec.nodes().is_single() || plan.nodes().len() == 1);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn plans_one_beside_the_other_never_overlap_and_a_refusal_is_right(
        inventory in inventory(),
        specs in prop::collection::vec(spec(), 1..8),
    ) {
        let mut planner = Planner::new(&inventory);
        let mut taken = Taken::default();
        for (number, spec) in specs.iter().enumerate() {
            let spec = named(spec, &format!("p{number}"));
            let counted = spec.cpus().listed().is_none() && spec.mode() == CpuMode::Dedicated;
            match planner.fit(&spec) {
                Ok(plan) => {
                    check(&inventory, &taken, &spec, &plan)?;
                    prop_assert!(!counted || fits(&inventory, &taken, &spec), "more than there is: {plan:?}");
                    planner.hold(&plan);
                    taken.add(&plan);
                }
                Err(PlanError::NoSuchNode { node, .. }) => prop_assert!(inventory.nodes.iter().all(|n| n.id != node)),
                Err(PlanError::Memlock { asked, limit }) => prop_assert!(spec.is_locked() && asked > limit),
                Err(PlanError::CpuHeld { cpu, .. }) => prop_assert!(taken.cpus.contains(&cpu)),
                Err(PlanError::SiblingHeld { sibling, .. }) => prop_assert!(taken.cpus.contains(&sibling)),
                Err(PlanError::NoSuchCpu { cpu, .. }) => {
                    let there = |known: &Cpu| known.id == cpu && spec.nodes().admits(known.node);
                    prop_assert!(!inventory.usable_cpus().any(there));
                }
                Err(refusal) if counted => {
                    prop_assert!(!fits(&inventory, &taken, &spec), "{refusal}");
                    advice(&planner, &spec, &refusal)?;
                }
                Err(PlanError::Memory { asked, most, .. }) => prop_assert!(asked > most),
                Err(PlanError::NoSingleNode { .. }) => prop_assert!(spec.nodes().is_single()),
                Err(refusal) => {
                    // Listed CPUs that are not on one node.
                    prop_assert!(spec.cpus().listed().is_some(), "{refusal}");
                }
            }
        }
    }

    #[test]
    fn what_is_given_back_can_be_had_again(inventory in inventory(), specs in prop::collection::vec(spec(), 1..5)) {
        let fresh = Planner::new(&inventory);
        let mut planner = fresh.clone();
        let mut held = Vec::new();
        for (number, spec) in specs.iter().enumerate() {
            if let Ok(plan) = planner.fit(&named(spec, &format!("p{number}"))) {
                planner.hold(&plan);
                held.push(plan);
            }
        }
        held.iter().for_each(|plan| planner.give_back(plan));
        for spec in &specs {
            prop_assert_eq!(planner.fit(spec), fresh.fit(spec));
        }
    }

    #[test]
    fn no_isolated_core_is_passed_over_for_another_of_its_kind_and_node(inventory in inventory(), spec in spec()) {
        let Ok(plan) = Plan::fit(&inventory, &spec) else { return Ok(()) };
        if spec.cpus().listed().is_some() || spec.mode() == CpuMode::Shared {
            return Ok(());
        }
        let held = plan.held_cpus();
        let whole = |cpu: &Cpu| cpu.siblings.len();
        for taken in inventory.usable_cpus().filter(|cpu| held.contains(&cpu.id) && !cpu.isolated) {
            let better = inventory.usable_cpus().find(|cpu| {
                let free = cpu.siblings.iter().all(|id| !held.contains(id));
                cpu.isolated && free && (cpu.node, cpu.kind, whole(cpu)) == (taken.node, taken.kind, whole(taken))
                    && usable_threads(&inventory, cpu) == usable_threads(&inventory, taken)
            });
            prop_assert_eq!(better, None, "{:?}", plan);
        }
    }

    #[test]
    fn a_map_is_refused_only_for_what_it_says(memory: u64, bits: u8) {
        let wide = Layout::new(memory, bits);
        if let Ok(layout) = &wide {
            prop_assert_eq!(layout.memory(), memory);
            prop_assert_eq!(layout.address_bits(), bits);
            prop_assert!(layout.ram_below() <= Layout::MMIO32.start);
        } else {
            let good = (39..=52).contains(&bits) && memory >= 16 << 20 && memory.is_multiple_of(2 << 20);
            prop_assert!(!good || memory > (1 << (bits - 1)) - (1 << 30), "{wide:?}");
        }
    }

    #[test]
    fn the_largest_map_that_a_refusal_names_is_accepted(granules in 1u64 << 17..1 << 42, bits in 39u8..=52) {
        if let Err(LayoutError::TooLarge { most, .. }) = Layout::new(granules << 21, bits) {
            prop_assert!(Layout::new(most, bits).is_ok());
            prop_assert!(Layout::new(most + (2 << 20), bits).is_err());
        }
    }
}

fn usable_threads(inventory: &Inventory, cpu: &Cpu) -> usize {
    inventory
        .usable_cpus()
        .filter(|other| cpu.siblings.contains(&other.id))
        .count()
}

/// What a refusal says would fit does fit, as far as the thing refused goes.
fn advice(planner: &Planner<'_>, spec: &PartitionSpec, refusal: &PlanError) -> Result<(), TestCaseError> {
    match refusal {
        PlanError::TooFewCpus { most, .. } if *most > 0 => {
            let fewer = PartitionSpec::new("fewer", *most, spec.memory()).unwrap();
            let fewer = fewer
                .with_pages(spec.pages())
                .unwrap()
                .with_nodes(spec.nodes().clone());
            let again = planner.fit(&fewer.dedicated().with_siblings(spec.siblings()));
            prop_assert!(!matches!(again, Err(PlanError::TooFewCpus { .. })), "{again:?}");
        }
        PlanError::Memory { most, asked, .. } => {
            prop_assert!(most < asked);
            let Ok(less) = PartitionSpec::on("less", spec.cpus().clone(), *most) else {
                return Ok(());
            };
            let Ok(less) = less.with_pages(spec.pages()) else {
                return Ok(());
            };
            let less = less
                .with_nodes(spec.nodes().clone())
                .with_siblings(spec.siblings())
                .dedicated();
            let again = planner.fit(&less);
            prop_assert!(
                !matches!(again, Err(PlanError::Memory { most: again, .. }) if again == *most),
                "{again:?}"
            );
        }
        _ => {}
    }
    Ok(())
}
