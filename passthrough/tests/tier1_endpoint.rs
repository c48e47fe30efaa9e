//! A scripted device on a real KVM: the order in which BARs open and close, and which vectors the host is asked for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod script;

use std::sync::Arc;

use pellucid_partition::{
    ConfigHandler, Gsi, GuestMemory, Interrupts, LastHit, Layout, MmioBus, PageSize, PioBus, Vm,
};
use pellucid_passthrough::{
    BarKind, BarShape, DeviceEvent, Endpoint, EventSink, Guest, IrqKind, PlacementWindows, Transport, View,
};
use script::{Asked, BAR_SIZE, DEVICE_CONTROL, MSI, MSIX, POWER, Script, TABLE};

const BAR: u64 = 0xc010_0000;

struct Bench {
    guest: Guest,
    script: Arc<Script>,
    endpoint: Endpoint,
}

impl Bench {
    fn new(device: impl Fn(&Arc<MmioBus>) -> Script) -> Bench {
        Bench::with(device, None, Arc::new(|_| {}))
    }

    fn with(device: impl Fn(&Arc<MmioBus>) -> Script, line: Option<Gsi>, events: EventSink) -> Bench {
        let layout = Layout::new(16 << 20, 39).unwrap();
        let vm = Arc::new(Vm::create().unwrap());
        let guest = Guest {
            memory: GuestMemory::map("bench", &layout, PageSize::Size4K).unwrap(),
            mmio: Arc::new(MmioBus::new()),
            pio: Arc::new(PioBus::new()),
            interrupts: Arc::new(Interrupts::new(Arc::clone(&vm))),
            peers: None,
            vm,
        };
        let script = Arc::new(device(&guest.mmio));
        let kind = BarKind::Memory64 { prefetchable: false };
        let view = View {
            bars: vec![BarShape {
                index: 0,
                kind,
                size: BAR_SIZE,
                address: BAR,
            }],
            windows: PlacementWindows::of(&layout),
            line: line.map(|gsi| guest.interrupts.resample_line(gsi).unwrap()),
            line_register: line.map_or(0, |gsi| gsi.0 as u8),
            events,
        };
        let transport = Arc::clone(&script) as Arc<dyn Transport>;
        let endpoint = Endpoint::wire("0000:01:00.0".parse().unwrap(), &transport, &guest, view).unwrap();
        Bench {
            guest,
            script,
            endpoint,
        }
    }

    fn write(&self, offset: u16, value: u16) -> Vec<Asked> {
        self.endpoint.write(offset, &value.to_le_bytes());
        self.script.asked()
    }

    fn poke(&self, address: u64, value: u32) -> Vec<Asked> {
        assert!(
            self.guest
                .mmio
                .write(&mut LastHit::new(), address, &value.to_le_bytes()),
            "{address:#x}"
        );
        self.script.asked()
    }

    fn peek(&self, address: u64) -> u32 {
        let mut data = [0; 4];
        self.guest.mmio.read(&mut LastHit::new(), address, &mut data);
        u32::from_le_bytes(data)
    }

    /// Where the trapped part of the BAR is open.
    fn open(&self) -> Vec<u64> {
        self.guest.mmio.counts().iter().map(|range| range.base).collect()
    }

    /// Lets the guest unmask a vector with a message.
    fn unmask(&self, vector: u64) -> Vec<Asked> {
        let entry = BAR + TABLE + vector * 16;
        for (offset, value) in [(0, 0xfee0_0000), (4, 0), (8, 0x40 + vector as u32)] {
            assert!(
                self.poke(entry + offset, value).is_empty(),
                "a masked vector asks nothing of the host"
            );
        }
        self.poke(entry + 12, 0)
    }
}

fn bench() -> Bench {
    Bench::new(|bus| Script::new(bus, true))
}

fn command(value: u8, open: bool) -> Vec<Asked> {
    vec![Asked::Command { value, open }]
}

#[test]
fn a_bar_opens_after_the_hardware_is_enabled_and_closes_before_it_is_disabled() {
    let bench = bench();
    assert_eq!(bench.write(0x04, 6), command(6, false));
    assert_eq!(bench.open(), [BAR + TABLE]);
    assert_eq!(
        bench.write(0x04, 4),
        command(4, false),
        "closed before the hardware was told"
    );
    assert!(bench.open().is_empty());
}

