//! The whole board on buses of its own: everything is where it belongs, and gone when the board is dropped.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be built fails its test")]

use std::io;
use std::sync::{Arc, Mutex};

use pellucid_chipset::{
    Board, BoardError, BoardEvent, BoardLines, BoardSpec, ConfigPorts, Console, EcamPlace, PciError, PortAt,
    RootPort, SciLevel,
};
use pellucid_partition::{LastHit, MmioBus, PioBus, PioHandler, board as at};
use proptest::prelude::*;

mod specs;

struct Bench {
    pio: Arc<PioBus>,
    mmio: Arc<MmioBus>,
    events: Arc<Mutex<Vec<BoardEvent>>>,
    sci: Arc<Mutex<Vec<SciLevel>>>,
}

impl Bench {
    fn new() -> Self {
        let (pio, mmio) = (Arc::new(PioBus::new()), Arc::new(MmioBus::new()));
        Self {
            pio,
            mmio,
            events: Arc::default(),
            sci: Arc::default(),
        }
    }

    fn board(&self, root_ports: Vec<PortAt>) -> Result<Board, BoardError> {
        self.board_with(root_ports, ConfigPorts::Present)
    }

    fn board_with(&self, root_ports: Vec<PortAt>, config_ports: ConfigPorts) -> Result<Board, BoardError> {
        Board::wire(
            &self.mmio,
            &self.pio,
            self.lines(),
            self.spec(root_ports, config_ports),
        )
    }

    fn lines(&self) -> BoardLines {
        let sci = Arc::clone(&self.sci);
        BoardLines {
            serial: Box::new(|| ()),
            clock: Box::new(|| ()),
            sci: Box::new(move |level| sci.lock().unwrap().push(level)),
        }
    }

    fn spec(&self, root_ports: Vec<PortAt>, config_ports: ConfigPorts) -> BoardSpec {
        let events = Arc::clone(&self.events);
        BoardSpec {
            console: Console {
                out: Box::new(io::sink()),
                room: Box::new(|| ()),
            },
            events: Arc::new(move |event| events.lock().unwrap().push(event)),
            clock_offset: 0,
            sooner: Arc::new(|| ()),
            root_buses: Vec::new(),
            root_ports,
            config_ports,
            ecam: EcamPlace::default(),
            clock_memory: Vec::new(),
        }
    }

    fn outb(&self, port: u16, value: u8) -> bool {
        self.pio.write(&mut LastHit::new(), port, &[value])
    }

    fn inb(&self, port: u16) -> u8 {
        let mut data = [0];
        self.pio.read(&mut LastHit::new(), port, &mut data);
        data[0]
    }

    fn ecam(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.mmio
            .read(&mut LastHit::new(), 0xe000_0000 + offset, &mut data);
        u32::from_le_bytes(data)
    }
}

#[test]
fn ecam_goes_where_firmware_puts_it_and_its_owner_is_told() {
    let bench = Bench::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let places = Arc::clone(&told);
    let mut spec = bench.spec(Vec::new(), ConfigPorts::Present);
    spec.ecam = EcamPlace::Follows(Box::new(move |to| places.lock().unwrap().push(to)));
    spec.clock_memory = vec![(0x34, 0x12)];
    let board = Board::wire(&bench.mmio, &bench.pio, bench.lines(), spec).unwrap();
    bench.outb(at::RTC_PORT, 0x34);
    assert_eq!(bench.inb(at::RTC_PORT + 1), 0x12);
    let ids = 0x29c0_8086;
    assert_eq!(bench.ecam(0), ids);
    let set = |low: u32| {
        let mut last = LastHit::new();
        bench.pio.write(&mut last, 0xcf8, &0x8000_0060_u32.to_le_bytes());
        bench.pio.write(&mut last, 0xcfc, &low.to_le_bytes());
    };
    set(0);
    assert_eq!(bench.ecam(0), u32::MAX, "it is off");
    set(0xb000_0001);
    assert_eq!(bench.ecam(0), u32::MAX, "it is not where it was");
    let mut data = [0; 4];
    bench.mmio.read(&mut LastHit::new(), 0xb000_0000, &mut data);
    assert_eq!(u32::from_le_bytes(data), ids);
    assert_eq!(*told.lock().unwrap(), [None, Some(0xb000_0000..0xc000_0000)]);
    // Firmware is free to move it through itself.
    bench
        .mmio
        .write(&mut LastHit::new(), 0xb000_0060, &0xe000_0001_u32.to_le_bytes());
    assert_eq!(bench.ecam(0), ids);
    drop(board);
    assert!(bench.mmio.counts().is_empty());
}

fn port_at(bdf: &str, secondary: u8) -> PortAt {
    PortAt {
        bdf: bdf.parse().unwrap(),
        port: Arc::new(RootPort::new(&specs::port(secondary, secondary)).unwrap()),
    }
}

