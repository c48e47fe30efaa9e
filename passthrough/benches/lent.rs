//! What lending costs, measured on real devices: a register read three ways, an interrupt's round trip, and guest memory mapped for DMA, each
//! with the host's own, or with the other kinds of pages, in the same run. Needs root, an `edu` at 00:05.0 and an NVMe controller at 02:00.0,
//! which the emulated server has: `cargo testbed bench passthrough`.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement ends where the host fails it; the scene is the tests' own"
)]

#[path = "../tests/scene/mod.rs"]
mod scene;

use std::hint::black_box;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use pellucid_partition::{GuestAddress, GuestMemory, Layout, PageSize, StateDir};
use pellucid_passthrough::{
    Assigned, BarShape, Bound, Guest, Inventory, IoSpace, IrqKind, RegionIndex, View,
};
use scene::{Raiser, Scene, arm_msi, bdf, state};

const EDU: &str = "0000:00:05.0";
const NVME: &str = "0000:02:00.0";
/// NVMe's version register; and the device's own bytes behind the MSI-X table, in a page that is trapped.
const MAPPED: u64 = 0x08;
const TRAPPED: u64 = 0x2800;
/// Rounds in turn, so that no side has the quieter minute.
const ROUNDS: usize = 5;
/// What each side does in such a round; reads through a mapping are so fast that going into the guest and out again must not count.
const TIMES: u64 = 1000;
const READS: u64 = 1_000_000;
/// The vector of the guest's interrupt.
const VECTOR: u8 = 0x45;
const MEMORY: u64 = 256 << 20;
const POOL: &str = "/proc/sys/vm/nr_hugepages";

fn lent(criterion: &mut Criterion) {
    // `cargo test --benches` comes by without devices.
    if std::env::args().any(|argument| argument == "--test")
        || !std::path::Path::new("/dev/vfio/vfio").exists()
    {
        println!(
            "lent: not measured: it needs /dev/vfio/vfio, which the emulated server has, and is no test"
        );
        return;
    }
    let (_directory, state) = state();
    bar_access(criterion, &state);
    interrupt(criterion, &state);
    dma_map(criterion, &state);
}

/// A register read by the host and by the guest through their mappings, and by the guest through an exit.
fn bar_access(criterion: &mut Criterion, state: &StateDir) {
    let mut scene = Scene::new(state, "bench");
    let bound = bind(state, NVME);
    let own = bound.transport().map(RegionIndex::Bar(0), 0, 4096).unwrap();
    let (assigned, bar) = assign(&scene, bound);
    let host = |times| {
        let mut data = [0; 4];
        timed(|| (0..times).for_each(|_| assert!(black_box(own.read(MAPPED as usize, &mut data)))))
    };
    let mut guest = |register, times| timed(|| scene.peek_often(bar + register, times as u32));
    let mut group = criterion.benchmark_group("bar_access");
    group.bench_function("host, mapped", |bench| bench.iter_custom(host));
    group.bench_function("guest, mapped", |bench| {
        bench.iter_custom(|times| guest(MAPPED, times));
    });
    group.bench_function("guest, trapped", |bench| {
        bench.iter_custom(|times| guest(TRAPPED, times));
    });
    group.finish();
    let rounds = (0..ROUNDS).map(|_| [host(READS), guest(MAPPED, READS), guest(TRAPPED, TIMES)]);
    let [host, mapped, trapped] = medians(rounds);
    let [host, mapped, trapped] = [each(host, READS), each(mapped, READS), each(trapped, TIMES)];
    println!("register read, {ROUNDS} rounds in turn, medians: host's mapping {host:.2} us");
    println!(
        "  guest's mapping {mapped:.2} us ({:.2} of the host's)",
        mapped / host
    );
    println!(
        "  guest's, trapped {trapped:.2} us ({:.2} of the host's)\n",
        trapped / host
    );
    drop(own);
    assigned.release().unwrap();
}