#[test]
fn a_bar_closes_before_the_device_leaves_d0_and_opens_once_it_is_back() {
    let bench = bench();
    bench.write(0x04, 2);
    assert_eq!(
        bench.write(POWER, 3),
        [Asked::Power {
            value: 3,
            open: false
        }]
    );
    assert!(bench.open().is_empty());
    bench.write(0x04, 0);
    bench.write(0x04, 2);
    assert!(bench.open().is_empty(), "enabled, but asleep");
    assert_eq!(
        bench.write(POWER, 0),
        [Asked::Power {
            value: 0,
            open: false
        }]
    );
    assert_eq!(bench.open(), [BAR + TABLE]);
}

#[test]
fn a_device_that_does_not_sleep_keeps_its_bar() {
    let bench = Bench::new(Script::sleepless);
    bench.write(0x04, 2);
    bench.write(POWER, 3);
    assert_eq!(bench.open(), [BAR + TABLE]);
}

#[test]
fn a_bar_sized_while_enabled_is_nowhere_and_then_back() {
    let bench = bench();
    bench.write(0x04, 2);
    bench.endpoint.write(0x10, &[0xff; 4]);
    assert!(bench.open().is_empty());
    bench.endpoint.write(0x10, &(BAR as u32 + 0x4000).to_le_bytes());
    assert_eq!(bench.open(), [BAR + 0x4000 + TABLE]);
}

#[test]
fn two_devices_at_one_place_are_kept_apart() {
    let bench = bench();
    struct Other;
    impl pellucid_partition::MmioHandler for Other {
        fn read(&self, _: u64, data: &mut [u8]) {
            data.fill(0x5a);
        }
        fn write(&self, _: u64, _: &[u8]) {}
    }
    let _other = bench
        .guest
        .mmio
        .insert(BAR + TABLE, 0x1000, "other", Arc::new(Other))
        .unwrap();
    bench.write(0x04, 2);
    assert_eq!(bench.peek(BAR + TABLE), 0x5a5a_5a5a, "the first one keeps it");
}

#[test]
fn enabling_msix_allocates_one_vector_and_shows_none() {
    let bench = bench();
    bench.write(0x04, 2);
    let asked = bench.write(MSIX, 0x8000);
    assert_eq!(
        asked,
        [Asked::Wire {
            kind: IrqKind::Msix,
            start: 0,
            live: vec![false]
        }]
    );
    assert_eq!(bench.endpoint.vectors_in_use(), 0);
    assert_eq!(bench.write(MSIX, 0), [Asked::Unwire(IrqKind::Msix)]);
}

#[test]
fn a_host_that_cannot_add_vectors_is_asked_again_in_doubling_numbers() {
    let bench = bench();
    bench.write(0x04, 2);
    bench.write(MSIX, 0x8000);
    let wire = |start, live: &[bool]| Asked::Wire {
        kind: IrqKind::Msix,
        start,
        live: live.to_vec(),
    };
    assert_eq!(bench.unmask(0), [wire(0, &[true])]);
    assert_eq!(
        bench.unmask(2),
        [Asked::Unwire(IrqKind::Msix), wire(0, &[true, false, true, false])]
    );
    assert_eq!(bench.unmask(1), [wire(1, &[true])], "already allocated");
    assert_eq!(bench.endpoint.vectors_in_use(), 3);
}

#[test]
fn a_host_that_can_add_vectors_is_asked_for_those_in_use_only() {
    let bench = Bench::new(|bus| Script::new(bus, false));
    bench.write(0x04, 2);
    bench.write(MSIX, 0x8000);
    assert_eq!(
        bench.unmask(9),
        [Asked::Wire {
            kind: IrqKind::Msix,
            start: 9,
            live: vec![true]
        }]
    );
    assert_eq!(bench.endpoint.vectors_in_use(), 1);
}

