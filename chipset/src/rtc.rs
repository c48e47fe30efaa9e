//! The real-time clock: an MC146818 with the host's time (UTC), a century register and battery-backed bytes.
//!
//! Time is computed when it is read, so nothing ticks. Alarms are stored and periodic interrupts are accepted, but
//! no interrupt is ever raised; the flags of register C are computed for guests that poll them.

mod clock;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use pellucid_partition::PioHandler;

use crate::ports::{read_bytes, write_bytes};
use clock::{Civil, Format};

/// An MC146818 at two ports: index and data.
pub struct Rtc {
    state: Mutex<State>,
    now: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

struct State {
    index: u8,
    /// All 128 bytes; those of the time count only while register B's SET bit holds the clock.
    bytes: [u8; 128],
    /// The guest's clock less the host's, in seconds.
    offset: i64,
    /// The guest's second in which register C was last read.
    flags_read_at: i64,
}

impl Rtc {
    /// The number of ports it takes.
    pub const PORTS: u64 = 2;

    /// A clock that shows the host's time.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(SystemTime::now)
    }

    /// A clock that shows the time that `now` returns.
    pub fn with_clock(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        let mut bytes = [0; 128];
        bytes[REGISTER_A] = A_DIVIDER_32768 | A_RATE_1024;
        bytes[REGISTER_B] = B_24_HOURS;
        let (flags_read_at, _) = since_epoch(now());
        let state = State {
            index: 0,
            bytes,
            offset: 0,
            flags_read_at,
        };
        Self {
            state: Mutex::new(state),
            now: Box::new(now),
        }
    }

    /// Presets one battery-backed byte, as firmware of the board would have left it; index 0x0e to 0x7f, the century
    /// (0x32) excepted. Others are left alone.
    #[must_use]
    pub fn with_byte(self, index: u8, value: u8) -> Self {
        let at = usize::from(index);
        if (FIRST_KEPT..128).contains(&at) && at != CENTURY {
            self.state().bytes[at] = value;
        }
        self
    }

    fn read_data(&self) -> u8 {
        let mut state = self.state();
        let (host, nanoseconds) = since_epoch((self.now)());
        match usize::from(state.index) {
            REGISTER_A => state.bytes[REGISTER_A] | state.update_in_progress(nanoseconds),
            REGISTER_C => state.take_flags(host),
            REGISTER_D => D_VALID_RAM_AND_TIME,
            at if is_time(at) && !state.is_held() => state.time_byte(at, host),
            at => state.bytes[at],
        }
    }

    fn write_data(&self, value: u8) {
        let mut state = self.state();
        let (host, _) = since_epoch((self.now)());
        match usize::from(state.index) {
            REGISTER_A => state.bytes[REGISTER_A] = value & 0x7f,
            REGISTER_B => state.write_register_b(value, host),
            REGISTER_C | REGISTER_D => {}
            at if is_time(at) && !state.is_held() => {
                state.latch(host);
                state.bytes[at] = value;
                state.adopt(host);
            }
            at => state.bytes[at] = value,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Rtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        f.debug_struct("Rtc")
            .field("index", &state.index)
            .field("offset", &state.offset)
            .finish_non_exhaustive()
    }
}

impl PioHandler for Rtc {
    fn read(&self, offset: u16, data: &mut [u8]) {
        read_bytes(
            offset,
            data,
            |port| if port == 1 { self.read_data() } else { 0xff },
        );
    }

    fn write(&self, offset: u16, data: &[u8]) {
        write_bytes(offset, data, |port, value| match port {
            // Bit 7 is the NMI mask of the board, which has no NMI source.
            0 => self.state().index = value & 0x7f,
            1 => self.write_data(value),
            _ => {}
        });
    }
}

impl State {
    fn format(&self) -> Format {
        let b = self.bytes[REGISTER_B];
        Format {
            binary: b & B_BINARY != 0,
            hours24: b & B_24_HOURS != 0,
        }
    }

    /// Whether the guest holds the clock to set it.
    fn is_held(&self) -> bool {
        self.bytes[REGISTER_B] & B_SET != 0
    }

    /// The bit that warns of an update within the next 244 microseconds.
    fn update_in_progress(&self, nanoseconds: u32) -> u8 {
        match !self.is_held() && nanoseconds >= 1_000_000_000 - UPDATE_WARNING {
            true => A_UPDATE_IN_PROGRESS,
            false => 0,
        }
    }

