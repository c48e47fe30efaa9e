//! A served device in a guest on a real KVM: its server reaches the guest's memory and interrupts, and may die at any moment.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod served;

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use pellucid_partition::{
    GuestAddress, GuestMemory, Interrupts, LastHit, Layout, MmioBus, PageSize, PioBus, RamRegion, RegionSpec,
    Vm,
};
use pellucid_passthrough::{Assigned, BarShape, Bound, DeviceEvent, Guest, IrqKind, PlacementWindows, View};
use served::{Device, LONG, REGION_WRITE, Reply, Then, connect, honest};

const REGISTERS: u64 = 0xc000_0000;
const MEMORY: u64 = 0xc010_0000;
const TABLE: u64 = 0xc020_0000;

fn guest() -> Guest {
    let layout = Layout::new(16 << 20, 39).unwrap();
    let vm = Arc::new(Vm::create().unwrap());
    Guest {
        memory: GuestMemory::map("served", &layout, PageSize::Size4K).unwrap(),
        mmio: Arc::new(MmioBus::new()),
        pio: Arc::new(PioBus::new()),
        interrupts: Arc::new(Interrupts::new(Arc::clone(&vm))),
        peers: None,
        vm,
    }
}

/// Assigns with BARs 0, 2 and 4 at the places above, moved by `shift`, and opens them.
fn assign(bound: Bound, guest: &Guest, shift: u64) -> (Assigned, Receiver<DeviceEvent>) {
    let places = [REGISTERS, MEMORY, TABLE];
    let bars = bound.function().bars.iter().zip(places);
    let bars = bars.map(|(bar, at)| BarShape::of(bar, at + shift)).collect();
    let (sender, events) = channel();
    let layout = Layout::new(16 << 20, 39).unwrap();
    let view = View {
        bars,
        windows: PlacementWindows::of(&layout),
        line: None,
        line_register: 0,
        events: Arc::new(move |event| sender.send(event).unwrap_or(())),
    };
    let assigned = bound.assign(guest, view).unwrap();
    assigned.config().write(4, &[6, 0]);
    (assigned, events)
}

fn peek(guest: &Guest, address: u64) -> u32 {
    let mut data = [0xff; 4];
    guest.mmio.read(&mut LastHit::new(), address, &mut data);
    u32::from_le_bytes(data)
}

fn poke(guest: &Guest, address: u64, value: u32) {
    guest
        .mmio
        .write(&mut LastHit::new(), address, &value.to_le_bytes());
}

fn ids(assigned: &Assigned) -> [u8; 4] {
    let mut ids = [0; 4];
    assigned.config().read(0, &mut ids);
    ids
}

#[test]
fn the_server_reaches_guest_memory_that_is_there_and_that_comes_and_goes() {
    let (served, device) = honest();
    let guest = guest();
    let (assigned, _events) = assign(served.bind().unwrap(), &guest, 0);
    guest.memory.write(GuestAddress(0x1234), &[5]).unwrap();
    let mapped = |device: &Mutex<Device>| {
        let device = device.lock().unwrap();
        let ranges = device.mapped.iter().map(|(start, size, _)| (*start, *size));
        ranges.collect::<Vec<_>>()
    };
    assert_eq!(mapped(&device), [(0, 16 << 20)]);
    let mut byte = [0];
    let file = device.lock().unwrap().mapped[0].2.try_clone().unwrap();
    file.read_at(&mut byte, 0x1234).unwrap();
    assert_eq!(byte, [5]);
    file.write_at(&[9], 0x1235).unwrap();
    guest.memory.read(GuestAddress(0x1235), &mut byte).unwrap();
    assert_eq!(byte, [9]);

    let more = RegionSpec::new(GuestAddress(1 << 32), 2 << 20);
    guest.memory.add(RamRegion::map("more", &more).unwrap()).unwrap();
    assert_eq!(mapped(&device), [(0, 16 << 20), (1 << 32, 2 << 20)]);
    guest.memory.remove(GuestAddress(1 << 32)).unwrap();
    assert_eq!(mapped(&device), [(0, 16 << 20)]);
    assigned.release().unwrap();
    assert!(mapped(&device).is_empty(), "and nothing is left to it");
}

#[test]
fn registers_are_trapped_offered_memory_is_mapped_and_the_table_is_ours() {
    let (served, _device) = honest();
    let guest = guest();
    let (assigned, _events) = assign(served.bind().unwrap(), &guest, 0);
    poke(&guest, REGISTERS + 0x40, 0x1234_5678);
    assert_eq!(peek(&guest, REGISTERS + 0x40), 0x1234_5678);
    let trapped = guest.mmio.counts();
    let trapped: Vec<_> = trapped.iter().map(|range| (range.base, range.size)).collect();
    let gaps = [(MEMORY, 0x1000), (MEMORY + 0x4000, 0x4000)];
    assert_eq!(trapped, [(REGISTERS, 0x1000), gaps[0], gaps[1], (TABLE, 0x1000)]);
    assert_eq!(peek(&guest, TABLE + 12), 1, "masked, as after a reset");
    assert_eq!(ids(&assigned), [0x36, 0x1b, 0xed, 0x0d]);
    drop(assigned);
    assert!(guest.mmio.counts().is_empty());
}

