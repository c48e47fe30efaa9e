//! The serial port as drivers meet it: Linux's probe, interrupts, input with flow control, output that fails.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be built fails its test")]

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pellucid_chipset::Serial;
use pellucid_partition::PioHandler;
use proptest::prelude::*;

/// A port with everything it does on record.
struct Bench {
    serial: Serial,
    sent: Sent,
    edges: Arc<AtomicUsize>,
    rooms: Arc<AtomicUsize>,
}

#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<u8>>>);

impl Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Bench {
    fn new() -> Self {
        let sent = Sent::default();
        let (edges, rooms) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (edge, room) = (Arc::clone(&edges), Arc::clone(&rooms));
        let serial = Serial::new(
            move || _ = edge.fetch_add(1, Ordering::Relaxed),
            Box::new(sent.clone()),
        )
        .on_room(move || _ = room.fetch_add(1, Ordering::Relaxed));
        Self {
            serial,
            sent,
            edges,
            rooms,
        }
    }

    /// As Linux leaves it after opening: FIFOs on, OUT2, the interrupts of `enable`.
    fn opened(enable: u8) -> Self {
        let bench = Self::new();
        bench.write(FCR, 0xc7);
        bench.write(MCR, 0x0b);
        bench.write(IER, enable);
        bench.edges.store(0, Ordering::Relaxed);
        bench
    }

    fn read(&self, register: u16) -> u8 {
        let mut data = [0];
        self.serial.read(register, &mut data);
        data[0]
    }

    fn write(&self, register: u16, value: u8) {
        self.serial.write(register, &[value]);
    }

    fn edges(&self) -> usize {
        self.edges.swap(0, Ordering::Relaxed)
    }
}

const DATA: u16 = 0;
const IER: u16 = 1;
const IIR: u16 = 2;
const FCR: u16 = 2;
const LCR: u16 = 3;
const MCR: u16 = 4;
const LSR: u16 = 5;
const MSR: u16 = 6;
const SCR: u16 = 7;

#[test]
fn linux_autoconfig_finds_a_16550a() {
    // drivers/tty/serial/8250/8250_port.c, autoconfig() and autoconfig_16550a() of 6.1, step by step.
    let port = Bench::new();
    port.write(IER, 0);
    assert_eq!(port.read(IER), 0, "something answers");
    port.write(IER, 0x0f);
    assert_eq!(port.read(IER), 0x0f, "the interrupt enables can be set");
    port.write(IER, 0);
    port.write(MCR, 0x10 | 0x0a);
    assert_eq!(
        port.read(MSR) & 0xf0,
        0x90,
        "loopback connects RTS and OUT2 to CTS and DCD"
    );
    port.write(MCR, 0);
    port.write(LCR, 0xbf);
    port.write(2, 0);
    port.write(LCR, 0);
    port.write(FCR, 0x01);
    assert_eq!(port.read(IIR) >> 6, 3, "FIFOs that work");
    port.write(LCR, 0x80);
    assert_ne!(port.read(2), 0, "no extended features register, so not a 16650");
    port.write(LCR, 0xbf);
    assert_ne!(port.read(2), 0, "not a 16850");
    port.write(LCR, 0);
    port.write(FCR, 0x21);
    let short = port.read(IIR) >> 5;
    port.write(FCR, 0x01);
    port.write(LCR, 0x80);
    port.write(FCR, 0x21);
    assert_eq!(
        (short, port.read(IIR) >> 5),
        (6, 6),
        "no 64-byte FIFO, so not a 16750"
    );
    port.write(LCR, 0);
    port.write(IER, 0x40);
    assert_eq!(
        port.read(IER) & 0x40,
        0,
        "no unit enable bit, so not an XScale port"
    );
}

