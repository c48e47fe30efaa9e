//! The bus's hit path against a bus behind locks, in the same run: which device is hit, how many there are, how many threads.
//!
//! Times are CPU time of the threads per access, so that they hold on a machine that is busy with other things. That favours the
//! locks: a thread that sleeps until one is free costs nothing meanwhile.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, Barrier, Mutex, RwLock};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pellucid::partition::{BusRange, LastHit, MmioBus, MmioHandler};
use rustix::time::{ClockId, clock_gettime};

/// A device of 32-bit registers.
struct Register(u64);

impl MmioHandler for Register {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let Ok(data) = <&mut [u8; 4]>::try_from(data) {
            *data = ((self.0 + offset) as u32).to_le_bytes();
        }
    }

    fn write(&self, _: u64, _: &[u8]) {}
}

/// The common way: a map behind a lock, each device behind another.
type LockedBus = RwLock<BTreeMap<u64, (u64, Arc<Mutex<dyn MmioHandler>>)>>;

/// The same devices on both buses.
struct Scene {
    bus: Arc<MmioBus>,
    _on_it: Vec<BusRange<dyn MmioHandler>>,
    locked: LockedBus,
}

impl Scene {
    fn new(places: &[Place]) -> Self {
        let bus = Arc::new(MmioBus::new());
        let insert = |(place, index): (&Place, u64)| {
            let inserted = bus.insert(place.base, place.size, "device", Arc::new(Register(index)));
            inserted.ok()
        };
        let lock = |(place, index): (&Place, u64)| {
            let device = Arc::new(Mutex::new(Register(index))) as Arc<Mutex<dyn MmioHandler>>;
            (place.base, (place.size, device))
        };
        Self {
            _on_it: places.iter().zip(0..).flat_map(insert).collect(),
            locked: RwLock::new(places.iter().zip(0..).map(lock).collect()),
            bus,
        }
    }

    fn lock_free(&self, addresses: &[u64], accesses: u64) {
        let mut hit = LastHit::new();
        repeat(addresses, accesses, |address, data| {
            self.bus.read(&mut hit, address, data)
        });
    }

    fn behind_locks(&self, addresses: &[u64], accesses: u64) {
        repeat(addresses, accesses, |address, data| {
            read_locked(&self.locked, address, data).is_some()
        });
    }
}

#[inline]
fn repeat(addresses: &[u64], accesses: u64, mut read: impl FnMut(u64, &mut [u8]) -> bool) {
    for address in addresses.iter().cycle().take(accesses as usize) {
        let mut data = [0; 4];
        assert!(read(black_box(*address), &mut data));
        black_box(data);
    }
}

fn read_locked(bus: &LockedBus, address: u64, data: &mut [u8]) -> Option<()> {
    let map = bus.read().ok()?;
    let (base, (size, device)) = map.range(..=address).next_back()?;
    let offset = address - base;
    if offset >= *size {
        return None;
    }
    device.lock().ok()?.read(offset, data);
    Some(())
}

/// The mean CPU time in which each of `threads` threads does `work`.
fn cpu_time(threads: usize, work: impl Fn() + Sync) -> Duration {
    let start = Barrier::new(threads);
    let measured = || {
        start.wait();
        let before = clock_gettime(ClockId::ThreadCPUTime);
        work();
        let spent = clock_gettime(ClockId::ThreadCPUTime) - before;
        Duration::try_from(spent).unwrap_or_default()
    };
    if threads == 1 {
        return measured();
    }
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(measured)).collect();
        let spent = running.into_iter().filter_map(|thread| thread.join().ok());
        spent.sum::<Duration>() / threads as u32
    })
}

/// Where a device answers.
struct Place {
    base: u64,
    size: u64,
}

impl Place {
    fn register(&self, number: u64) -> u64 {
        self.base + number * 4 % self.size
    }
}

/// Pages side by side, as the traps of many queues lie.
fn side_by_side(devices: u64) -> Vec<Place> {
    let size = 0x1000;
    let place = |index| Place {
        base: 0xc000_0000 + index * size,
        size,
    };
    (0..devices).map(place).collect()
}

/// Ranges of 32 bytes to 16 MiB, half of them above 4 GiB, with gaps: as little as possible for a hash to go by.
fn scattered(devices: u64) -> Vec<Place> {
    let mut free = 0xc000_0000_u64;
    let mut place = |index: u64| {
        let size = [0x20, 0x1000, 0x4000, 0x2_0000, 0x100, 0x100_0000, 0x1000, 0x1000][index as usize % 8];
        if index == devices / 2 {
            free = 0x10_0000_0000;
        }
        let base = (free + index % 3 * size).next_multiple_of(size);
        free = base + size;
        Place { base, size }
    };
    (0..devices).map(&mut place).collect()
}

/// Which devices are hit: one over and over, two in turn, all in turn, any register of any.
fn patterns(places: &[Place]) -> [(&'static str, Vec<u64>); 4] {
    let count = places.len();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let any = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        places[seed as usize % count].register(seed >> 32 & 15)
    });
    [
        ("the same", vec![places[count / 2].register(3)]),
        (
            "two in turn",
            vec![places[0].register(1), places[count - 1].register(7)],
        ),
        (
            "all in turn",
            places
                .iter()
                .zip(0..)
                .map(|(place, n)| place.register(n % 16))
                .collect(),
        ),
        ("any", any.take(1 << 16).collect()),
    ]
}

fn dispatch(criterion: &mut Criterion) {
    for devices in [32, 256] {
        for (layout, places) in [
            ("side by side", side_by_side(devices)),
            ("scattered", scattered(devices)),
        ] {
            let scene = Scene::new(&places);
            let mut group = criterion.benchmark_group(format!("hit among {devices} {layout}"));
            for (pattern, addresses) in patterns(&places) {
                for threads in [1, 2, 4] {
                    let of =
                        |side| BenchmarkId::new(format!("{pattern}, {side}"), format!("{threads} threads"));
                    group.bench_function(of("lock-free"), |bencher| {
                        bencher.iter_custom(|count| cpu_time(threads, || scene.lock_free(&addresses, count)));
                    });
                    group.bench_function(of("behind locks"), |bencher| {
                        bencher
                            .iter_custom(|count| cpu_time(threads, || scene.behind_locks(&addresses, count)));
                    });
                }
            }
            group.finish();
        }
    }
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
