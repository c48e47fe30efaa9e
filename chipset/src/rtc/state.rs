//! The clock's registers, without time of their own: the caller says what time the host has.

use super::clock::{Civil, Format};
use super::interrupts::{self, Alarm};

/// The host's time: nanoseconds since the start of 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostTime(pub(super) u128);

impl HostTime {
    pub(super) fn seconds(self) -> i64 {
        // The caller sees to it that the time is before the year 10000.
        (self.0 / NANOSECONDS) as i64
    }
}

pub(super) struct State {
    pub(super) index: u8,
    /// All 128 bytes; those of the time count only while register B's SET bit holds the clock.
    bytes: [u8; 128],
    /// The guest's clock less the host's, in seconds.
    offset: i64,
    /// Register C, but for the bit that sums it up.
    flags: u8,
    /// The time up to which the flags are complete.
    seen: HostTime,
    /// The interrupt line: an enabled flag is set.
    line: bool,
}

impl State {
    pub(super) fn new(offset: i64, now: HostTime) -> Self {
        let mut bytes = [0; 128];
        bytes[REGISTER_A] = A_DIVIDER_32768 | A_RATE_1024;
        bytes[REGISTER_B] = B_24_HOURS;
        Self {
            index: 0,
            bytes,
            offset,
            flags: 0,
            seen: now,
            line: false,
        }
    }

    pub(super) fn offset(&self) -> i64 {
        self.offset
    }

    pub(super) fn shift(&mut self, offset: i64) {
        self.offset = offset;
    }

    /// Presets a battery-backed byte; others are left alone.
    pub(super) fn preset(&mut self, index: u8, value: u8) {
        let at = usize::from(index);
        if (FIRST_KEPT..128).contains(&at) && at != CENTURY {
            self.bytes[at] = value;
        }
    }

    pub(super) fn read_data(&mut self, now: HostTime) -> u8 {
        match usize::from(self.index) {
            REGISTER_A => self.bytes[REGISTER_A] | self.update_in_progress(now),
            REGISTER_C => self.take_flags(),
            REGISTER_D => D_VALID_RAM_AND_TIME,
            at if is_time(at) && !self.is_held() => self.time_byte(at, now.seconds()),
            at => self.bytes[at],
        }
    }

    pub(super) fn write_data(&mut self, value: u8, now: HostTime) {
        let host = now.seconds();
        match usize::from(self.index) {
            REGISTER_A => self.bytes[REGISTER_A] = value & 0x7f,
            REGISTER_B => self.write_register_b(value, host),
            REGISTER_C | REGISTER_D => {}
            at if is_time(at) && !self.is_held() => {
                self.latch(host);
                self.bytes[at] = value;
                self.adopt(host);
            }
            at => self.bytes[at] = value,
        }
    }

    /// Sets the flags of what has happened until `now`. A host whose clock was set back has nothing happen.
    pub(super) fn catch_up(&mut self, now: HostTime) {
        let before = std::mem::replace(&mut self.seen, now);
        if now <= before {
            return;
        }
        if interrupts::periods(self.rate(), now.0) != interrupts::periods(self.rate(), before.0) {
            self.flags |= C_PERIODIC;
        }
        if self.is_held() || now.seconds() == before.seconds() {
            return;
        }
        self.flags |= C_UPDATED;
        if self.next_alarm(before).is_some_and(|at| at <= now) {
            self.flags |= C_ALARM;
        }
    }

    /// Derives the interrupt line; whether it rose.
    pub(super) fn settle(&mut self) -> bool {
        let line = self.flags & self.bytes[REGISTER_B] & INTERRUPTS != 0;
        let before = std::mem::replace(&mut self.line, line);
        line && !before
    }

    /// When the line will rise next if the guest does nothing; never while it is high.
    pub(super) fn due(&self, now: HostTime) -> Option<HostTime> {
        let enabled = self.bytes[REGISTER_B] & INTERRUPTS;
        if enabled == 0 || self.line {
            return None;
        }
        let periodic = (enabled & C_PERIODIC != 0)
            .then(|| interrupts::next_period(self.rate(), now.0))
            .flatten();
        let update = enabled & C_UPDATED != 0 && !self.is_held();
        let update = update.then(|| (now.0 / NANOSECONDS + 1) * NANOSECONDS);
        let alarm = enabled & C_ALARM != 0 && !self.is_held();
        let alarm = alarm.then(|| self.next_alarm(now)).flatten();
        let times = [periodic.map(HostTime), update.map(HostTime), alarm];
        times.into_iter().flatten().min()
    }

    /// When the guest's clock, after `now`, next shows the time of the alarm.
    fn next_alarm(&self, now: HostTime) -> Option<HostTime> {
        let format = self.format();
        let part = |at: usize, decode: &dyn Fn(u8) -> u8| match self.bytes[at] {
            any if any & ALARM_ANY == ALARM_ANY => None,
            value => Some(decode(value)),
        };
        let alarm = Alarm {
            hour: part(ALARM_HOURS, &|value| format.decode_hour(value)),
            minute: part(ALARM_MINUTES, &|value| format.decode(value)),
            second: part(ALARM_SECONDS, &|value| format.decode(value)),
        };
        let shown = now.seconds().saturating_add(self.offset);
        let ahead = alarm.seconds_after(shown)?;
        Some(HostTime((now.0 / NANOSECONDS + u128::from(ahead)) * NANOSECONDS))
    }

    fn rate(&self) -> u8 {
        self.bytes[REGISTER_A] & A_RATE
    }

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
    fn update_in_progress(&self, now: HostTime) -> u8 {
        match !self.is_held() && now.0 % NANOSECONDS >= NANOSECONDS - UPDATE_WARNING {
            true => A_UPDATE_IN_PROGRESS,
            false => 0,
        }
    }

    /// Register C, which reading clears.
    fn take_flags(&mut self) -> u8 {
        let asserted = self.flags & self.bytes[REGISTER_B] & INTERRUPTS != 0;
        std::mem::take(&mut self.flags) | if asserted { C_INTERRUPT } else { 0 }
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

const SECONDS: usize = 0x00;
const ALARM_SECONDS: usize = 0x01;
const MINUTES: usize = 0x02;
const ALARM_MINUTES: usize = 0x03;
const HOURS: usize = 0x04;
const ALARM_HOURS: usize = 0x05;
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
const C_INTERRUPT: u8 = 0x80;
const C_PERIODIC: u8 = 0x40;
const C_ALARM: u8 = 0x20;
const C_UPDATED: u8 = 0x10;
/// The flags of register C; register B enables each at the same bit.
const INTERRUPTS: u8 = C_PERIODIC | C_ALARM | C_UPDATED;
/// Both bits set: that part of the alarm matches any.
const ALARM_ANY: u8 = 0xc0;
const D_VALID_RAM_AND_TIME: u8 = 0x80;
/// Motorola MC146818A: the bit rises 244 microseconds before the update.
const UPDATE_WARNING: u128 = 244_000;
const NANOSECONDS: u128 = 1_000_000_000;