#[test]
fn linux_startup_finds_no_transmitter_bug() {
    // serial8250_do_startup(): enabling the transmitter's interrupt must raise it, twice.
    let port = Bench::opened(0);
    for _ in 0..2 {
        port.write(IER, 0x02);
        assert_eq!(port.edges(), 1);
        assert_eq!(port.read(LSR) & 0x60, 0x60);
        assert_eq!(port.read(IIR), 0xc2);
        assert_eq!(port.read(IIR), 0xc1, "reading acknowledged it");
        port.write(IER, 0);
    }
}

#[test]
fn a_burst_raises_one_interrupt_and_its_acknowledgement_allows_the_next() {
    let port = Bench::opened(0x02);
    assert_eq!(port.read(IIR), 0xc2);
    for byte in b"sixteen bytes ok" {
        port.write(DATA, *byte);
    }
    assert_eq!(port.edges(), 1);
    assert_eq!(port.read(IIR), 0xc2);
    port.write(DATA, b'!');
    assert_eq!(port.edges(), 1);
    assert_eq!(*port.sent.0.lock().unwrap(), b"sixteen bytes ok!");
}

#[test]
fn input_stays_announced_until_it_is_read() {
    let port = Bench::opened(0x05);
    assert_eq!(port.serial.receive(b"ab"), 2);
    assert_eq!(port.edges(), 1);
    assert_eq!(port.read(IIR), 0xcc, "below the trigger level it is the timeout");
    assert_eq!(port.read(IIR), 0xcc, "and identifying it does not take it back");
    assert_eq!(
        (port.read(LSR) & 1, port.read(DATA), port.read(DATA)),
        (1, b'a', b'b')
    );
    assert_eq!((port.read(LSR) & 1, port.read(IIR)), (0, 0xc1));
}

#[test]
fn input_that_came_while_interrupts_were_off_is_announced_when_they_are_on_again() {
    let port = Bench::opened(0x05);
    port.write(IER, 0);
    port.serial.receive(b"x");
    assert_eq!(port.edges(), 0);
    port.write(IER, 0x05);
    assert_eq!(port.edges(), 1);
}

#[test]
fn input_has_priority_over_an_empty_transmitter_and_both_are_told() {
    let port = Bench::opened(0x07);
    port.serial.receive(b"0123456789abcdef");
    assert_eq!(port.read(IIR), 0xc4);
    for _ in 0..16 {
        port.read(DATA);
    }
    assert_eq!(port.read(IIR), 0xc2);
    assert_eq!(port.read(IIR), 0xc1);
}

#[test]
fn the_receiver_takes_sixteen_bytes_and_says_when_there_is_room_again() {
    let port = Bench::opened(0x01);
    assert_eq!(port.serial.receive(&[7; 40]), 16);
    assert_eq!((port.serial.room(), port.serial.receive(&[7])), (0, 0));
    for read in 1..=16 {
        assert_eq!(port.rooms.load(Ordering::Relaxed), 0, "after {read} reads");
        port.read(DATA);
    }
    assert_eq!(port.rooms.load(Ordering::Relaxed), 1);
    assert_eq!(port.serial.receive(&[7; 24]), 16);
    port.write(FCR, 0x03);
    assert_eq!(
        port.rooms.load(Ordering::Relaxed),
        2,
        "clearing the FIFO makes room too"
    );
}

#[test]
fn nobody_is_told_of_room_who_was_not_refused() {
    let port = Bench::opened(0x01);
    port.serial.receive(b"ok");
    port.read(DATA);
    port.read(DATA);
    assert_eq!(port.rooms.load(Ordering::Relaxed), 0);
}

#[test]
fn without_fifos_one_byte_is_held() {
    let port = Bench::new();
    assert_eq!(port.serial.receive(b"ab"), 1);
    assert_eq!(port.read(DATA), b'a');
    assert_eq!(port.rooms.load(Ordering::Relaxed), 1);
}

#[test]
fn the_interrupt_needs_the_out2_gate() {
    let port = Bench::opened(0x01);
    port.write(MCR, 0x03);
    port.serial.receive(b"x");
    assert_eq!(port.edges(), 0);
    port.write(MCR, 0x0b);
    assert_eq!(port.edges(), 1);
}