#[test]
fn everything_is_where_kernels_look_for_it() {
    let bench = Bench::new();
    let board = bench.board(vec![port_at("00:1c.0", 1)]).unwrap();
    assert_eq!(bench.inb(at::COM1_PORT + 5), 0x60);
    bench.outb(at::RTC_PORT, 0x0d);
    assert_eq!(bench.inb(at::RTC_PORT + 1), 0x80);
    assert_eq!(bench.inb(at::PM1A_CONTROL_PORT), 1);
    assert_ne!(bench.inb(at::PM_TIMER_PORT + 3), 0xff);
    assert_eq!(bench.ecam(0), 0x29c0_8086);
    assert_eq!(bench.ecam(0xf8 << 12), 0x2918_8086);
    assert_eq!(bench.ecam(0xe0 << 12), 0x1234_8086);
    assert_eq!(bench.ecam(0x40 + (0xf8 << 12)), u32::from(at::PM_BASE) | 1);
    assert_eq!(
        board.functions().map(|bdf| bdf.to_string()).collect::<Vec<_>>(),
        ["0000:00:00.0", "0000:00:1f.0", "0000:00:1c.0"]
    );
}

#[test]
fn power_off_and_every_reset_are_reported() {
    let bench = Bench::new();
    let _board = bench.board(vec![]).unwrap();
    bench.outb(at::PM1A_CONTROL_PORT + 1, 0x20);
    bench.outb(at::RESET_PORT, at::RESET_VALUE);
    bench.outb(0x64, 0xfe);
    bench.outb(0x92, 0x01);
    use BoardEvent::{PowerOff, Reset};
    assert_eq!(*bench.events.lock().unwrap(), [PowerOff, Reset, Reset, Reset]);
}

#[test]
fn without_configuration_ports_ecam_and_the_reset_register_remain() {
    let bench = Bench::new();
    let _board = bench.board_with(vec![], ConfigPorts::Absent).unwrap();
    let mut hit = LastHit::new();
    // Linux's test for the ports: does the address that was written read back?
    bench.pio.write(&mut hit, 0xcf8, &0x8000_0000_u32.to_le_bytes());
    let mut address = [0; 4];
    bench.pio.read(&mut hit, 0xcf8, &mut address);
    assert_eq!(address, [0xff; 4]);
    assert_eq!(bench.ecam(0), 0x29c0_8086);
    bench.outb(at::RESET_PORT, at::RESET_VALUE);
    assert_eq!(*bench.events.lock().unwrap(), [BoardEvent::Reset]);
}

#[test]
fn the_power_button_raises_the_sci_and_the_guest_lowers_it() {
    let bench = Bench::new();
    let board = bench.board(vec![]).unwrap();
    bench.outb(at::PM1A_EVENT_PORT + 3, 0x01);
    board.power().press_power_button();
    bench.outb(at::PM1A_EVENT_PORT + 1, 0x01);
    assert_eq!(
        *bench.sci.lock().unwrap(),
        [SciLevel::Asserted, SciLevel::Released]
    );
}

#[test]
fn functions_can_be_placed_behind_the_boards_ports() {
    let bench = Bench::new();
    let board = bench.board(vec![port_at("00:1c.0", 1)]).unwrap();
    assert_eq!(bench.ecam(1 << 20), u32::MAX);
    let lpc = Arc::new(pellucid_chipset::Lpc::new(0));
    let _placed = board.pci().place("01:00.0".parse().unwrap(), lpc).unwrap();
    assert_eq!(bench.ecam(1 << 20), 0x2918_8086);
}

#[test]
fn a_dropped_board_leaves_empty_buses() {
    let bench = Bench::new();
    drop(bench.board(vec![port_at("00:1c.0", 1)]).unwrap());
    assert!(bench.pio.counts().is_empty() && bench.mmio.counts().is_empty());
    assert!(!bench.outb(at::RESET_PORT, 6));
}

#[test]
fn a_port_in_the_way_of_the_boards_own_functions_is_refused_by_name() {
    let bench = Bench::new();
    let refusal = bench.board(vec![port_at("00:1f.0", 1)]).unwrap_err();
    assert!(refusal.to_string().contains("0000:00:1f.0"), "{refusal}");
    assert!(matches!(
        refusal,
        BoardError::Pci {
            source: PciError::FunctionTaken { .. },
            ..
        }
    ));
    assert!(bench.pio.counts().is_empty());
}

#[test]
fn a_place_that_is_taken_refuses_the_board_and_leaves_nothing_behind() {
    struct Nothing;
    impl PioHandler for Nothing {
        fn read(&self, _: u16, _: &mut [u8]) {}
        fn write(&self, _: u16, _: &[u8]) {}
    }
    let bench = Bench::new();
    let _other = bench.pio.insert(0xcf8, 4, "other", Arc::new(Nothing)).unwrap();
    let refusal = bench.board(vec![]).unwrap_err();
    assert!(
        refusal.to_string().contains("PCI configuration ports"),
        "{refusal}"
    );
    assert_eq!(bench.pio.counts().len(), 1);
}

