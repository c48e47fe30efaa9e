//! The interrupts of a device that raises them on request (QEMU's edu): MSI, and the level-triggered line with its acknowledgement.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "scene/mod.rs"]
mod scene;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pellucid_partition::Gsi;
use pellucid_passthrough::{Assigned, Inventory, IoSpace, View};
use scene::{Scene, arm_msi, bdf, msi, state};

const EDU: &str = "0000:00:05.0";
/// Raises the interrupt with the bits written.
const RAISE: u64 = 0x60;
/// Lowers it.
const ACKNOWLEDGE: u64 = 0x64;

fn assign(scene: &Scene, state: &pellucid_partition::StateDir, line: Option<Gsi>) -> (Assigned, u64) {
    let admitted = Inventory::survey().unwrap().admit(bdf(EDU)).unwrap();
    let bound = admitted
        .claim(state, "edu")
        .unwrap()
        .bind(&IoSpace::open().unwrap())
        .unwrap();
    let bars = scene.place(bound.function());
    let bar = bars[0].address;
    let view = View {
        bars,
        windows: scene.windows.clone(),
        line: line.map(|gsi| scene.guest.interrupts.resample_line(gsi).unwrap()),
        line_register: 10,
        events: Arc::new(|event| panic!("{event:?}")),
    };
    let assigned = bound.assign(&scene.guest, view).unwrap();
    assigned.config().write(0x04, &[0x06, 0]);
    (assigned, bar)
}

#[test]
fn an_msi_reaches_the_guest_and_follows_its_message() {
    let (_directory, state) = state();
    let mut scene = Scene::new(&state, "edu");
    let (assigned, bar) = assign(&scene, &state, None);
    assert_eq!(scene.peek(bar) & 0xffff, 0x00ed, "its identification register");
    let config = assigned.config();
    let at = msi(&*config);
    config.write(at + 4, &0xfee0_0000_u32.to_le_bytes());
    config.write(at + 8, &[0; 4]);
    for vector in [0x45_u8, 0x56] {
        config.write(at + 12, &[vector, 0]);
        config.write(at + 2, &[0x01, 0]);
        scene.poke(bar + RAISE, 1);
        let end = Instant::now() + Duration::from_secs(5);
        while !scene.interrupt_waits(vector) {
            assert!(Instant::now() < end, "no interrupt {vector:#x}");
        }
        scene.poke(bar + ACKNOWLEDGE, 1);
    }
    config.write(at + 2, &[0, 0]);
    assert_eq!(assigned.vectors_in_use(), 0);
    assigned.release().unwrap();
}

#[test]
fn at_full_rate_no_interrupt_is_lost_also_while_its_vector_moves() {
    const TIMES: u32 = 2000;
    let (_directory, state) = state();
    let mut scene = Scene::new(&state, "edu");
    let (assigned, bar) = assign(&scene, &state, None);
    let config = assigned.config();
    let at = arm_msi(&*config, 0x45);
    let start = Instant::now();
    assert_eq!(scene.raise_and_count(bar, &[0x45, 0x56], TIMES), (TIMES, 0));
    println!(
        "{:.0} interrupts/s, {TIMES} raised, none lost",
        f64::from(TIMES) / start.elapsed().as_secs_f64()
    );
    let done = std::sync::atomic::AtomicBool::new(false);
    let moves = std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            let mut moves = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                config.write(at + 12, &[[0x45, 0x56][moves % 2], 0]);
                moves += 1;
            }
            moves
        });
        let counted = scene.raise_and_count(bar, &[0x45, 0x56], TIMES);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(counted, (TIMES, 0));
        mover.join().unwrap()
    });
    println!("{moves} moves to another vector meanwhile");
    assert!(moves > 1);
    assigned.release().unwrap();
}

#[test]
fn the_line_fires_again_after_each_acknowledgement_and_after_msi_was_on() {
    let (_directory, state) = state();
    let mut scene = Scene::new(&state, "edu");
    let (assigned, bar) = assign(&scene, &state, Some(Gsi(10)));
    let mut pin = [0];
    assigned.config().read(0x3d, &mut pin);
    assert_eq!(pin, [1]);
    // I/O APIC pin 10: level-triggered, vector 0x61, to the local APIC 0.
    for (register, value) in [(0x24, 0x8061), (0x25, 0)] {
        scene.poke(0xfec0_0000, register);
        scene.poke(0xfec0_0010, value);
    }
    for round in 0..3 {
        scene.poke(bar + RAISE, 1);
        scene.take_interrupt(0x61, (bar + ACKNOWLEDGE, 1));
        if round == 1 {
            let config = assigned.config();
            let at = msi(&*config) + 2;
            config.write(at, &[1, 0]);
            config.write(at, &[0, 0]);
        }
    }
    assigned.release().unwrap();
}
