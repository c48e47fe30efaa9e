//! A guest's configuration access to a lent function, without what the hardware itself costs: registers that are shadowed or constant,
//! one that decides what is open, and a read through to a device that answers at once. Needs `/dev/kvm`, for the guest that it is wired to.

#[path = "../passthrough/tests/sham/mod.rs"]
mod sham;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use pellucid::partition::ConfigHandler;
use pellucid::passthrough::{BarKind, BarShape, Endpoint, RegionIndex};
use rustix::time::{ClockId, clock_gettime};
use sham::{Sham, wire};

const BAR: BarShape = BarShape {
    index: 0,
    kind: BarKind::Memory64 { prefetchable: false },
    size: 0x4000,
    address: 0xc010_0000,
};

/// CPU time of this thread, so that it holds on a machine that is busy with other things.
fn cpu_time(times: u64, mut act: impl FnMut(u64)) -> Duration {
    let before = clock_gettime(ClockId::ThreadCPUTime);
    (0..times).for_each(&mut act);
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime) - before).unwrap_or_default()
}

fn function() -> Option<(Endpoint, pellucid::passthrough::Guest)> {
    if let Err(error) = pellucid::partition::Vm::create() {
        eprintln!("config_space: not measured: {error}");
        return None;
    }
    let sham = Arc::new(Sham::new().region(RegionIndex::Bar(0), BAR.size, true));
    wire(&sham, &[BAR]).ok()
}

fn config_space(criterion: &mut Criterion) {
    let Some((function, _guest)) = function() else {
        return;
    };
    let mut group = criterion.benchmark_group("config_space");
    let mut read = |name: &str, offset: u16| {
        group.bench_function(name, |bench| {
            let mut data = [0; 4];
            bench.iter_custom(|times| {
                cpu_time(times, |_| function.read(black_box(offset), black_box(&mut data)))
            });
        });
    };
    read("read an id", 0x00);
    read("read a BAR", 0x10);
    read("read MSI-X control", 0x70);
    read("read through to a device in memory", 0x90);
    let mut write = |name: &str, offset: u16, values: [u32; 2]| {
        group.bench_function(name, |bench| {
            let value = |turn: u64| values[turn as usize % 2].to_le_bytes();
            bench
                .iter_custom(|times| cpu_time(times, |turn| function.write(black_box(offset), &value(turn))));
        });
    };
    write("write an id, which is dropped", 0x00, [0, u32::MAX]);
    write("write an MSI message", 0x54, [0xfee0_0000, 0xfee0_1000]);
    write("size a BAR that is closed", 0x14, [0, u32::MAX]);
    group.finish();
}

criterion_group!(benches, config_space);
criterion_main!(benches);
