//! The real-time clock: an MC146818 with the host's time (UTC), a century register and battery-backed bytes.
//!
//! Time is computed when it is read, so nothing ticks. Interrupts (alarm, update ended, periodic) are raised when the guest
//! accesses the clock and when its owner calls [`Rtc::tick`], which it does when [`Rtc::until_due`] has passed.

mod clock;
mod interrupts;
mod state;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use pellucid_partition::PioHandler;

use crate::ports::{read_bytes, write_bytes};
use state::{HostTime, State};

/// An MC146818 at two ports: index and data.
pub struct Rtc {
    clock: Mutex<Clock>,
    now: Box<dyn Fn() -> SystemTime + Send + Sync>,
    interrupt: Box<dyn Fn() + Send + Sync>,
    sooner: Box<dyn Fn() + Send + Sync>,
    on_set: Box<dyn Fn(i64) + Send + Sync>,
}

struct Clock {
    state: State,
    /// What [`Rtc::until_due`] said last.
    told: Option<HostTime>,
}

/// What an access asks of the world outside.
struct Effect {
    interrupt: bool,
    sooner: bool,
    set: Option<i64>,
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
        let state = State::new(0, host_time(now()));
        Self {
            clock: Mutex::new(Clock { state, told: None }),
            now: Box::new(now),
            interrupt: Box::new(|| ()),
            sooner: Box::new(|| ()),
            on_set: Box::new(|_| ()),
        }
    }

    /// Lets the clock be `seconds` ahead of the host's.
    #[must_use]
    pub fn with_offset(self, seconds: i64) -> Self {
        self.clock().state.shift(seconds.clamp(-LAST_SECOND, LAST_SECOND));
        self
    }

    /// Presets one battery-backed byte, as firmware of the board would have left it; index 0x0e to 0x7f, the century
    /// (0x32) excepted. Others are left alone.
    #[must_use]
    pub fn with_byte(self, index: u8, value: u8) -> Self {
        self.clock().state.preset(index, value);
        self
    }

    /// Has `interrupt` called for each rising edge of the line.
    #[must_use]
    pub fn on_interrupt(mut self, interrupt: impl Fn() + Send + Sync + 'static) -> Self {
        self.interrupt = Box::new(interrupt);
        self
    }

    /// Has `sooner` called, on a vCPU thread, when [`Rtc::until_due`] would now say less than it did. It must not block.
    #[must_use]
    pub fn on_sooner(mut self, sooner: impl Fn() + Send + Sync + 'static) -> Self {
        self.sooner = Box::new(sooner);
        self
    }

    /// Has `on_set` called, on a vCPU thread, with the new offset when the guest has set the clock. It must not block.
    #[must_use]
    pub fn on_set(mut self, on_set: impl Fn(i64) + Send + Sync + 'static) -> Self {
        self.on_set = Box::new(on_set);
        self
    }

    /// How many seconds the guest's clock is ahead of the host's.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.clock().state.offset()
    }

    /// How long until [`Rtc::tick`] has something to do; `None` until the guest does something. Alarms follow the host's clock, which
    /// can be set: one that is far off is looked at again every minute.
    #[must_use]
    pub fn until_due(&self) -> Option<Duration> {
        let mut clock = self.clock();
        let now = host_time((self.now)());
        clock.told = clock.state.due(now);
        let nanoseconds = clock.told?.0.saturating_sub(now.0);
        let exact = u64::try_from(nanoseconds).map_or(LOOK_AGAIN, Duration::from_nanos);
        Some(exact.min(LOOK_AGAIN))
    }

    /// Raises the interrupts that are due.
    pub fn tick(&self) {
        self.access(|_, _| ());
    }

    /// Makes an access at the host's present time, then, unlocked, does what it asks for.
    fn access<T>(&self, access: impl FnOnce(&mut State, HostTime) -> T) -> T {
        let (result, effect) = {
            let mut clock = self.clock();
            let now = host_time((self.now)());
            let before = clock.state.offset();
            clock.state.catch_up(now);
            let result = access(&mut clock.state, now);
            let interrupt = clock.state.settle();
            let due = clock.state.due(now);
            let sooner = due.is_some_and(|due| clock.told.is_none_or(|told| due < told));
            if sooner {
                clock.told = due;
            }
            let set = Some(clock.state.offset()).filter(|offset| *offset != before);
            let effect = Effect {
                interrupt,
                sooner,
                set,
            };
            (result, effect)
        };
        if effect.interrupt {
            (self.interrupt)();
        }
        if effect.sooner {
            (self.sooner)();
        }
        if let Some(offset) = effect.set {
            (self.on_set)(offset);
        }
        result
    }

    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Rtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let clock = self.clock();
        f.debug_struct("Rtc")
            .field("index", &clock.state.index)
            .field("offset", &clock.state.offset())
            .finish_non_exhaustive()
    }
}

impl PioHandler for Rtc {
    fn read(&self, offset: u16, data: &mut [u8]) {
        read_bytes(offset, data, |port| match port {
            1 => self.access(State::read_data),
            _ => 0xff,
        });
    }

    fn write(&self, offset: u16, data: &[u8]) {
        write_bytes(offset, data, |port, value| match port {
            // Bit 7 is the NMI mask of the board, which has no NMI source.
            0 => self.clock().state.index = value & 0x7f,
            1 => self.access(|state, now| state.write_data(value, now)),
            _ => {}
        });
    }
}

/// A host before 1970 is taken to be in 1970, one after 9999 at its end: the registers cannot count further.
fn host_time(now: SystemTime) -> HostTime {
    let passed = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    HostTime(passed.min(Duration::from_secs(LAST_SECOND as u64)).as_nanos())
}

/// The end of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;
const LOOK_AGAIN: Duration = Duration::from_secs(60);