/// From a device's interrupt being asked for until its handler has run: by an eventfd in the host, by MSI in the guest.
fn interrupt(criterion: &mut Criterion, state: &StateDir) {
    let mut scene = Scene::new(state, "bench");
    let mut bound = bind(state, EDU);
    let mut group = criterion.benchmark_group("interrupt round trip");
    group.bench_function("host's eventfd", |bench| {
        bench.iter_custom(|times| taken_by_host(&bound, times));
    });
    let (mut assigned, mut bar) = assign(&scene, bound);
    arm_msi(&*assigned.config(), VECTOR);
    group.bench_function("guest's MSI", |bench| {
        bench.iter_custom(|times| taken_by_guest(&mut scene, bar, times));
    });
    group.finish();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        bound = assigned.unassign();
        let host = taken_by_host(&bound, TIMES);
        (assigned, bar) = assign(&scene, bound);
        arm_msi(&*assigned.config(), VECTOR);
        rounds.push([host, taken_by_guest(&mut scene, bar, TIMES)]);
    }
    let [host, guest] = medians(rounds.into_iter()).map(|took| each(took, TIMES));
    println!(
        "interrupt round trip, {ROUNDS} rounds in turn, medians, none lost: host's eventfd {host:.2} us"
    );
    println!(
        "  guest's MSI {guest:.2} us ({:.2} of the host's)\n",
        guest / host
    );
    assigned.release().unwrap();
}

fn taken_by_host(bound: &Bound, times: u64) -> Duration {
    let transport = bound.transport();
    let own = transport.map(RegionIndex::Bar(0), 0, 4096).unwrap();
    transport.write(RegionIndex::Config, 4, &[0x06, 0]).unwrap();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
    transport.wire(IrqKind::Msi, 0, &[Some(event.as_fd())]).unwrap();
    let took = timed(|| {
        for _ in 0..times {
            assert!(own.write(0x60, &1_u32.to_le_bytes()));
            assert_eq!(rustix::io::read(&event, &mut [0; 8]).unwrap(), 8);
            assert!(own.write(0x64, &1_u32.to_le_bytes()));
        }
    });
    transport.unwire(IrqKind::Msi).unwrap();
    took
}

fn taken_by_guest(scene: &mut Scene, bar: u64, times: u64) -> Duration {
    let times = times as u32;
    timed(|| {
        assert_eq!(
            scene.raise_and_count(&Raiser::edu(bar), &[VECTOR], times),
            (times, 0)
        )
    })
}

/// Guest memory mapped for DMA, in pages of each kind; resident before, so that it is mapping that is measured.
fn dma_map(criterion: &mut Criterion, state: &StateDir) {
    let before = std::fs::read_to_string(POOL).unwrap();
    std::fs::write(POOL, ((MEMORY >> 21) + 8).to_string()).unwrap();
    let kinds = [small(), populated(PageSize::Size4K), populated(PageSize::Size2M)];
    let huge = kinds.each_ref().map(|memory| memory.residence().unwrap().huge);
    assert_eq!(huge, [0, MEMORY, MEMORY], "each kind is what it is called");
    let mut mapping = Mapping::begin(state);
    let mut group = criterion.benchmark_group("dma_map");
    group
        .throughput(Throughput::Bytes(MEMORY))
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(10));
    let names = ["4 KiB pages", "transparent huge pages", "2 MiB pages"];
    for (name, memory) in names.iter().zip(&kinds) {
        group.bench_function(*name, |bench| {
            bench.iter_custom(|times| (0..times).map(|_| mapping.time(memory)).sum());
        });
    }
    group.finish();
    let rounds = (0..ROUNDS).map(|_| kinds.each_ref().map(|memory| mapping.time(memory)));
    let times = medians(rounds);
    println!("dma_map, {ROUNDS} rounds in turn, medians:");
    let rates = times.map(|time| MEMORY as f64 / time.as_secs_f64() / f64::from(1 << 30));
    for (name, rate) in names.iter().zip(rates) {
        println!("  {name} {rate:.2} GiB/s ({:.2} of 4 KiB's)", rate / rates[0]);
    }
    println!();
    mapping.end();
    drop(kinds);
    std::fs::write(POOL, before.trim()).unwrap();
}