proptest! {
    #[test]
    fn no_port_access_panics_and_the_console_survives(accesses in prop::collection::vec((any::<u16>(), any::<u32>(), 0usize..3), 0..500)) {
        let bench = Bench::new();
        let board = bench.board(vec![port_at("00:1c.0", 1)]).unwrap();
        let mut hit = LastHit::new();
        let ranges: Vec<(u64, u64)> = bench.pio.counts().iter().map(|range| (range.base, range.size)).collect();
        for (selector, value, width) in accesses {
            let (base, size) = ranges[usize::from(selector) % ranges.len()];
            let port = (base + u64::from(selector >> 4) % size) as u16;
            let mut data = value.to_le_bytes();
            let data = &mut data[..1 << width];
            bench.pio.write(&mut hit, port, data);
            bench.pio.read(&mut hit, port, data);
        }
        prop_assert!(board.serial().room() <= 16);
        prop_assert_eq!(bench.inb(at::COM1_PORT + 5) & 0x60, 0x60);
    }
}

#[test]
fn what_is_due_is_the_sooner_of_clock_and_timer() {
    let bench = Bench::new();
    let board = bench.board(vec![]).unwrap();
    assert_eq!(board.until_due(), None);
    bench.outb(0x602, 1);
    let timer = board.until_due().unwrap();
    assert!(timer < std::time::Duration::from_millis(2344), "{timer:?}");
    bench.outb(0x70, 0x0b);
    bench.outb(0x71, 0x42);
    let clock = board.until_due().unwrap();
    assert!(
        clock < std::time::Duration::from_millis(2),
        "1024 Hz, not {clock:?}"
    );
    std::thread::sleep(clock);
    board.tick();
    bench.outb(0x70, 0x0c);
    assert_eq!(bench.inb(0x71) & 0xc0, 0xc0);
}

#[test]
fn a_clock_that_is_set_is_an_event_and_nothing_else_is_one() {
    let bench = Bench::new();
    let board = bench.board(vec![]).unwrap();
    bench.outb(0x70, 0x04);
    let hour = bench.inb(0x71);
    bench.outb(0x71, hour);
    assert_eq!(*bench.events.lock().unwrap(), []);
    bench.outb(0x71, if hour == 0x12 { 0x13 } else { 0x12 });
    let events = std::mem::take(&mut *bench.events.lock().unwrap());
    assert!(
        matches!(events[..], [BoardEvent::ClockSet { offset }] if offset != 0 && offset == board.rtc().offset()),
        "{events:?}"
    );
}

/// Ports that some device of the board has, first and last.
const TAKEN: [(u16, u16); 7] = [
    (0x64, 0x64),
    (0x70, 0x71),
    (0x80, 0x80),
    (0x92, 0x92),
    (0x3f8, 0x3ff),
    (0x600, 0x67f),
    (0xcf8, 0xcff),
];

/// Every port in every size: no panic, all ones wherever no device is, and no byte past the last device's in a wide access.
#[test]
fn every_port_reads_in_every_size_and_all_ones_where_nothing_is() {
    let bench = Bench::new();
    let _board = bench.board(vec![]).unwrap();
    for port in 0..=u16::MAX {
        for size in [1, 2, 4, 3, 8] {
            let mut data = vec![0x5a; size];
            bench.pio.read(&mut LastHit::new(), port, &mut data);
            let here = TAKEN.iter().any(|(first, last)| (*first..=*last).contains(&port));
            assert!(
                here || data.iter().all(|byte| *byte == 0xff),
                "{port:#x} {data:x?}"
            );
        }
    }
}

proptest! {
    /// A storm of accesses of any size anywhere on the board, its configuration window included.
    #[test]
    fn no_storm_of_accesses_panics_or_reaches_where_nothing_is(
        accesses in prop::collection::vec((any::<bool>(), any::<bool>(), any::<u64>(), prop::collection::vec(any::<u8>(), 1..9)), 0..300),
    ) {
        let bench = Bench::new();
        let board = bench.board(vec![port_at("00:02.0", 3)]).unwrap();
        for (is_port, is_write, at, mut data) in accesses {
            let (first, last) = TAKEN[(at % 7) as usize];
            // Around and across the edges of each device.
            let port = first.wrapping_sub(8).wrapping_add((at >> 8) as u16 % (last - first + 17));
            let address = 0xe000_0000 + (at % (4 << 20));
            match (is_port, is_write) {
                (true, true) => drop(bench.pio.write(&mut LastHit::new(), port, &data)),
                (true, false) => drop(bench.pio.read(&mut LastHit::new(), port, &mut data)),
                (false, true) => drop(bench.mmio.write(&mut LastHit::new(), address, &data)),
                (false, false) => drop(bench.mmio.read(&mut LastHit::new(), address, &mut data)),
            }
            board.tick();
        }
        // Bus 3 is behind the port and has nothing, wherever the guest has moved it to.
        let mut nothing = [0; 4];
        bench.mmio.read(&mut LastHit::new(), 0xe000_0000 + (200 << 20), &mut nothing);
        prop_assert_eq!(nothing, [0xff; 4]);
    }
}