#[test]
fn loopback_returns_what_is_sent_and_reports_an_overrun() {
    let port = Bench::opened(0x04);
    port.write(MCR, 0x18);
    for byte in 0..17 {
        port.write(DATA, byte);
    }
    assert_eq!(port.read(IIR), 0xc6);
    assert_eq!(port.read(LSR) & 0x03, 0x03);
    assert_eq!(port.read(LSR) & 0x03, 0x01, "reading clears the overrun");
    assert_eq!(
        (0..16).map(|_| port.read(DATA)).collect::<Vec<_>>(),
        (0..16).collect::<Vec<_>>()
    );
    assert!(port.sent.0.lock().unwrap().is_empty());
    assert_eq!(port.serial.receive(b"x"), 0, "the line is cut meanwhile");
    port.write(MCR, 0x0b);
    assert_eq!(
        port.rooms.load(Ordering::Relaxed),
        1,
        "and it is told when it is back"
    );
}

#[test]
fn a_change_of_the_modem_lines_is_noted_once() {
    let port = Bench::opened(0x08);
    port.write(MCR, 0x1c);
    assert_eq!(port.read(IIR), 0xc0);
    assert_eq!(
        port.read(MSR),
        0xc0 | 0x03,
        "CTS and DSR went, ring and carrier are there"
    );
    port.write(MCR, 0x18);
    assert_eq!(port.read(MSR), 0x80 | 0x04, "the end of the ring counts");
    assert_eq!((port.read(MSR), port.read(IIR)), (0x80, 0xc1));
}

#[test]
fn the_divisor_and_the_scratch_register_are_kept() {
    let port = Bench::new();
    port.write(LCR, 0x83);
    port.write(DATA, 0x01);
    port.write(IER, 0x02);
    assert_eq!(
        (port.read(DATA), port.read(IER), port.read(LCR)),
        (0x01, 0x02, 0x83)
    );
    port.write(LCR, 0x03);
    assert_eq!((port.read(DATA), port.read(IER)), (0, 0));
    port.write(SCR, 0x5a);
    assert_eq!(port.read(SCR), 0x5a);
    assert!(port.sent.0.lock().unwrap().is_empty());
}

/// A pipe whose reader has gone, after some interruptions.
struct Broken(u32);

