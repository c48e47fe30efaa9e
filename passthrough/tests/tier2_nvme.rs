//! An NVMe controller from its host driver to a guest and back: DMA, a doorbell in mapped memory, an MSI-X interrupt.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "scene/mod.rs"]
mod scene;

use std::sync::{Arc, Mutex};

use pellucid_partition::ConfigHandler;
use pellucid_passthrough::{BarKind, Inventory, IoSpace, View};
use scene::{Raiser, Scene, bdf, capability, driver_of, first_block, state};

const DATA: &str = "0000:02:00.0";

fn word(config: &dyn ConfigHandler, offset: u16) -> u16 {
    let mut data = [0; 2];
    config.read(offset, &mut data);
    u16::from_le_bytes(data)
}

fn dword(config: &dyn ConfigHandler, offset: u16) -> u32 {
    u32::from(word(config, offset)) | u32::from(word(config, offset + 2)) << 16
}

fn view(scene: &Scene, function: &pellucid_passthrough::Function) -> View {
    View {
        bars: scene.place(function),
        windows: scene.windows.clone(),
        line: None,
        line_register: 0,
        events: Arc::new(|event| panic!("{event:?}")),
    }
}

/// Starts the controller with one admin queue pair of 16 entries at 1 MiB, completions by vector 0.
fn start(scene: &mut Scene, bar: u64) {
    scene.poke(bar + 0x14, 0);
    scene.await_value(bar + 0x1c, 1, 0);
    scene.poke(bar + 0x24, 15 << 16 | 15);
    for (register, value) in [
        (0x28, SUBMISSIONS as u32),
        (0x2c, 0),
        (0x30, COMPLETIONS as u32),
        (0x34, 0),
    ] {
        scene.poke(bar + register, value);
    }
    scene.poke(bar + 0x14, 0x0046_0001);
    scene.await_value(bar + 0x1c, 1, 1);
}

/// Submits an identify command as entry `index` and waits for its completion.
fn identify(scene: &mut Scene, bar: u64, index: u32) -> String {
    let mut command = [0_u8; 64];
    command[0] = 0x06;
    command[24..32].copy_from_slice(&IDENTITY.to_le_bytes());
    command[40] = 1;
    scene.write_memory(SUBMISSIONS + u64::from(index) * 64, &command);
    scene.poke(bar + 0x1000, index + 1);
    scene.await_value(COMPLETIONS + u64::from(index) * 16 + 12, 1 << 16, 1 << 16);
    let mut serial = [0; 20];
    scene.read_memory(IDENTITY + 4, &mut serial);
    String::from_utf8_lossy(&serial).trim().to_owned()
}

#[test]
fn mapping_guest_memory_is_told_region_by_region_until_all_of_it_is_done() {
    let (_directory, state) = state();
    let scene = Scene::new(&state, "guest");
    let admitted = Inventory::survey().unwrap().admit(bdf(DATA)).unwrap();
    let space = IoSpace::open().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let progress = Arc::clone(&told);
    space.report_to(Arc::new(move |at| {
        progress.lock().unwrap().push((at.done, at.total));
    }));
    let bound = admitted.claim(&state, "guest").unwrap().bind(&space).unwrap();
    assert_eq!(*told.lock().unwrap(), [], "no guest has it yet");
    let view = view(&scene, bound.function());
    let assigned = bound.assign(&scene.guest, view).unwrap();
    let regions = scene.guest.memory.regions();
    let total: u64 = regions.iter().map(|region| region.size).sum();
    let sums = regions.iter().scan(0, |sum, region| {
        *sum += region.size;
        Some((*sum, total))
    });
    // None of them reaches into a second GiB.
    assert_eq!(*told.lock().unwrap(), sums.collect::<Vec<_>>());
    assigned.release().unwrap();
}

#[test]
fn a_guest_drives_the_controller_and_the_host_gets_it_back() {
    let before = first_block(DATA);
    let (_directory, state) = state();
    let mut scene = Scene::new(&state, "guest");
    let admitted = Inventory::survey().unwrap().admit(bdf(DATA)).unwrap();
    let bound = admitted
        .claim(&state, "guest")
        .unwrap()
        .bind(&IoSpace::open().unwrap())
        .unwrap();
    assert_eq!(driver_of(DATA).as_deref(), Some("vfio-pci"));
    let view = view(&scene, bound.function());
    let bar = view.bars[0].address;
    let assigned = bound.assign(&scene.guest, view).unwrap();
    let config = assigned.config();

    assert_eq!(scene.peek(bar), u32::MAX, "closed until memory decoding is on");
    config.write(0x04, &[0x06, 0]);
    assert_eq!(dword(&*config, 0x10) & !0xf, bar as u32);
    start(&mut scene, bar);
    let msix = capability(&*config, 0x11);
    let table = bar + u64::from(dword(&*config, msix + 4) & !7);
    config.write(msix + 2, &0x8000_u16.to_le_bytes());
    assert_eq!(scene.peek(table + 12), 1, "vectors are masked at first");

    // Masked: the interrupt stays pending, is shown so, and is delivered on unmasking.
    for (offset, value) in [(0, 0xfee0_0000), (4, 0), (8, 0x41), (12, 0)] {
        scene.poke(table + offset, value);
    }
    scene.poke(table + 12, 1);
    assert_eq!(identify(&mut scene, bar, 0), "PELLUCID-DATA");
    let pending = bar + u64::from(dword(&*config, msix + 8) & !7);
    scene.await_value(pending, 1, 1);
    assert!(!scene.interrupt_waits(0x41));
    scene.poke(table + 12, 0);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !scene.interrupt_waits(0x41) {
        assert!(std::time::Instant::now() < end, "the pending interrupt was lost");
    }

    // A changed message is what the next completion raises.
    scene.poke(table + 8, 0x52);
    assert_eq!(identify(&mut scene, bar, 1), "PELLUCID-DATA");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !scene.interrupt_waits(0x52) {
        assert!(
            std::time::Instant::now() < end,
            "no interrupt after the route changed"
        );
    }
    assert_eq!(assigned.vectors_in_use(), 1);

    // A moved BAR answers at its new place and nowhere else.
    config.write(0x10, &(bar as u32 + 0x10_0000).to_le_bytes());
    assert_eq!(scene.peek(bar + 0x1c), u32::MAX);
    assert_eq!(scene.peek(bar + 0x10_0000 + 0x1c) & 1, 1);

    assigned.release().unwrap();
    assert_eq!(scene.peek(bar + 0x10_0000 + 0x1c), u32::MAX);
    assert_eq!(driver_of(DATA).as_deref(), Some("nvme"));
    assert_eq!(first_block(DATA), before);
    assert!(
        state
            .records()
            .unwrap()
            .iter()
            .all(|(record, _)| record.resource.kind != "device")
    );
}