/// Touched page by page: nobody collapses them then.
fn small() -> GuestMemory {
    let memory = GuestMemory::map("bench", &Layout::new(MEMORY, 39).unwrap(), PageSize::Size4K).unwrap();
    for region in memory.regions() {
        for offset in (0..region.size).step_by(4096) {
            memory.write(GuestAddress(region.guest.0 + offset), &[1]).unwrap();
        }
    }
    memory
}

fn populated(pages: PageSize) -> GuestMemory {
    let memory = GuestMemory::map("bench", &Layout::new(MEMORY, 39).unwrap(), pages).unwrap();
    memory.populate(&|_| {}).unwrap();
    memory
}

/// A device that is assigned to guests with other memory each time, and what mapping that took.
struct Mapping {
    scene: Scene,
    bound: Option<Bound>,
    spent: Arc<Mutex<Duration>>,
}

impl Mapping {
    fn begin(state: &StateDir) -> Mapping {
        let scene = Scene::new(state, "bench");
        let bound = bind(state, EDU);
        let spent = Arc::new(Mutex::new(Duration::ZERO));
        let told = Arc::clone(&spent);
        bound
            .space()
            .unwrap()
            .report_to(Arc::new(move |progress| *told.lock().unwrap() = progress.elapsed));
        Mapping {
            scene,
            bound: Some(bound),
            spent,
        }
    }

    fn time(&mut self, memory: &GuestMemory) -> Duration {
        *self.spent.lock().unwrap() = Duration::ZERO;
        let guest = Guest {
            memory: memory.clone(),
            ..self.scene.guest.clone()
        };
        let bound = self.bound.take().unwrap();
        let bars = self.scene.place(bound.function());
        let assigned = bound.assign(&guest, view(&self.scene, bars)).unwrap();
        let spent = *self.spent.lock().unwrap();
        assert_ne!(spent, Duration::ZERO, "it was mapped");
        self.bound = Some(assigned.unassign());
        spent
    }

    fn end(self) {
        self.bound.unwrap().release().unwrap();
    }
}

fn bind(state: &StateDir, device: &str) -> Bound {
    let admitted = Inventory::survey().unwrap().admit(bdf(device)).unwrap();
    let claimed = admitted.claim(state, "bench").unwrap();
    claimed.bind(&IoSpace::open().unwrap()).unwrap()
}

fn assign(scene: &Scene, bound: Bound) -> (Assigned, u64) {
    let bars = scene.place(bound.function());
    let bar = bars[0].address;
    let assigned = bound.assign(&scene.guest, view(scene, bars)).unwrap();
    assigned.config().write(0x04, &[0x06, 0]);
    (assigned, bar)
}

fn view(scene: &Scene, bars: Vec<BarShape>) -> View {
    View {
        bars,
        windows: scene.windows.clone(),
        line: None,
        line_register: 0,
        events: Arc::new(|_| {}),
    }
}

fn timed(act: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    act();
    begun.elapsed()
}

fn medians<const N: usize>(rounds: impl Iterator<Item = [Duration; N]>) -> [Duration; N] {
    let rounds: Vec<[Duration; N]> = rounds.collect();
    std::array::from_fn(|index| {
        let mut column: Vec<Duration> = rounds.iter().map(|round| round[index]).collect();
        column.sort_unstable();
        column[column.len() / 2]
    })
}

/// Microseconds for each of `times`.
fn each(took: Duration, times: u64) -> f64 {
    took.as_secs_f64() * 1e6 / times as f64
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = lent
}
criterion_main!(benches);
