//! Planning on a host of 4,096 CPUs and 64 memory nodes: 10,000 partitions, each fitted beside those before it.
//!
//! Dedicated and shared partitions in ordinary and huge pages come in turn; when 1,000 are held, the oldest goes. The other side fits
//! each into the bare inventory, as who plans one partition does, and so pays for the survey's size every time.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use pellucid::partition::{
    Cgroup, CgroupHome, CgroupVersion, CoreKind, Cpu, Inventory, Node, PageSize, PartitionSpec, Plan,
    Planner, SpecError,
};

const PARTITIONS: usize = 10_000;
const HELD: usize = 1_000;
const NODES: usize = 64;
const CPUS: usize = 4_096;

fn plan(criterion: &mut Criterion) {
    let host = host();
    let Ok(specs) = (0..PARTITIONS).map(spec).collect::<Result<Vec<_>, _>>() else {
        return println!("a specification is refused");
    };
    let begun = Instant::now();
    let (planned, refused) = fill(&host, &specs);
    println!(
        "{planned} partitions planned and {refused} refused on {CPUS} CPUs and {NODES} nodes in {:.3} s, at most {HELD} held at a time",
        begun.elapsed().as_secs_f64()
    );
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(3));
    group.bench_function("10,000 partitions beside each other", |bencher| {
        bencher.iter(|| fill(black_box(&host), &specs));
    });
    group.bench_function("one partition from the inventory", |bencher| {
        bencher.iter(|| Plan::fit(black_box(&host), &specs[0]).is_ok());
    });
    group.finish();
}

/// Plans all of them; how many were planned and how many refused.
fn fill(host: &Inventory, specs: &[PartitionSpec]) -> (usize, usize) {
    let mut planner = Planner::new(host);
    let mut held: VecDeque<Plan> = VecDeque::new();
    let (mut planned, mut refused) = (0, 0);
    for spec in specs {
        if held.len() == HELD
            && let Some(oldest) = held.pop_front()
        {
            planner.give_back(&oldest);
        }
        match planner.fit(spec) {
            Ok(plan) => {
                planner.hold(&plan);
                held.push_back(plan);
                planned += 1;
            }
            Err(_) => refused += 1,
        }
    }
    (planned, refused)
}

fn spec(number: usize) -> Result<PartitionSpec, SpecError> {
    let pages = PageSize::ALL[number % 3];
    let name = format!("p{number}");
    let spec = PartitionSpec::new(&name, 1 + number % 7, (1 + number as u64 % 4) << 30)?.with_pages(pages)?;
    Ok(match number % 4 {
        0 => spec,
        _ => spec.dedicated(),
    })
}

/// 64 nodes of 32 cores with two threads each, the last eight cores of each isolated.
fn host() -> Inventory {
    let per_node = CPUS / NODES;
    let cpu = |id: usize| Cpu {
        id,
        online: true,
        allowed: true,
        isolated: id % per_node >= per_node - 16,
        kind: CoreKind::Performance,
        node: (id / per_node) as u32,
        package: (id / per_node) as i32,
        core: (id / 2) as i32,
        siblings: vec![id & !1, id | 1],
    };
    let distance = |from: usize, to: usize| {
        if from == to {
            10
        } else {
            20 + from.abs_diff(to) as u32 / 8
        }
    };
    let node = |id: usize| Node {
        id: id as u32,
        total: 1 << 40,
        free: 256 << 30,
        available: 256 << 30,
        free_2m: 128 << 10,
        free_1g: 256,
        distances: (0..NODES).map(|to| distance(id, to)).collect(),
    };
    Inventory {
        cpus: (0..CPUS).map(cpu).collect(),
        caches: Vec::new(),
        nodes: (0..NODES).map(node).collect(),
        memory_available: 16 << 40,
        memlock: None,
        cgroup: Cgroup {
            version: CgroupVersion::V2,
            home: Ok(CgroupHome {
                path: "/".to_owned(),
                controllers: vec!["cpuset".to_owned(), "cpu".to_owned()],
                partition: None,
                cpus: (0..CPUS).collect(),
                named: BTreeMap::new(),
            }),
            ..Cgroup::default()
        },
        kernel: "6.12.0".to_owned(),
        address_bits: None,
        kvm: Err("not asked".to_owned()),
        held: Vec::new(),
    }
}

criterion_group!(benches, plan);
criterion_main!(benches);