#[test]
fn a_vector_that_fires_while_masked_is_pending_and_no_longer_so_when_unmasked() {
    let bench = bench();
    bench.write(0x04, 2);
    bench.write(MSIX, 0x8000);
    bench.unmask(1);
    bench.poke(BAR + TABLE + 16 + 12, 1);
    assert!(bench.script.signal(IrqKind::Msix, 1));
    assert_eq!(bench.peek(BAR + 0x3000), 0b10);
    assert_eq!(bench.peek(BAR + 0x3000), 0b10, "reading does not take it");
    bench.poke(BAR + TABLE + 16 + 12, 0);
    assert_eq!(bench.peek(BAR + 0x3000), 0);
}

#[test]
fn the_function_mask_keeps_every_vector_back() {
    let bench = bench();
    bench.write(0x04, 2);
    bench.write(MSIX, 0xc000);
    assert!(bench.unmask(0).is_empty());
    assert_eq!(
        bench.write(MSIX, 0x8000),
        [Asked::Wire {
            kind: IrqKind::Msix,
            start: 0,
            live: vec![true]
        }]
    );
    bench.write(MSIX, 0xc000);
    assert!(bench.script.signal(IrqKind::Msix, 0));
    assert_eq!(bench.peek(BAR + 0x3000), 1);
}

#[test]
fn a_function_level_reset_leaves_what_a_reset_leaves() {
    let bench = bench();
    bench.write(0x04, 6);
    bench.write(MSIX, 0x8000);
    bench.unmask(0);
    let asked = bench.write(DEVICE_CONTROL, 0x8000);
    assert!(
        asked.contains(&Asked::Reset { open: false }),
        "closed before: {asked:?}"
    );
    assert_eq!(
        asked.last(),
        Some(&Asked::Command {
            value: 0,
            open: false
        })
    );
    assert!(bench.open().is_empty());
    assert_eq!(bench.endpoint.vectors_in_use(), 0);
    let mut registers = [0; 4];
    bench.endpoint.read(0x10, &mut registers);
    assert_eq!(registers, [4, 0, 0, 0]);
    bench.endpoint.read(MSIX, &mut registers[..2]);
    assert_eq!(registers[1] & 0x80, 0);
}

#[test]
fn a_function_that_was_taken_back_answers_nothing_on_the_bus() {
    let bench = bench();
    bench.write(0x04, 2);
    bench.endpoint.end();
    assert!(bench.open().is_empty());
    bench.script.asked();
    assert!(bench.write(0x04, 6).is_empty(), "a late write reaches nothing");
    assert!(bench.open().is_empty());
    let mut ids = [0; 4];
    bench.endpoint.read(0, &mut ids);
    assert_eq!(ids, [0xff; 4], "an empty slot");
}

fn wire(kind: IrqKind, start: u32, live: &[bool]) -> Asked {
    Asked::Wire {
        kind,
        start,
        live: live.to_vec(),
    }
}

#[test]
fn msi_takes_as_many_vectors_as_the_guest_enables_and_no_more_than_there_are() {
    let bench = bench();
    bench.endpoint.write(MSI + 2, &0xfee0_0000_u32.to_le_bytes());
    bench.write(MSI + 10, 0x40);
    let asked = bench.write(MSI, 0x11);
    let one = |vector| wire(IrqKind::Msi, vector, &[true]);
    assert_eq!(asked, [wire(IrqKind::Msi, 0, &[false, false]), one(0), one(1)]);
    assert_eq!(bench.endpoint.vectors_in_use(), 2);
    assert_eq!(bench.write(MSI, 0), [Asked::Unwire(IrqKind::Msi)]);
    let asked = bench.write(MSI, 0x71);
    assert_eq!(
        asked[0],
        wire(IrqKind::Msi, 0, &[false; 4]),
        "the function has four"
    );
}

#[test]
fn a_masked_msi_vector_is_connected_when_it_is_unmasked() {
    let bench = bench();
    bench.endpoint.write(MSI + 14, &1_u32.to_le_bytes());
    assert_eq!(bench.write(MSI, 0x01), [wire(IrqKind::Msi, 0, &[false])]);
    bench.endpoint.write(MSI + 14, &0_u32.to_le_bytes());
    assert_eq!(bench.script.asked(), [wire(IrqKind::Msi, 0, &[true])]);
}