    /// Update-ended and periodic flags for what has passed since they were last read.
    fn take_flags(&mut self, host: i64) -> u8 {
        let now = host.saturating_add(self.offset);
        let passed = now != std::mem::replace(&mut self.flags_read_at, now);
        let periodic = self.bytes[REGISTER_A] & A_RATE != 0;
        match (passed && !self.is_held(), periodic) {
            (true, true) => C_UPDATED | C_PERIODIC,
            (true, false) => C_UPDATED,
            (false, _) => 0,
        }
    }

    fn write_register_b(&mut self, value: u8, host: i64) {
        let (was_held, held) = (self.is_held(), value & B_SET != 0);
        if held && !was_held {
            self.latch(host);
        }
        self.bytes[REGISTER_B] = value;
        if was_held && !held {
            self.adopt(host);
        }
    }

    fn time_byte(&self, at: usize, host: i64) -> u8 {
        let civil = Civil::from_seconds(host.saturating_add(self.offset));
        let format = self.format();
        match at {
            SECONDS => format.encode(civil.second),
            MINUTES => format.encode(civil.minute),
            HOURS => format.encode_hour(civil.hour),
            WEEKDAY => format.encode(civil.weekday()),
            DAY => format.encode(civil.day),
            MONTH => format.encode(civil.month),
            YEAR => format.encode(civil.year.rem_euclid(100) as u8),
            _ => format.encode((civil.year.div_euclid(100)).rem_euclid(100) as u8),
        }
    }

    /// Copies the running time into the bytes.
    fn latch(&mut self, host: i64) {
        for at in TIME_REGISTERS {
            self.bytes[at] = self.time_byte(at, host);
        }
    }

    /// Lets the clock run on from the time in the bytes; a date that does not exist is passed over.
    fn adopt(&mut self, host: i64) {
        let format = self.format();
        let number = |at: usize| format.decode(self.bytes[at]);
        let civil = Civil {
            year: i64::from(number(CENTURY)) * 100 + i64::from(number(YEAR)),
            month: number(MONTH),
            day: number(DAY),
            hour: format.decode_hour(self.bytes[HOURS]),
            minute: number(MINUTES),
            second: number(SECONDS),
        };
        if let Some(seconds) = civil.seconds() {
            self.offset = seconds - host;
        }
    }
}

fn is_time(at: usize) -> bool {
    TIME_REGISTERS.contains(&at)
}

/// Whole seconds since 1970 and the nanoseconds beyond; a host before 1970 is taken to be in 1970.
fn since_epoch(now: SystemTime) -> (i64, u32) {
    let passed = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    // Civil time counts in i64; the year 292,277,026,596 is far enough.
    (
        i64::try_from(passed.as_secs())
            .unwrap_or(i64::MAX)
            .min(LAST_SECOND),
        passed.subsec_nanos(),
    )
}

const SECONDS: usize = 0x00;
const MINUTES: usize = 0x02;
const HOURS: usize = 0x04;
const WEEKDAY: usize = 0x06;
const DAY: usize = 0x07;
const MONTH: usize = 0x08;
const YEAR: usize = 0x09;
const REGISTER_A: usize = 0x0a;
const REGISTER_B: usize = 0x0b;
const REGISTER_C: usize = 0x0c;
const REGISTER_D: usize = 0x0d;
const FIRST_KEPT: usize = 0x0e;
/// Where the FADT's CENTURY field says the century is.
const CENTURY: usize = 0x32;
const TIME_REGISTERS: [usize; 8] = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY];

const A_UPDATE_IN_PROGRESS: u8 = 0x80;
const A_DIVIDER_32768: u8 = 0x20;
const A_RATE: u8 = 0x0f;
const A_RATE_1024: u8 = 0x06;
const B_SET: u8 = 0x80;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;
const C_PERIODIC: u8 = 0x40;
const C_UPDATED: u8 = 0x10;
const D_VALID_RAM_AND_TIME: u8 = 0x80;
/// Motorola MC146818A: the bit rises 244 microseconds before the update.
const UPDATE_WARNING: u32 = 244_000;
/// The end of the year 9999, beyond which the registers cannot count.
const LAST_SECOND: i64 = 253_402_300_799;
