//! Populating guest memory against a parallel memset over the same fresh mapping, in turn, for each size of page.
//!
//! The memset copies a zeroed block that stays in the first-level cache, on as many threads as there are CPUs. Mapping and unmapping are
//! not counted. `PELLUCID_BENCH_MIB` changes the size of 512 MiB. Pages that the host's pool does not have are said, with what helps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use pellucid::partition::{GuestAddress, GuestMemory, PageSize, RegionSpec};

/// One way to make all of the memory resident.
type Side = fn(&GuestMemory) -> bool;

fn populate(criterion: &mut Criterion) {
    let mebibytes = std::env::var("PELLUCID_BENCH_MIB").ok();
    let size = mebibytes.and_then(|text| text.parse().ok()).unwrap_or(512) << 20;
    for pages in [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G] {
        let size = size.max(pages.bytes());
        if fresh(size, pages).is_none() {
            let (count, kilobytes) = (size / pages.bytes(), pages.bytes() >> 10);
            println!(
                "{pages} pages: not run: fewer than {count} are free; as root write {count} to /sys/kernel/mm/hugepages/hugepages-{kilobytes}kB/nr_hugepages"
            );
            continue;
        }
        let mut group = criterion.benchmark_group(format!("{} MiB in {pages} pages", size >> 20));
        group
            .throughput(Throughput::Bytes(size))
            .sample_size(10)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(3));
        measure(&mut group, "populate", (size, pages), populated);
        measure(&mut group, "memset", (size, pages), filled);
        group.finish();
        compare(size, pages);
    }
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, (size, pages): (u64, PageSize), side: Side) {
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| timed(size, pages, side)).sum());
    });
}

/// Rounds of both sides in turn, so that neither has the quieter minute, and the ratio of their medians.
fn compare(size: u64, pages: PageSize) {
    let round = |_| [populated as Side, filled].map(|side| timed(size, pages, side));
    let rounds: Vec<[Duration; 2]> = (0..ROUNDS).map(round).collect();
    let [populate, memset] = [0, 1].map(|side| {
        let mut times: Vec<_> = rounds.iter().map(|round| round[side]).collect();
        times.sort_unstable();
        times[ROUNDS / 2]
    });
    let rate = |time: Duration| size as f64 / time.as_secs_f64() / f64::from(1 << 30);
    println!(
        "{pages} pages, {ROUNDS} rounds in turn, medians: populate {:.2} GiB/s, memset {:.2} GiB/s, populate is {:.2} x memset\n",
        rate(populate),
        rate(memset),
        memset.as_secs_f64() / populate.as_secs_f64()
    );
}

/// The time that `side` takes for memory which nobody has touched before.
fn timed(size: u64, pages: PageSize, side: Side) -> Duration {
    let memory = fresh(size, pages);
    let begun = Instant::now();
    let done = memory.as_ref().is_some_and(side);
    let took = begun.elapsed();
    assert!(done, "{pages} pages went missing while they were measured");
    took
}

fn fresh(size: u64, pages: PageSize) -> Option<GuestMemory> {
    let spec = RegionSpec {
        pages,
        ..RegionSpec::new(GuestAddress(0), size)
    };
    GuestMemory::of("bench", &[spec]).ok()
}

fn populated(memory: &GuestMemory) -> bool {
    memory.populate(&|_| ()).is_ok()
}

fn filled(memory: &GuestMemory) -> bool {
    let total: u64 = memory.regions().iter().map(|region| region.size).sum();
    let next = AtomicU64::new(0);
    let work = || {
        let block = vec![0; BLOCK as usize];
        loop {
            let begin = next.fetch_add(SHARE, Ordering::Relaxed);
            if begin >= total {
                return true;
            }
            let end = total.min(begin + SHARE);
            let mut places = (begin..end).step_by(BLOCK as usize);
            if !places.all(|place| memory.write(GuestAddress(place), &block).is_ok()) {
                return false;
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        others.into_iter().all(|other| other.join().unwrap_or(false)) && own
    })
}

const ROUNDS: usize = 9;
/// What a thread takes at a time.
const SHARE: u64 = 64 << 20;
/// What stays in a first-level cache.
const BLOCK: u64 = 16 << 10;

criterion_group!(benches, populate);
criterion_main!(benches);
