//! What lending costs, measured on real devices: a register read three ways, memory mapped for DMA, and an interrupt's round trip, each with
//! the host's own in the same run. Needs root, an `edu` at 00:05.0 and an NVMe controller at 02:00.0: `cargo testbed run --`.
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

use pellucid_partition::{GuestAddress, GuestMemory, Layout, PageSize, StateDir};
use pellucid_passthrough::{Assigned, Bound, Guest, Inventory, IoSpace, IrqKind, RegionIndex, View};
use scene::{Scene, bdf, state};

const EDU: &str = "0000:00:05.0";
const NVME: &str = "0000:02:00.0";
/// NVMe's version register; and the device's own bytes behind the MSI-X table, in a page that is trapped.
const MAPPED: u64 = 0x08;
const TRAPPED: u64 = 0x2800;
const ROUNDS: usize = 5;

fn main() {
    // `cargo test --benches` and `cargo bench --no-run` come by without devices.
    if std::env::args().any(|argument| argument == "--test")
        || !std::path::Path::new("/dev/vfio/vfio").exists()
    {
        println!("lent: not measured: no /dev/vfio/vfio; run it in the emulated server");
        return;
    }
    let (_directory, state) = state();
    println!("medians of {ROUNDS} rounds in turn");
    registers(&state);
    interrupts(&state);
    mappings(&state);
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

fn view(scene: &Scene, bars: Vec<pellucid_passthrough::BarShape>) -> View {
    View {
        bars,
        windows: scene.windows.clone(),
        line: None,
        line_register: 0,
        events: Arc::new(|_| {}),
    }
}

/// A register read by the host and by the guest through their mappings, and by the guest through an exit.
fn registers(state: &StateDir) {
    const READS: u32 = 2000;
    let mut scene = Scene::new(state, "bench");
    let bound = bind(state, NVME);
    let own = bound.transport().map(RegionIndex::Bar(0), 0, 4096).unwrap();
    let (assigned, bar) = assign(&scene, bound);
    let rounds = (0..ROUNDS).map(|_| {
        let mut data = [0; 4];
        let host = timed(READS, || {
            (0..READS).for_each(|_| assert!(black_box(own.read(MAPPED as usize, &mut data))));
        });
        let guest = timed(READS, || scene.peek_often(bar + MAPPED, READS));
        let trapped = timed(READS, || scene.peek_often(bar + TRAPPED, READS));
        [host, guest, trapped]
    });
    let [host, guest, trapped] = medians(rounds);
    row("register read, host's mapping", host, None);
    row("register read, guest's mapping", guest, Some(host));
    row("register read, trapped", trapped, Some(host));
    drop(own);
    assigned.release().unwrap();
}

/// From a device's interrupt being asked for until its handler has run: by an eventfd in the host, by MSI in the guest.
fn interrupts(state: &StateDir) {
    const RAISED: u32 = 1000;
    let mut scene = Scene::new(state, "bench");
    let bound = bind(state, EDU);
    let own = bound.transport().map(RegionIndex::Bar(0), 0, 4096).unwrap();
    bound
        .transport()
        .write(RegionIndex::Config, 4, &[0x06, 0])
        .unwrap();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
    let mut host = Vec::new();
    bound
        .transport()
        .wire(IrqKind::Msi, 0, &[Some(event.as_fd())])
        .unwrap();
    for _ in 0..ROUNDS {
        host.push(timed(RAISED, || {
            for _ in 0..RAISED {
                assert!(own.write(0x60, &1_u32.to_le_bytes()));
                assert_eq!(rustix::io::read(&event, &mut [0; 8]).unwrap(), 8);
                assert!(own.write(0x64, &1_u32.to_le_bytes()));
            }
        }));
    }
    bound.transport().unwire(IrqKind::Msi).unwrap();
    let (assigned, bar) = assign(&scene, bound);
    let config = assigned.config();
    let mut at = 0x40;
    let mut id = [0];
    config.read(0x34, &mut id);
    while id[0] != 0x05 {
        at = u16::from(id[0]);
        config.read(at, &mut id);
        if id[0] != 0x05 {
            config.read(at + 1, &mut id);
        }
    }
    for (offset, bytes) in [(4, 0xfee0_0000_u32), (8, 0), (12, 0x45)] {
        config.write(
            at + offset,
            &bytes.to_le_bytes()[..if offset == 12 { 2 } else { 4 }],
        );
    }
    config.write(at + 2, &[1, 0]);
    let mut guest = Vec::new();
    for _ in 0..ROUNDS {
        guest.push(timed(RAISED, || {
            assert_eq!(scene.raise_and_count(bar, &[0x45], RAISED), (RAISED, 0));
        }));
    }
    let [host, guest] = medians(host.into_iter().zip(guest).map(|(host, guest)| [host, guest]));
    row("interrupt round trip, host's eventfd", host, None);
    row("interrupt round trip, guest's MSI", guest, Some(host));
    println!(
        "{:44}{:>12.0}/s, none of {} lost",
        "interrupts of the guest",
        1e9 / guest,
        RAISED as usize * ROUNDS
    );
    drop(own);
    assigned.release().unwrap();
}

/// Guest memory mapped for DMA, in pages of each kind; resident before, so that it is mapping that is measured.
fn mappings(state: &StateDir) {
    const SIZE: u64 = 256 << 20;
    let pool = "/proc/sys/vm/nr_hugepages";
    let before = std::fs::read_to_string(pool).unwrap();
    std::fs::write(pool, ((SIZE >> 21) + 8).to_string()).unwrap();
    let kinds = ["4 KiB pages", "ordinary pages, collapsed", "2 MiB pages"];
    let rounds: Vec<[f64; 3]> = (0..ROUNDS.min(3))
        .map(|_| [0, 1, 2].map(|kind| mapping(state, kind, SIZE)))
        .collect();
    let [small, huge, large] = medians(rounds.into_iter());
    for (kind, seconds) in kinds.iter().zip([small, huge, large]) {
        let rate = SIZE as f64 / seconds / f64::from(1 << 30);
        println!(
            "{:44}{rate:>10.2} GiB/s  ({:.2} of 4 KiB's time)",
            format!("DMA mapping, {kind}"),
            seconds / small
        );
    }
    std::fs::write(pool, before.trim()).unwrap();
}

/// Seconds that mapping takes.
fn mapping(state: &StateDir, kind: usize, size: u64) -> f64 {
    let scene = Scene::new(state, "bench");
    let layout = Layout::new(size, 39).unwrap();
    let pages = if kind == 2 {
        PageSize::Size2M
    } else {
        PageSize::Size4K
    };
    let memory = GuestMemory::map("bench", &layout, pages).unwrap();
    if kind == 0 {
        // Touched page by page: nobody collapses them then.
        for region in memory.regions() {
            for offset in (0..region.size).step_by(4096) {
                memory.write(GuestAddress(region.guest.0 + offset), &[1]).unwrap();
            }
        }
    } else {
        memory.populate(&|_| {}).unwrap();
    }
    let bound = bind(state, EDU);
    let spent = Arc::new(Mutex::new(Duration::ZERO));
    let told = Arc::clone(&spent);
    bound
        .space()
        .unwrap()
        .report_to(Arc::new(move |progress| *told.lock().unwrap() = progress.elapsed));
    let guest = Guest {
        memory,
        ..scene.guest.clone()
    };
    let bars = scene.place(bound.function());
    let assigned = bound.assign(&guest, view(&scene, bars)).unwrap();
    assigned.release().unwrap();
    let spent = *spent.lock().unwrap();
    spent.as_secs_f64()
}

/// Nanoseconds for each of `times`.
fn timed(times: u32, act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_secs_f64() * 1e9 / f64::from(times)
}

fn medians<const N: usize>(rounds: impl Iterator<Item = [f64; N]>) -> [f64; N] {
    let rounds: Vec<[f64; N]> = rounds.collect();
    std::array::from_fn(|index| {
        let mut column: Vec<f64> = rounds.iter().map(|round| round[index]).collect();
        column.sort_by(f64::total_cmp);
        column[column.len() / 2]
    })
}

fn row(name: &str, nanoseconds: f64, of: Option<f64>) {
    let ratio = of.map_or(String::new(), |of| {
        format!("  ({:.2} of the host's)", nanoseconds / of)
    });
    println!("{name:44}{:>10.2} us{ratio}", nanoseconds / 1000.0);
}
