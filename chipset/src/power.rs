//! The ACPI power management block: PM1a event and control, and the PM timer (ICH9 layout, ACPI 6.5 section 4.8).
//!
//! The board is always in ACPI mode (SCI_EN reads 1) and knows one sleep state, S5: any SLP_EN switches it off.
//! The timer is computed when read. Its carry raises the SCI when the guest accesses the block and when its owner calls
//! [`AcpiPm::tick`], which it does when [`AcpiPm::until_due`] has passed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pellucid_partition::PioHandler;

use crate::event::{BoardEvent, EventSink};
use crate::ports::write_bytes;

/// The PM block: 128 ports from PMBASE, of which event, control and timer exist and the rest reads 0.
pub struct AcpiPm {
    state: Mutex<State>,
    sci: Box<dyn Fn(SciLevel) + Send + Sync>,
    events: EventSink,
    elapsed: Box<dyn Fn() -> Duration + Send + Sync>,
    sooner: Box<dyn Fn() + Send + Sync>,
}

/// The level of the system control interrupt's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SciLevel {
    /// An enabled event is pending.
    Asserted,
    /// None is.
    Released,
}

#[derive(Debug, Default)]
struct State {
    status: u16,
    enable: u16,
    control: u16,
    /// The timer's top bit when its status was last cleared.
    carry_seen: bool,
    asserted: bool,
}

impl AcpiPm {
    /// The number of ports it takes.
    pub const PORTS: u64 = 128;

    /// A block that drives `sci` as a level and reports power off to `events`.
    ///
    /// `sci` is called on each change of the level, in order, with the block locked: it must not call back.
    pub fn new(sci: impl Fn(SciLevel) + Send + Sync + 'static, events: EventSink) -> Self {
        let start = Instant::now();
        Self::with_clock(sci, events, move || start.elapsed())
    }

    /// The same with another source of the time since power on.
    pub fn with_clock(
        sci: impl Fn(SciLevel) + Send + Sync + 'static,
        events: EventSink,
        elapsed: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        Self {
            state: Mutex::default(),
            sci: Box::new(sci),
            events,
            elapsed: Box::new(elapsed),
            sooner: Box::new(|| ()),
        }
    }

    /// Has `sooner` called, on a vCPU thread, when the guest enables the timer's interrupt. It must not block.
    #[must_use]
    pub fn on_sooner(mut self, sooner: impl Fn() + Send + Sync + 'static) -> Self {
        self.sooner = Box::new(sooner);
        self
    }

    /// How long until [`AcpiPm::tick`] has something to do: the timer's top bit changes and the guest wants to know.
    #[must_use]
    pub fn until_due(&self) -> Option<Duration> {
        let (state, ticks) = (self.state(), self.ticks());
        if state.enable & TIMER_CARRY == 0 || state.status_at(ticks) & TIMER_CARRY != 0 {
            return None;
        }
        let left = TIMER_TOP - ticks % TIMER_TOP;
        Some(Duration::from_nanos(
            (u64::from(left) * 1_000_000_000).div_ceil(TIMER_HERTZ as u64),
        ))
    }

    /// Raises the SCI if the timer's carry is due.
    pub fn tick(&self) {
        let mut state = self.state();
        self.settle(&mut state);
    }

    /// Presses the sleep button. Guests listen to it if the FADT says that it is there.
    pub fn press_sleep_button(&self) {
        let mut state = self.state();
        state.status |= SLEEP_BUTTON;
        self.settle(&mut state);
    }

    /// Presses the power button: the guest's ACPI driver is asked to shut down.
    ///
    /// The press stays pending until the guest acknowledges it; one made before the guest listens is seen when it
    /// enables the button, unless it clears the status first (as Linux does when it starts).
    pub fn press_power_button(&self) {
        let mut state = self.state();
        state.status |= POWER_BUTTON;
        self.settle(&mut state);
    }

    /// Whether a press has not yet been acknowledged by the guest.
    #[must_use]
    pub fn is_power_button_pending(&self) -> bool {
        self.state().status & POWER_BUTTON != 0
    }

