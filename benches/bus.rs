//! The bus's hit path against a bus behind locks, in turn, with 32 and 256 ranges.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex, RwLock};

use criterion::{Criterion, criterion_group, criterion_main};
use pellucid::partition::{LastHit, MmioBus, MmioHandler};

/// A device that answers with a register.
struct Register(u64);

impl MmioHandler for Register {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let value = (self.0 + offset).to_le_bytes();
        data.iter_mut().zip(value).for_each(|(to, from)| *to = from);
    }

    fn write(&self, _: u64, _: &[u8]) {}
}

/// The common way: a map behind a lock, each device behind another.
type LockedBus = RwLock<BTreeMap<u64, (u64, Mutex<Register>)>>;

fn dispatch(criterion: &mut Criterion) {
    for count in [32, 256] {
        let bus = Arc::new(MmioBus::new());
        let locked: LockedBus = RwLock::default();
        let mut guards = Vec::new();
        for index in 0..count {
            let base = 0xc000_0000 + index * 0x1000;
            let inserted = bus.insert(base, 0x1000, "device", Arc::new(Register(index)));
            guards.extend(inserted.ok());
            if let Ok(mut map) = locked.write() {
                map.insert(base, (0x1000, Mutex::new(Register(index))));
            }
        }
        let mut group = criterion.benchmark_group(format!("dispatch among {count} ranges"));
        // Two registers of two devices in turn: neither side lives on one cached answer.
        let addresses = [0xc000_0004, 0xc000_0000 + (count - 1) * 0x1000 + 8];
        let mut hit = LastHit::new();
        let mut turn = 0;
        group.bench_function("lock-free", |bencher| {
            bencher.iter(|| {
                let mut data = [0; 4];
                turn ^= 1;
                black_box(bus.read(&mut hit, black_box(addresses[turn]), &mut data));
                data
            });
        });
        group.bench_function("behind locks", |bencher| {
            bencher.iter(|| {
                let mut data = [0; 4];
                turn ^= 1;
                black_box(read_locked(&locked, black_box(addresses[turn]), &mut data));
                data
            });
        });
        group.finish();
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

criterion_group!(benches, dispatch);
criterion_main!(benches);
