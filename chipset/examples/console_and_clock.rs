//! A serial port and a real-time clock without a virtual machine: this program is the guest, and reads and writes their ports.
//!
//! `cargo run -p pellucid-chipset --example console_and_clock` prints the time through the emulated serial port, then what
//! comes in on it.

use std::error::Error;
use std::io;
use std::sync::Arc;

use pellucid_chipset::{Rtc, Serial};
use pellucid_partition::{LastHit, PioBus};

const COM1: u16 = 0x3f8;
const RTC: u16 = 0x70;

/// What a guest's `in` and `out` instructions arrive at.
struct Guest {
    bus: Arc<PioBus>,
    hit: LastHit<dyn pellucid_partition::PioHandler>,
}

impl Guest {
    fn outb(&mut self, port: u16, value: u8) {
        self.bus.write(&mut self.hit, port, &[value]);
    }

    fn inb(&mut self, port: u16) -> u8 {
        let mut data = [0];
        self.bus.read(&mut self.hit, port, &mut data);
        data[0]
    }

    fn print(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.outb(COM1, byte));
    }

    fn clock(&mut self, register: u8) -> u8 {
        self.outb(RTC, register);
        self.inb(RTC + 1)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let bus = Arc::new(PioBus::new());
    let serial = Arc::new(Serial::new(|| (), Box::new(io::stdout())));
    let _serial_ports = bus.insert(
        COM1.into(),
        Serial::PORTS,
        "serial port",
        Arc::clone(&serial) as _,
    )?;
    let _clock_ports = bus.insert(RTC.into(), Rtc::PORTS, "real-time clock", Arc::new(Rtc::new()))?;
    let mut guest = Guest {
        bus: Arc::clone(&bus),
        hit: LastHit::new(),
    };

    // The registers are in BCD, so hexadecimal shows them as they are meant.
    let [century, year, month, day, hour, minute, second] =
        [0x32, 9, 8, 7, 4, 2, 0].map(|at| guest.clock(at));
    guest.print(&format!(
        "{century:02x}{year:02x}-{month:02x}-{day:02x} {hour:02x}:{minute:02x}:{second:02x} UTC\n"
    ));

    guest.outb(COM1 + 2, 0x01); // FIFOs on
    let taken = serial.receive(b"typed at the console\n");
    guest.print(&format!("{taken} bytes fit in the receiver: "));
    while guest.inb(COM1 + 5) & 1 != 0 {
        let byte = guest.inb(COM1);
        guest.outb(COM1, byte);
    }
    guest.print("\n");
    for range in bus.counts() {
        guest.print(&format!(
            "{}: {} reads, {} writes\n",
            range.name, range.reads, range.writes
        ));
    }
    Ok(())
}
