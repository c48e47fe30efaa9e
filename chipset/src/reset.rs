//! The ways to reset a PC: the reset register (0xcf9), the keyboard controller's command (0x64) and port 0x92.
//!
//! There is no keyboard controller: its status reads all ones, which is how Linux finds that there is none.

use std::sync::atomic::{AtomicU8, Ordering};

use pellucid_partition::PioHandler;

use crate::event::{BoardEvent, EventSink};
use crate::ports::read_bytes;

/// The reset register (ICH9 RST_CNT), one port. It lies inside the PCI configuration ports: give it to
/// [`PciPorts`](crate::PciPorts), or register it alone.
pub struct ResetRegister {
    value: AtomicU8,
    events: EventSink,
}

/// Port 0x64 of a keyboard controller that is not there, but whose reset line is.
pub struct KeyboardReset {
    events: EventSink,
}

/// Port 0x92: the A20 gate, always open, and the fast reset.
pub struct FastReset {
    events: EventSink,
}

/// The port that firmware writes progress codes to (0x80): takes everything, reads all ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiagnosticPort;

impl ResetRegister {
    /// A register that reports to `events`.
    #[must_use]
    pub fn new(events: EventSink) -> Self {
        Self {
            value: AtomicU8::new(0),
            events,
        }
    }

    pub(crate) fn load(&self) -> u8 {
        self.value.load(Ordering::Relaxed)
    }

    pub(crate) fn store(&self, value: u8) {
        self.value.store(value & KEPT, Ordering::Relaxed);
        if value & RESET_CPU != 0 {
            report(&self.events, "0xcf9");
        }
    }
}

impl PioHandler for ResetRegister {
    fn read(&self, offset: u16, data: &mut [u8]) {
        read_bytes(offset, data, |port| if port == 0 { self.load() } else { 0xff });
    }

    fn write(&self, offset: u16, data: &[u8]) {
        // Wider accesses belong to the PCI configuration address.
        if let (0, &[value]) = (offset, data) {
            self.store(value);
        }
    }
}

impl KeyboardReset {
    /// A port that reports to `events`.
    #[must_use]
    pub fn new(events: EventSink) -> Self {
        Self { events }
    }
}

impl PioHandler for KeyboardReset {
    fn read(&self, _offset: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, offset: u16, data: &[u8]) {
        if offset == 0 && data.first() == Some(&PULSE_RESET) {
            report(&self.events, "0x64");
        }
    }
}

impl FastReset {
    /// A port that reports to `events`.
    #[must_use]
    pub fn new(events: EventSink) -> Self {
        Self { events }
    }
}

impl PioHandler for FastReset {
    fn read(&self, offset: u16, data: &mut [u8]) {
        read_bytes(offset, data, |port| if port == 0 { A20_OPEN } else { 0xff });
    }

    fn write(&self, offset: u16, data: &[u8]) {
        if offset == 0 && data.first().is_some_and(|value| value & FAST_RESET != 0) {
            report(&self.events, "0x92");
        }
    }
}

impl PioHandler for DiagnosticPort {
    fn read(&self, _offset: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, _offset: u16, _data: &[u8]) {}
}

fn report(events: &EventSink, port: &str) {
    tracing::info!(port, "the guest asked for a reset");
    events(BoardEvent::Reset);
}

/// System reset and full reset: kept for reading back.
const KEPT: u8 = 0x0a;
const RESET_CPU: u8 = 0x04;
/// i8042: pulse output line 0, the CPU's reset.
const PULSE_RESET: u8 = 0xfe;
const A20_OPEN: u8 = 0x02;
const FAST_RESET: u8 = 0x01;
