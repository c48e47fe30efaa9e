//! Peer-to-peer DMA on real devices: QEMU's edu reads a register of the NVMe controller through the IOMMU.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "scene/mod.rs"]
mod scene;

use std::sync::Arc;

use pellucid_partition::StateDir;
use pellucid_passthrough::{Assigned, Inventory, IoSpace, View};
use scene::{Scene, bdf, driver_of, state};

const EDU: &str = "0000:00:05.0";
const NVME: &str = "0000:02:00.0";
/// Its version register is never zero.
const VERSION: u64 = 8;
/// The edu's own memory, as its DMA engine names it, and where in the guest it is to put what it read.
const BUFFER: u32 = 0x4_0000;
const ROOM: u32 = 0x8000;

/// Takes a function and wires it with its BARs from `at`, which the edu's 28 address bits reach; tells where they end.
fn assign(
    scene: &Scene,
    state: &StateDir,
    space: &Arc<IoSpace>,
    (device, at): (&str, u64),
) -> (Assigned, u64) {
    let admitted = Inventory::survey().unwrap().admit(bdf(device)).unwrap();
    let bound = admitted.claim(state, "peers").unwrap().bind(space).unwrap();
    let mut bars = scene.place(bound.function());
    assert_eq!(bars.len(), 1);
    bars[0].address = at;
    let mut windows = scene.windows.clone();
    windows.memory32 = 0x800_0000..0x900_0000;
    let end = at + bars[0].size;
    let view = View {
        bars,
        windows,
        line: None,
        line_register: 0,
        events: Arc::new(|event| panic!("{event:?}")),
    };
    let assigned = bound.assign(&scene.guest, view).unwrap();
    assigned.config().write(0x04, &[0x06, 0]);
    (assigned, end)
}

/// Has the edu at `bar` copy 4 bytes; `out`: from its own memory.
fn copy(scene: &mut Scene, bar: u64, (from, to): (u32, u32), out: bool) {
    for (register, value) in [
        (0x80, from),
        (0x88, to),
        (0x90, 4),
        (0x98, 1 | u32::from(out) << 1),
    ] {
        scene.poke(bar + register, value);
    }
    scene.await_value(bar + 0x98, 1, 0);
}

#[test]
fn a_device_reads_anothers_register_by_dma() {
    let (_directory, state) = state();
    let mut scene = Scene::new(&state, "peers");
    let space = IoSpace::open().unwrap();
    let edu_bar = 0x800_0000;
    let (edu, next) = assign(&scene, &state, &space, (EDU, edu_bar));
    assert!(space.peers().mapped().is_empty(), "it is alone");
    let (nvme, _) = assign(&scene, &state, &space, (NVME, next));
    let mapped = space.peers().mapped();
    assert!(mapped.len() >= 2, "{mapped:?}");
    let version = scene.peek(next + VERSION);
    assert!(version != 0 && version != u32::MAX);
    copy(&mut scene, edu_bar, (next as u32 + VERSION as u32, BUFFER), false);
    copy(&mut scene, edu_bar, (BUFFER, ROOM), true);
    let mut found = [0; 4];
    scene.read_memory(ROOM.into(), &mut found);
    assert_eq!(u32::from_le_bytes(found), version);
    nvme.config().write(0x04, &[0, 0]);
    assert!(
        space.peers().mapped().iter().all(|(at, _)| at.0 < next),
        "closed to the guest is closed to its devices"
    );
    nvme.release().unwrap();
    assert!(space.peers().mapped().is_empty());
    edu.release().unwrap();
    assert_eq!(driver_of(NVME).as_deref(), Some("nvme"));
}
