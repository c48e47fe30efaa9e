//! The registers of a 16550A (National Semiconductor PC16550D, June 1995), without time and without I/O.
//!
//! Transmission takes no time, so the transmitter is always empty; what a write causes comes back as an `Effect`.

use std::collections::VecDeque;

/// The register machine. Offsets are 0 to 7; everything else belongs to the caller.
#[derive(Debug, Default)]
pub(super) struct Uart {
    divisor: [u8; 2],
    interrupt_enable: u8,
    fifo_control: u8,
    line_control: u8,
    modem_control: u8,
    modem_delta: u8,
    scratch: u8,
    received: VecDeque<u8>,
    overrun: bool,
    transmitter_emptied: bool,
    /// The driver has raised RTS once, so that it means something when it does not.
    requests: bool,
    line: bool,
}

/// What an access asks of the world outside.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Effect {
    /// A byte leaves on the line.
    pub(super) transmit: Option<u8>,
    /// The interrupt line went from low to high.
    pub(super) interrupt: bool,
}

impl Uart {
    pub(super) fn read(&mut self, offset: u16) -> (u8, Effect) {
        let value = match offset {
            DATA | INTERRUPT_ENABLE if self.line_control & LCR_DIVISOR != 0 => {
                self.divisor[usize::from(offset)]
            }
            DATA => self.received.pop_front().unwrap_or(0),
            INTERRUPT_ENABLE => self.interrupt_enable,
            INTERRUPT_ID => self.identify(),
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control,
            LINE_STATUS => self.line_status(),
            MODEM_STATUS => self.lines() | std::mem::take(&mut self.modem_delta),
            SCRATCH => self.scratch,
            _ => 0xff,
        };
        (value, self.settle(None))
    }

    pub(super) fn write(&mut self, offset: u16, value: u8) -> Effect {
        let mut transmit = None;
        match offset {
            DATA | INTERRUPT_ENABLE if self.line_control & LCR_DIVISOR != 0 => {
                self.divisor[usize::from(offset)] = value;
            }
            DATA => transmit = self.send(value),
            INTERRUPT_ENABLE => {
                let newly = value & !self.interrupt_enable;
                self.interrupt_enable = value & 0x0f;
                if newly & IER_TRANSMITTER != 0 {
                    self.transmitter_emptied = true;
                }
            }
            INTERRUPT_ID => self.control_fifo(value),
            LINE_CONTROL => self.line_control = value,
            MODEM_CONTROL => {
                let before = self.lines();
                self.modem_control = value & 0x1f;
                self.requests |= value & (MCR_RTS | MCR_LOOP) == MCR_RTS;
                self.note_modem_change(before);
            }
            SCRATCH => self.scratch = value,
            _ => {}
        }
        self.settle(transmit)
    }