#[test]
fn a_vector_of_the_server_arrives_and_the_events_of_its_host_do() {
    let (served, device) = honest();
    let guest = guest();
    let (assigned, events) = assign(served.bind().unwrap(), &guest, 0);
    let signal = |kind: u32, vector: u32| {
        let device = device.lock().unwrap();
        let mut event = device.wired.get(&(kind, vector)).unwrap();
        event.write_all(&1_u64.to_ne_bytes()).unwrap();
    };
    assigned.config().write(0x42, &[0, 0x80]);
    for (offset, value) in [(0, 0xfee0_0000), (8, 0x41), (12, 0), (12, 1)] {
        poke(&guest, TABLE + 16 + offset, value);
    }
    assert_eq!(assigned.vectors_in_use(), 1);
    signal(2, 1);
    assert_eq!(peek(&guest, TABLE + 0x800), 0b10, "pending, as it is masked");
    let device = assigned.bdf();
    signal(3, 0);
    let told = events.recv_timeout(LONG).unwrap();
    assert!(
        matches!(told, DeviceEvent::Error { device: of, .. } if of == device),
        "{told:?}"
    );
    signal(4, 0);
    assert_eq!(events.recv_timeout(LONG), Ok(DeviceEvent::Wanted { device }));
    assigned.release().unwrap();
    assert!(events.recv().is_err(), "a release is no loss");
}

/// A device whose server leaves when it is told to, at the next access of a register or, without one, at once.
fn mortal(leave: &Arc<AtomicBool>) -> pellucid_passthrough::Served {
    let (mut device, leave) = (Device::new(), Arc::clone(leave));
    let answer = move |asked: &served::Asked| {
        let mut reply: Reply = device.answer(asked);
        if leave.load(Ordering::Relaxed) && asked.command == REGION_WRITE {
            reply.bytes.clear();
            reply.then = Then::Close;
        }
        Some(reply)
    };
    connect(LONG, answer).unwrap()
}

#[test]
fn a_server_that_dies_leaves_a_guest_that_reads_all_ones_and_everything_goes_back() {
    let (leave, guest) = (Arc::new(AtomicBool::new(false)), guest());
    let (assigned, events) = assign(mortal(&leave).bind().unwrap(), &guest, 0);
    poke(&guest, REGISTERS, 1);
    leave.store(true, Ordering::Relaxed);
    poke(&guest, REGISTERS, 2);
    let device = assigned.bdf();
    assert_eq!(events.recv_timeout(LONG), Ok(DeviceEvent::Lost { device }));
    assert_eq!(peek(&guest, REGISTERS), u32::MAX);
    assert_eq!(ids(&assigned), [0xff; 4]);
    assigned.config().write(4, &[0, 0]);
    assert!(guest.mmio.counts().is_empty(), "no BAR is open");
    assigned.release().unwrap();
    assert!(events.recv().is_err(), "told once");
    guest.memory.write(GuestAddress(0), &[1]).unwrap();
    let (served, _) = honest();
    drop(assign(served.bind().unwrap(), &guest, 0));
}

#[test]
fn the_death_of_one_server_does_not_touch_the_other_device() {
    let (leave, guest) = (Arc::new(AtomicBool::new(false)), guest());
    let (first, first_events) = assign(mortal(&leave).bind().unwrap(), &guest, 0);
    let (served, device) = honest();
    let (second, second_events) = assign(served.bind().unwrap(), &guest, 0x100_0000);
    leave.store(true, Ordering::Relaxed);
    poke(&guest, REGISTERS, 2);
    first_events.recv_timeout(LONG).unwrap();
    poke(&guest, REGISTERS + 0x100_0000, 3);
    assert_eq!(peek(&guest, REGISTERS + 0x100_0000), 3);
    assert_eq!(device.lock().unwrap().mapped.len(), 1);
    assert!(second_events.try_recv().is_err());
    first.release().unwrap();
    assert_eq!(second.function().ids.device, 0x0ded);
    second.release().unwrap();
}

#[test]
fn memory_that_the_server_refuses_is_an_error_with_its_socket_and_nothing_stays() {
    let mut device = Device::new();
    let served = connect(LONG, move |asked| {
        let mut reply = device.answer(asked);
        if asked.command == served::DMA_MAP {
            reply.put(8, 0x21);
            reply.put(12, libc::ENOMEM as u32);
        }
        Some(reply)
    });
    let guest = guest();
    let bound = served.unwrap().bind().unwrap();
    let layout = Layout::new(16 << 20, 39).unwrap();
    let view = View {
        bars: Vec::new(),
        windows: PlacementWindows::of(&layout),
        line: None,
        line_register: 0,
        events: Arc::new(|_| {}),
    };
    let error = bound.assign(&guest, view).err().unwrap().to_string();
    for part in [
        "vfio-user",
        "/run/engine.sock",
        "DMA_MAP",
        "Cannot allocate memory",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let (served, _) = honest();
    assert_eq!(served.transport().irq(IrqKind::Msi).count, 0);
    drop(assign(served.bind().unwrap(), &guest, 0));
}