#[test]
fn the_line_is_taken_off_before_messages_are_switched_on_and_put_back_after() {
    let bench = Bench::with(|bus| Script::new(bus, true), Some(Gsi(10)), Arc::new(|_| {}));
    let on = wire(IrqKind::Intx, 0, &[true]);
    assert_eq!(bench.script.asked(), std::slice::from_ref(&on));
    let asked = bench.write(MSIX, 0x8000);
    assert_eq!(
        asked,
        [Asked::Unwire(IrqKind::Intx), wire(IrqKind::Msix, 0, &[false])]
    );
    assert_eq!(bench.write(MSIX, 0), [Asked::Unwire(IrqKind::Msix), on.clone()]);
    let asked = bench.write(MSI, 1);
    assert_eq!(
        asked[..2],
        [Asked::Unwire(IrqKind::Intx), wire(IrqKind::Msi, 0, &[false])]
    );
    assert_eq!(bench.write(MSI, 0), [Asked::Unwire(IrqKind::Msi), on]);
    bench.endpoint.end();
    assert_eq!(bench.script.asked(), [Asked::Unwire(IrqKind::Intx)]);
}

#[test]
fn the_interrupt_registers_tell_of_the_line_only_if_there_is_one() {
    let registers = |bench: &Bench| {
        let mut data = [0; 2];
        bench.endpoint.read(0x3c, &mut data);
        data
    };
    assert_eq!(registers(&bench()), [0, 0]);
    let with = Bench::with(|bus| Script::new(bus, true), Some(Gsi(10)), Arc::new(|_| {}));
    assert_eq!(registers(&with), [10, 1]);
}

#[test]
fn errors_and_requests_of_the_host_reach_the_sink_until_the_end() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let sink: EventSink = Arc::new(move |event| sender.send(event).unwrap());
    let bench = Bench::with(|bus| Script::new(bus, true), None, sink);
    let device = "0000:01:00.0".parse().unwrap();
    let limit = std::time::Duration::from_secs(10);
    assert!(bench.script.signal(IrqKind::Error, 0));
    let error = receiver.recv_timeout(limit).unwrap();
    // Whose error it was depends on the host: there may be a function of it at that address.
    assert!(
        matches!(&error, DeviceEvent::Error { device: told, .. } if *told == device),
        "{error:?}"
    );
    assert!(bench.script.signal(IrqKind::Request, 0));
    assert_eq!(receiver.recv_timeout(limit), Ok(DeviceEvent::Wanted { device }));
    bench.endpoint.end();
    assert!(!bench.script.signal(IrqKind::Error, 0), "disconnected");
    assert!(receiver.recv().is_err(), "and nobody listens");
}

#[test]
fn the_trapped_page_beside_the_table_is_the_devices_own() {
    let bench = bench();
    bench.write(0x04, 2);
    let behind = BAR + TABLE + 16 * 16;
    bench.poke(behind, 0x1234_5678);
    assert_eq!(bench.peek(behind), 0x1234_5678);
    let mut data = [0; 4];
    bench
        .script
        .read(
            pellucid_passthrough::RegionIndex::Bar(0),
            TABLE + 16 * 16,
            &mut data,
        )
        .unwrap();
    assert_eq!(u32::from_le_bytes(data), 0x1234_5678);
    assert_eq!(bench.peek(BAR + TABLE + 12), 1, "the table itself is emulated");
}

#[test]
fn a_guest_that_writes_anything_anywhere_breaks_nothing() {
    let bench = Bench::with(|bus| Script::new(bus, true), Some(Gsi(10)), Arc::new(|_| {}));
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..4000 {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let offset = (seed >> 20) as u16 & 0xffc;
        let offset = if seed & 1 == 0 { offset & 0xfc } else { offset };
        let value = (seed >> 32) as u32;
        bench.endpoint.write(offset, &value.to_le_bytes());
        let table = (seed >> 8) & 0xfc;
        bench
            .guest
            .mmio
            .write(&mut LastHit::new(), BAR + TABLE + table, &value.to_le_bytes());
    }
    let mut ids = [0; 4];
    bench.endpoint.read(0, &mut ids);
    assert_eq!(ids, [0x36, 0x1b, 0x10, 0x00]);
    assert!(bench.endpoint.vectors_in_use() <= 16);
    bench.endpoint.end();
    assert!(bench.open().is_empty());
}
