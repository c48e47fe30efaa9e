//! When the clock's interrupts come: the alarm's next time of day, the next period of the divider. Pure.

/// A time of day; a part that is none matches any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alarm {
    pub(super) hour: Option<u8>,
    pub(super) minute: Option<u8>,
    pub(super) second: Option<u8>,
}

impl Alarm {
    /// How many seconds after `now`, at least 1, the time of day is the alarm's; never for one that no day has.
    pub(super) fn seconds_after(self, now: i64) -> Option<u32> {
        let first = now.rem_euclid(DAY) as u32 + 1;
        // From the next second to the end of the day, then the same day up to now.
        self.first_in(first)
            .or_else(|| self.first_in(0).map(|at| at + DAY as u32))
            .map(|at| at + 1 - first)
    }

    /// The first matching second of the day from `from` on.
    fn first_in(self, from: u32) -> Option<u32> {
        let is = |part: Option<u8>, value: u32| part.is_none_or(|part| u32::from(part) == value);
        let minutes = from / 60..(DAY as u32) / 60;
        let mut matching =
            minutes.filter(|minute| is(self.hour, minute / 60) && is(self.minute, minute % 60));
        matching.find_map(|minute| {
            let start = if minute == from / 60 { from % 60 } else { 0 };
            (start..60)
                .find(|second| is(self.second, *second))
                .map(|second| minute * 60 + second)
        })
    }
}

/// Periods of the divider's output that have ended at `now`, in nanoseconds since the start; 0 at rate 0, which is off.
pub(super) fn periods(rate: u8, now: u128) -> u128 {
    shift(rate).map_or(0, |shift| (now * HERTZ / NANOSECONDS) >> shift)
}

/// When the next one ends.
pub(super) fn next_period(rate: u8, now: u128) -> Option<u128> {
    let shift = shift(rate)?;
    let next = (periods(rate, now) + 1) << shift;
    Some((next * NANOSECONDS).div_ceil(HERTZ))
}

/// 32,768 Hz are halved so often (MC146818A, table 5): rates 1 and 2 are those of 8 and 9.
fn shift(rate: u8) -> Option<u32> {
    match rate {
        0 => None,
        1 | 2 => Some(u32::from(rate) + 6),
        rate => Some(u32::from(rate) - 1),
    }
}

const DAY: i64 = 86_400;
const HERTZ: u128 = 32_768;
const NANOSECONDS: u128 = 1_000_000_000;
