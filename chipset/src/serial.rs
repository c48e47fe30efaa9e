//! The serial port: a 16550A whose line is a writer on one side and [`Serial::receive`] on the other.
//!
//! Output is written byte by byte as the guest sends it, before the guest is told that it was sent. Input is
//! flow controlled, by the receiver's room and by RTS: nothing is dropped here. There is no timer; the baud rate is kept and means nothing.

mod uart;

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pellucid_partition::PioHandler;

use crate::ports::{read_bytes, write_bytes};
use uart::{Effect, Uart};

/// A 16550A at eight ports.
///
/// A blocked writer blocks the vCPU that sends, as a full line would; input goes on meanwhile.
pub struct Serial {
    port: Mutex<Port>,
    out: Mutex<Box<dyn Write + Send>>,
    lost: AtomicU64,
    interrupt: Box<dyn Fn() + Send + Sync>,
    room: Box<dyn Fn() + Send + Sync>,
}

struct Port {
    uart: Uart,
    /// Input was refused since the receiver was last drained.
    waiting: bool,
}

impl Serial {
    /// The number of ports it takes.
    pub const PORTS: u64 = 8;

    /// A port that calls `interrupt` for each rising edge of its line and sends to `out`.
    pub fn new(interrupt: impl Fn() + Send + Sync + 'static, out: Box<dyn Write + Send>) -> Self {
        let port = Mutex::new(Port {
            uart: Uart::default(),
            waiting: false,
        });
        let (interrupt, room) = (Box::new(interrupt), Box::new(|| ()));
        Self {
            port,
            out: Mutex::new(out),
            lost: AtomicU64::new(0),
            interrupt,
            room,
        }
    }

    /// Has `room` called when the guest has read all input and [`Serial::receive`] had taken less than offered.
    ///
    /// It is called on a vCPU thread and must not block; an eventfd that the input side waits for is usual.
    #[must_use]
    pub fn on_room(mut self, room: impl Fn() + Send + Sync + 'static) -> Self {
        self.room = Box::new(room);
        self
    }

    /// Offers input; returns how many bytes were taken, from the front. Offer the rest again when there is room.
    pub fn receive(&self, bytes: &[u8]) -> usize {
        self.access(|port| {
            let (taken, effect) = port.uart.receive(bytes);
            port.waiting |= taken < bytes.len();
            (taken, effect)
        })
    }

    /// How many bytes [`Serial::receive`] would take now: at most 16, and 0 in loopback or while the guest has lowered RTS.
    #[must_use]
    pub fn room(&self) -> usize {
        self.port().uart.room()
    }

    /// Bytes that the guest sent and the writer refused. The guest never notices.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Makes an access, then, unlocked, does what it asks for in the order a line would: the byte first, then the
    /// interrupt; and tells if input that was refused may be offered again.
    fn access<T>(&self, access: impl FnOnce(&mut Port) -> (T, Effect)) -> T {
        let (result, effect, has_room) = {
            let mut port = self.port();
            let (result, effect) = access(&mut port);
            let has_room = port.waiting && port.uart.is_drained();
            port.waiting &= !has_room;
            (result, effect, has_room)
        };
        if let Some(byte) = effect.transmit {
            self.send(byte);
        }
        if effect.interrupt {
            (self.interrupt)();
        }
        if has_room {
            (self.room)();
        }
        result
    }

    fn send(&self, byte: u8) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(error) = write_through(&mut **out, byte) else {
            return;
        };
        if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(%error, "serial output is being lost: its writer refuses it");
        }
    }

    fn port(&self) -> MutexGuard<'_, Port> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PioHandler for Serial {
    fn read(&self, offset: u16, data: &mut [u8]) {
        read_bytes(offset, data, |register| {
            self.access(|port| port.uart.read(register))
        });
    }

    fn write(&self, offset: u16, data: &[u8]) {
        write_bytes(offset, data, |register, value| {
            self.access(|port| ((), port.uart.write(register, value)));
        });
    }
}

impl std::fmt::Debug for Serial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serial")
            .field("room", &self.room())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

/// One byte, flushed; an interrupted write is taken up again, any other failure is final.
fn write_through(out: &mut dyn Write, byte: u8) -> std::io::Result<()> {
    out.write_all(&[byte])?;
    loop {
        match out.flush() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            flushed => return flushed,
        }
    }
}