    fn write_byte(&self, offset: u16, value: u8) {
        let mut state = self.state();
        let wide = u16::from(value) << (offset % 2 * 8);
        let lane = 0xff << (offset % 2 * 8);
        match offset & !1 {
            STATUS => {
                state.status &= !wide;
                if wide & TIMER_CARRY != 0 {
                    state.carry_seen = self.ticks() & TIMER_TOP != 0;
                }
            }
            ENABLE => state.enable = (state.enable & !lane | wide) & ENABLES,
            CONTROL => {
                state.control = (state.control & !lane | wide) & CONTROL_KEPT;
                if wide & SLEEP_ENABLE != 0 {
                    let kind = state.control >> 10 & 7;
                    drop(state);
                    tracing::info!(sleep_type = kind, "the guest entered S5");
                    return (self.events)(BoardEvent::PowerOff);
                }
            }
            _ => {}
        }
        self.settle(&mut state);
        let waits = offset < CONTROL && state.enable & TIMER_CARRY != 0;
        drop(state);
        if waits {
            (self.sooner)();
        }
    }

    /// Drives the line to where status and enable say it is.
    fn settle(&self, state: &mut State) {
        let asserted = state.status_at(self.ticks()) & state.enable & ENABLES != 0;
        if asserted != std::mem::replace(&mut state.asserted, asserted) {
            (self.sci)(if asserted {
                SciLevel::Asserted
            } else {
                SciLevel::Released
            });
        }
    }

    /// Ticks of 3.579545 MHz since power on.
    fn ticks(&self) -> u32 {
        ((self.elapsed)().as_nanos().wrapping_mul(TIMER_HERTZ) / 1_000_000_000) as u32 & TIMER_MASK
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first twelve bytes as they stand, all of one moment.
    fn snapshot(&self) -> [u8; 12] {
        let state = self.state();
        let ticks = self.ticks();
        let status = state.status_at(ticks);
        let mut block = [0; 12];
        block[0..2].copy_from_slice(&status.to_le_bytes());
        block[2..4].copy_from_slice(&state.enable.to_le_bytes());
        block[4..6].copy_from_slice(&(state.control | SCI_ENABLED).to_le_bytes());
        block[8..12].copy_from_slice(&ticks.to_le_bytes());
        block
    }
}

impl State {
    /// The status register: what was noted, and whether the timer's top bit changed since that was cleared.
    fn status_at(&self, ticks: u32) -> u16 {
        let carried = (ticks & TIMER_TOP != 0) != self.carry_seen;
        self.status | if carried { TIMER_CARRY } else { 0 }
    }
}

impl PioHandler for AcpiPm {
    fn read(&self, offset: u16, data: &mut [u8]) {
        let block = self.snapshot();
        for (byte, at) in data.iter_mut().zip(usize::from(offset)..) {
            *byte = block.get(at).copied().unwrap_or(0);
        }
    }

    fn write(&self, offset: u16, data: &[u8]) {
        write_bytes(offset, data, |at, value| self.write_byte(at, value));
    }
}

impl std::fmt::Debug for AcpiPm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcpiPm")
            .field("state", &*self.state())
            .finish_non_exhaustive()
    }
}

const STATUS: u16 = 0;
const ENABLE: u16 = 2;
const CONTROL: u16 = 4;
const TIMER_CARRY: u16 = 1;
const POWER_BUTTON: u16 = 1 << 8;
const SLEEP_BUTTON: u16 = 1 << 9;
/// Timer, global lock, power button, sleep button, RTC.
const ENABLES: u16 = 0x0721;
const SCI_ENABLED: u16 = 1;
/// Bus-master reload and the sleep type; SCI_EN is wired to 1 and the two other bits are write-only.
const CONTROL_KEPT: u16 = 0x1c02;
const SLEEP_ENABLE: u16 = 1 << 13;
/// ACPI 6.5 section 4.8.2.1.
const TIMER_HERTZ: u128 = 3_579_545;
/// The ICH9's counter is 24 bits wide: TMR_VAL_EXT in the FADT stays clear.
const TIMER_MASK: u32 = 0x00ff_ffff;
const TIMER_TOP: u32 = 1 << 23;