#[test]
fn at_full_rate_no_interrupt_of_a_controllers_vector_is_lost() {
    let (_directory, state) = state();
    let mut scene = Scene::new(&state, "guest");
    let admitted = Inventory::survey().unwrap().admit(bdf(DATA)).unwrap();
    let space = IoSpace::open().unwrap();
    let bound = admitted.claim(&state, "guest").unwrap().bind(&space).unwrap();
    let view = view(&scene, bound.function());
    let bar = view.bars[0].address;
    let assigned = bound.assign(&scene.guest, view).unwrap();
    let config = assigned.config();
    config.write(0x04, &[0x06, 0]);
    start(&mut scene, bar);
    let msix = capability(&*config, 0x11);
    let table = bar + u64::from(dword(&*config, msix + 4) & !7);
    config.write(msix + 2, &0x8000_u16.to_le_bytes());
    for (offset, value) in [(0, 0xfee0_0000), (4, 0), (8, 0x43), (12, 0)] {
        scene.poke(table + offset, value);
    }
    // Get features, number of queues: a command without data, of which one at a time is under way.
    let mut command = [0_u8; 64];
    (command[0], command[40]) = (0x0a, 0x07);
    for index in 0..16 {
        command[2] = index;
        scene.write_memory(SUBMISSIONS + u64::from(index) * 64, &command);
    }
    let raiser = Raiser {
        bar,
        // inc esi; and esi, 15; mov [edi+0x1000], esi: the submission queue's tail
        raise: vec![0x46, 0x83, 0xe6, 0x0f, 0x89, 0xb7, 0x00, 0x10, 0, 0],
        // mov [edi+0x1004], esi: the completion queue's head
        acknowledge: vec![0x89, 0xb7, 0x04, 0x10, 0, 0],
    };
    scene.loses_none(&raiser, (&[0x43], 2000), "MSI-X");
    assert_eq!(assigned.vectors_in_use(), 1);
    assigned.release().unwrap();
}

#[test]
fn every_kind_of_device_is_assigned_beside_others_and_comes_back() {
    let (_directory, state) = state();
    let scene = Scene::new(&state, "guest");
    let space = IoSpace::open().unwrap();
    let devices = [
        (DATA, Some("nvme")),
        ("0000:00:19.0", Some("e1000e")),
        ("0000:00:05.0", None),
    ];
    let assign = |device: &str| {
        let admitted = Inventory::survey().unwrap().admit(bdf(device)).unwrap();
        let bound = admitted.claim(&state, "guest").unwrap().bind(&space).unwrap();
        let mut view = view(&scene, bound.function());
        // Each was placed as if alone; a real guest places all together.
        for bar in view.bars.iter_mut().filter(|bar| bar.kind != BarKind::Io) {
            bar.address += u64::from(bdf(device).devfn()) << 20;
        }
        let assigned = bound.assign(&scene.guest, view).unwrap();
        assigned.config().write(0x04, &[0x07, 0]);
        assigned
    };
    let assigned = devices.map(|(device, _)| assign(device));
    assert_eq!(
        scene
            .guest
            .memory
            .subscribers()
            .iter()
            .filter(|name| *name == "iommu")
            .count(),
        1
    );
    let ranges = scene.guest.pio.counts();
    assert!(
        ranges.iter().any(|range| range.size == 0x20),
        "the card's ports: {ranges:?}"
    );
    assigned
        .into_iter()
        .for_each(|assigned| drop(assigned.release().unwrap()));
    for (device, driver) in devices {
        assert_eq!(driver_of(device).as_deref(), driver);
    }
    assert!(scene.guest.pio.counts().is_empty() && scene.guest.mmio.counts().is_empty());
    assert!(!scene.guest.memory.subscribers().contains(&"iommu".to_owned()));
}

const SUBMISSIONS: u64 = 0x10_0000;
const COMPLETIONS: u64 = 0x10_1000;
const IDENTITY: u64 = 0x10_2000;
