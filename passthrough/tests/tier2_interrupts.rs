//! The interrupts of devices that raise them on request: MSI, and the level-triggered line with its acknowledgement (QEMU's edu); and what opens
//! and closes the BARs of a network card.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "scene/mod.rs"]
mod scene;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pellucid_partition::Gsi;
use pellucid_passthrough::{Assigned, BarKind, BarShape, Inventory, IoSpace, View};
use scene::{Raiser, Scene, arm_msi, bdf, capability, msi, state};

const EDU: &str = "0000:00:05.0";
/// Raises the interrupt with the bits written.
const RAISE: u64 = 0x60;
/// Lowers it.
const ACKNOWLEDGE: u64 = 0x64;

fn assign(scene: &Scene, state: &pellucid_partition::StateDir, line: Option<Gsi>) -> (Assigned, u64) {
    let (assigned, bars) = assign_at(scene, state, (EDU, line));
    assigned.config().write(COMMAND, &[0x06, 0]);
    (assigned, bars[0].address)
}

/// The card, with memory, ports and bus master on.
fn assign_card(scene: &Scene, state: &pellucid_partition::StateDir) -> (Assigned, Vec<BarShape>) {
    let (assigned, bars) = assign_at(scene, state, (CARD, None));
    assigned.config().write(COMMAND, &[0x07, 0]);
    (assigned, bars)
}

fn assign_at(
    scene: &Scene,
    state: &pellucid_partition::StateDir,
    (device, line): (&str, Option<Gsi>),
) -> (Assigned, Vec<BarShape>) {
    let admitted = Inventory::survey().unwrap().admit(bdf(device)).unwrap();
    let bound = admitted
        .claim(state, "interrupts")
        .unwrap()
        .bind(&IoSpace::open().unwrap())
        .unwrap();
    let bars = scene.place(bound.function());
    let view = View {
        bars: bars.clone(),
        windows: scene.windows.clone(),
        line: line.map(|gsi| scene.guest.interrupts.resample_line(gsi).unwrap()),
        line_register: 10,
        events: Arc::new(|event| panic!("{event:?}")),
    };
    (bound.assign(&scene.guest, view).unwrap(), bars)
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
    assert_eq!(
        scene.raise_and_count(&Raiser::edu(bar), &[0x45, 0x56], TIMES),
        (TIMES, 0)
    );
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
        let counted = scene.raise_and_count(&Raiser::edu(bar), &[0x45, 0x56], TIMES);
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
    scene.loses_none(&Raiser::edu(bar), (&[0x61], 500), "the line");
    assigned.release().unwrap();
}

#[test]
fn a_card_answers_in_its_memory_and_at_its_ports_while_they_are_on_and_it_is_awake() {
    let (_directory, state) = state();
    let mut scene = Scene::new(&state, "card");
    let (assigned, bars) = assign_card(&scene, &state);
    let config = assigned.config();
    let bar = bars[0].address;
    let ports = bars.iter().find(|bar| bar.kind == BarKind::Io).unwrap().address;
    // The register that the first port chooses is read at the second.
    let by_ports = |scene: &mut Scene| {
        scene.port_out(ports, DEVICE_STATUS);
        scene.port_in(ports + 4)
    };
    let status = scene.peek(bar + u64::from(DEVICE_STATUS));
    assert_ne!(status, u32::MAX);
    assert_eq!(by_ports(&mut scene), status);
    config.write(COMMAND, &[0x06, 0]);
    assert_eq!(by_ports(&mut scene), u32::MAX, "ports are off");
    assert_eq!(scene.peek(bar + u64::from(DEVICE_STATUS)), status);

    let power = capability(&*config, POWER) + 4;
    config.write(COMMAND, &[0x07, 0]);
    config.write(power, &[3, 0]);
    assert_eq!(scene.peek(bar + u64::from(DEVICE_STATUS)), u32::MAX, "it sleeps");
    assert_eq!(by_ports(&mut scene), u32::MAX, "it sleeps");
    config.write(power, &[0, 0]);
    config.write(COMMAND, &[0x07, 0]);
    assert_eq!(scene.peek(bar + u64::from(DEVICE_STATUS)), status);
    assert_eq!(by_ports(&mut scene), status);
    assigned.release().unwrap();
}

/// In configuration space.
const COMMAND: u16 = 0x04;
const POWER: u8 = 0x01;
const CARD: &str = "0000:00:19.0";
/// Of an 82574 (its datasheet, 10.2).
const DEVICE_STATUS: u32 = 0x08;