impl Write for Broken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += 1;
        match self.0 {
            1 => Err(io::ErrorKind::Interrupted.into()),
            2 => Ok(bytes.len()),
            3 => Ok(0),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_loses_bytes_and_nothing_else() {
    let serial = Serial::new(|| (), Box::new(Broken(0)));
    serial.write(DATA, b"a");
    assert_eq!(serial.lost(), 0, "an interrupted write is taken up again");
    serial.write(DATA, b"b");
    serial.write(DATA, b"c");
    assert_eq!(serial.lost(), 2);
    let mut status = [0];
    serial.read(LSR, &mut status);
    assert_eq!(status[0], 0x60, "the guest does not notice");
}

#[test]
fn a_wide_access_is_its_bytes() {
    let port = Bench::opened(0);
    port.write(SCR, 0x77);
    let mut data = [0; 4];
    port.serial.read(MSR, &mut data);
    assert_eq!(data, [0xb0, 0x77, 0xff, 0xff]);
    port.serial.write(DATA, &[b'x', 0x01]);
    assert_eq!(*port.sent.0.lock().unwrap(), b"x");
    assert_eq!(port.read(IER), 1);
}

proptest! {
    #[test]
    fn no_input_is_lost_or_reordered_by_a_driver_that_reads(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let port = Bench::opened(0x01);
        let (mut rest, mut seen) = (&input[..], Vec::new());
        while !rest.is_empty() {
            rest = &rest[port.serial.receive(rest)..];
            prop_assert_eq!(port.edges(), 1);
            while port.read(LSR) & 1 != 0 {
                seen.push(port.read(DATA));
            }
        }
        prop_assert_eq!(seen, input);
    }

    #[test]
    fn the_line_is_high_exactly_while_something_is_identified(steps in prop::collection::vec((0u8..3, 0u16..9, any::<u8>()), 1..300)) {
        let port = Bench::new();
        for (kind, register, value) in steps {
            match kind {
                0 => drop(port.read(register)),
                1 => port.write(register, value),
                _ => drop(port.serial.receive(&[value; 5])),
            }
        }
        // With the gate open and everything but the transmitter enabled, a fresh byte must give an edge after the port was drained.
        for (register, value) in [(LCR, 0x03), (MCR, 0x0b), (FCR, 0x00), (FCR, 0x07), (IER, 0x01)] {
            port.write(register, value);
        }
        for register in [LSR, DATA, IIR, MSR] {
            port.read(register);
        }
        prop_assert_eq!(port.read(IIR), 0xc1);
        port.edges();
        prop_assert_eq!(port.serial.receive(b"!"), 1);
        prop_assert_eq!((port.edges(), port.read(IIR)), (1, 0xc4));
    }
}

#[test]
fn input_waits_while_a_driver_that_uses_rts_holds_it_down() {
    let port = Bench::opened(0x01);
    port.serial.receive(b"ab");
    // As tty_throttle() does with CRTSCTS.
    port.write(MCR, 0x09);
    assert_eq!((port.serial.room(), port.serial.receive(b"cd")), (0, 0));
    assert_eq!((port.read(DATA), port.read(DATA)), (b'a', b'b'));
    assert_eq!(
        port.rooms.load(Ordering::Relaxed),
        0,
        "drained, but the other end may not send"
    );
    port.write(MCR, 0x0b);
    assert_eq!(port.rooms.load(Ordering::Relaxed), 1);
    assert_eq!(port.serial.receive(b"cd"), 2);
    assert_eq!(
        port.read(MSR) & 0xf0,
        0xb0,
        "CTS is up all the time: there is always room here"
    );
}

#[test]
fn a_driver_that_knows_no_rts_has_its_input() {
    let port = Bench::new();
    port.write(MCR, 0x08);
    assert_eq!(port.serial.receive(b"x"), 1);
    // Raised in loopback only, as drivers do to find out what they have.
    port.write(MCR, 0x1a);
    port.write(MCR, 0x08);
    port.read(DATA);
    assert_eq!(port.serial.receive(b"x"), 1);
}

/// Every order of what a driver does before it has its first interrupt: the cause, the enable bit, the OUT2 gate.
#[test]
fn whatever_comes_last_raises_the_line_once() {
    type Step = (&'static str, fn(&Bench));
    let enable: Step = ("enable", |port| port.write(IER, 0x0f));
    let gate: Step = ("gate", |port| port.write(MCR, 0x0b));
    let causes: [(Step, u8); 3] = [
        (("byte in", |port| assert_eq!(port.serial.receive(&[7]), 1)), 0x04),
        (("byte out", |port| port.write(DATA, b'x')), 0x02),
        (
            ("modem", |port| {
                port.write(MCR, 0x1f);
                port.write(MCR, 0x0f);
                port.write(MCR, 0x03);
            }),
            0x02,
        ),
    ];
    for (cause, identified) in causes {
        for order in [
            [cause, enable, gate],
            [cause, gate, enable],
            [enable, cause, gate],
            [enable, gate, cause],
            [gate, cause, enable],
            [gate, enable, cause],
        ] {
            let port = Bench::new();
            port.write(FCR, 0x01);
            let names: Vec<_> = order.iter().map(|(name, _)| *name).collect();
            for (_, step) in order {
                step(&port);
            }
            port.write(MCR, 0x0b);
            assert!(port.edges() >= 1, "{names:?}");
            let found: Vec<u8> = (0..4).map(|_| port.read(IIR) & 0x0f).collect();
            assert!(found.contains(&identified), "{names:?} {found:x?}");
        }
    }
}