    /// Takes as many of `bytes` as the receiver has room for.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> (usize, Effect) {
        let taken = bytes.len().min(self.room());
        self.received.extend(&bytes[..taken]);
        (taken, self.settle(None))
    }

    /// How many bytes the receiver would take from the line now.
    pub(super) fn room(&self) -> usize {
        match self.is_open() {
            false => 0,
            true => self.depth().saturating_sub(self.received.len()),
        }
    }

    /// Whether the driver has read everything that came in, and more may come.
    pub(super) fn is_drained(&self) -> bool {
        self.received.is_empty() && self.is_open()
    }

    /// A byte for the line; or, looped back, one for the receiver.
    fn send(&mut self, value: u8) -> Option<u8> {
        self.transmitter_emptied = true;
        if !self.is_looped() {
            return Some(value);
        }
        if self.received.len() < self.depth() {
            self.received.push_back(value);
        } else {
            self.overrun = true;
        }
        None
    }

    /// The highest interrupt pending, as the identification register shows it. Reading it acknowledges
    /// only the transmitter's.
    fn identify(&mut self) -> u8 {
        let id = self.pending().unwrap_or(IIR_NONE);
        if id == IIR_TRANSMITTER {
            self.transmitter_emptied = false;
        }
        match self.fifos_enabled() {
            true => id | IIR_FIFOS,
            false => id,
        }
    }

    fn pending(&self) -> Option<u8> {
        let enabled = |bit: u8| self.interrupt_enable & bit != 0;
        if self.overrun && enabled(IER_LINE) {
            Some(IIR_LINE)
        } else if !self.received.is_empty() && enabled(IER_RECEIVED) {
            Some(self.received_id())
        } else if self.transmitter_emptied && enabled(IER_TRANSMITTER) {
            Some(IIR_TRANSMITTER)
        } else if self.modem_delta != 0 && enabled(IER_MODEM) {
            Some(IIR_MODEM)
        } else {
            None
        }
    }

    /// Below the trigger level it is the character timeout, which here comes at once.
    fn received_id(&self) -> u8 {
        let level = [1, 4, 8, 14][usize::from(self.fifo_control >> 6)];
        match self.fifos_enabled() && self.received.len() < level {
            true => IIR_TIMEOUT,
            false => IIR_RECEIVED,
        }
    }

    fn line_status(&mut self) -> u8 {
        let ready = u8::from(!self.received.is_empty());
        let overrun = u8::from(std::mem::take(&mut self.overrun)) << 1;
        LSR_TRANSMITTER_EMPTY | ready | overrun
    }

    fn control_fifo(&mut self, value: u8) {
        let toggled = (value ^ self.fifo_control) & FCR_ENABLE != 0;
        if toggled || value & (FCR_ENABLE | FCR_CLEAR_RECEIVER) == FCR_ENABLE | FCR_CLEAR_RECEIVER {
            self.received.clear();
        }
        // The other bits are only taken together with the enable bit.
        self.fifo_control = if value & FCR_ENABLE == 0 {
            0
        } else {
            value & (FCR_ENABLE | FCR_TRIGGER)
        };
    }

    /// The modem's four lines: all there, or what loopback connects them to.
    fn lines(&self) -> u8 {
        if !self.is_looped() {
            return MSR_CLEAR_TO_SEND | MSR_DATA_SET_READY | MSR_CARRIER;
        }
        let out = self.modem_control;
        (out & 0x02) << 3 | (out & 0x01) << 5 | (out & 0x04) << 4 | (out & 0x08) << 4
    }

    fn note_modem_change(&mut self, before: u8) {
        let changed = (before ^ self.lines()) >> 4;
        let ring_ended = before & MSR_RING != 0;
        let noted = if ring_ended {
            changed
        } else {
            changed & !(MSR_RING >> 4)
        };
        self.modem_delta |= noted;
    }

    /// Derives the interrupt line, which on a PC goes through the OUT2 gate.
    fn settle(&mut self, transmit: Option<u8>) -> Effect {
        let gate = self.modem_control & MCR_OUT2 != 0;
        let line = gate && self.pending().is_some();
        let interrupt = line && !self.line;
        self.line = line;
        Effect { transmit, interrupt }
    }

    /// Whether the other end may send: the line is connected, and a driver that uses RTS holds it up.
    fn is_open(&self) -> bool {
        let held = self.requests && self.modem_control & MCR_RTS == 0;
        !held && !self.is_looped()
    }

    fn is_looped(&self) -> bool {
        self.modem_control & MCR_LOOP != 0
    }

    fn fifos_enabled(&self) -> bool {
        self.fifo_control & FCR_ENABLE != 0
    }

    fn depth(&self) -> usize {
        if self.fifos_enabled() { FIFO_DEPTH } else { 1 }
    }
}

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const INTERRUPT_ID: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const MODEM_STATUS: u16 = 6;
const SCRATCH: u16 = 7;

const IER_RECEIVED: u8 = 0x01;
const IER_TRANSMITTER: u8 = 0x02;
const IER_LINE: u8 = 0x04;
const IER_MODEM: u8 = 0x08;

const IIR_MODEM: u8 = 0x00;
const IIR_NONE: u8 = 0x01;
const IIR_TRANSMITTER: u8 = 0x02;
const IIR_RECEIVED: u8 = 0x04;
const IIR_LINE: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFOS: u8 = 0xc0;

const FCR_ENABLE: u8 = 0x01;
const FCR_CLEAR_RECEIVER: u8 = 0x02;
const FCR_TRIGGER: u8 = 0xc0;

const LCR_DIVISOR: u8 = 0x80;
const MCR_RTS: u8 = 0x02;
const MCR_OUT2: u8 = 0x08;
const MCR_LOOP: u8 = 0x10;
/// Holding and shift register, both always empty.
const LSR_TRANSMITTER_EMPTY: u8 = 0x60;
const MSR_CLEAR_TO_SEND: u8 = 0x10;
const MSR_DATA_SET_READY: u8 = 0x20;
const MSR_RING: u8 = 0x40;
const MSR_CARRIER: u8 = 0x80;

/// Bytes in the receiver's FIFO.
const FIFO_DEPTH: usize = 16;
