//! The clock's interrupts as `rtc_cmos` uses them: alarm, update ended, periodic; and the clock's offset, which outlives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use pellucid_chipset::Rtc;
use pellucid_partition::PioHandler;
use proptest::prelude::*;

/// A clock, its host's time in nanoseconds, and what it told.
struct Bench {
    rtc: Rtc,
    host: Arc<AtomicU64>,
    edges: Arc<AtomicU64>,
    sooner: Arc<AtomicU64>,
    set: Arc<AtomicI64>,
}

impl Bench {
    fn at(seconds: u64) -> Self {
        let counter = || Arc::new(AtomicU64::new(0));
        let (host, edges, sooner) = (Arc::new(AtomicU64::new(seconds * SECOND)), counter(), counter());
        let set = Arc::new(AtomicI64::new(i64::MIN));
        let (now, rises, news, told) = (
            Arc::clone(&host),
            Arc::clone(&edges),
            Arc::clone(&sooner),
            Arc::clone(&set),
        );
        let rtc = Rtc::with_clock(move || {
            SystemTime::UNIX_EPOCH + Duration::from_nanos(now.load(Ordering::Relaxed))
        })
        .on_interrupt(move || {
            rises.fetch_add(1, Ordering::Relaxed);
        })
        .on_sooner(move || {
            news.fetch_add(1, Ordering::Relaxed);
        })
        .on_set(move |offset| told.store(offset, Ordering::Relaxed));
        Self {
            rtc,
            host,
            edges,
            sooner,
            set,
        }
    }

    fn read(&self, index: u8) -> u8 {
        self.rtc.write(0, &[index]);
        let mut data = [0];
        self.rtc.read(1, &mut data);
        data[0]
    }

    fn write(&self, index: u8, value: u8) {
        self.rtc.write(0, &[index]);
        self.rtc.write(1, &[value]);
    }

    fn edges(&self) -> u64 {
        self.edges.swap(0, Ordering::Relaxed)
    }

    /// Sleeps as an owner does, and ticks.
    fn sleep(&self) -> Option<Duration> {
        let due = self.rtc.until_due()?;
        self.host.fetch_add(due.as_nanos() as u64, Ordering::Relaxed);
        self.rtc.tick();
        Some(due)
    }

    fn alarm_at(&self, [hour, minute, second]: [u8; 3]) {
        for (index, value) in [(5, hour), (3, minute), (1, second)] {
            self.write(index, value);
        }
        self.read(C);
        self.write(B, 0x22);
    }
}

const SECOND: u64 = 1_000_000_000;
/// 2024-02-29 23:59:58 UTC.
const LEAP_DAY: u64 = 1_709_251_198;
const A: u8 = 0x0a;
const B: u8 = 0x0b;
const C: u8 = 0x0c;

#[test]
fn an_alarm_comes_when_its_time_of_day_does() {
    let bench = Bench::at(LEAP_DAY);
    assert_eq!(bench.rtc.until_due(), None);
    bench.alarm_at([0x00, 0x00, 0x05]);
    assert_eq!(bench.sooner.load(Ordering::Relaxed), 1);
    assert_eq!(bench.sleep(), Some(Duration::from_secs(7)));
    assert_eq!(bench.edges(), 1);
    assert_eq!(
        bench.rtc.until_due(),
        None,
        "nothing new until the guest has looked"
    );
    assert_eq!((bench.read(C), bench.read(C)), (0xf0, 0x00));
    assert_eq!(
        bench.rtc.until_due(),
        Some(Duration::from_secs(60)),
        "tomorrow; looked at each minute"
    );
    bench.sleep();
    assert_eq!(bench.edges(), 0);
}

#[test]
fn parts_of_an_alarm_that_match_any_bring_it_again() {
    let bench = Bench::at(LEAP_DAY);
    bench.alarm_at([0xff, 0xc0, 0x30]);
    let waits: Vec<_> = (0..3)
        .map(|_| {
            let wait = bench.sleep().map(|wait| wait.as_secs());
            bench.read(C);
            (wait, bench.edges())
        })
        .collect();
    assert_eq!(waits, [(Some(32), 1), (Some(60), 1), (Some(60), 1)]);
}

#[test]
fn a_time_that_no_day_has_never_comes() {
    let bench = Bench::at(LEAP_DAY);
    for alarm in [[0x24, 0, 0], [0, 0x60, 0], [0, 0, 0x7f], [0x99, 0xff, 0xff]] {
        bench.alarm_at(alarm);
        assert_eq!(bench.rtc.until_due(), None, "{alarm:x?}");
    }
}

#[test]
fn an_afternoon_alarm_of_a_twelve_hour_clock_is_one() {
    let bench = Bench::at(LEAP_DAY);
    bench.write(B, 0x00);
    for (index, value) in [(5, 0x91), (3, 0x59), (1, 0x59)] {
        bench.write(index, value);
    }
    bench.write(B, 0x20);
    assert_eq!(bench.sleep(), Some(Duration::from_secs(1)));
    assert_eq!(bench.edges(), 1);
}

#[test]
fn every_second_that_ends_is_told_when_asked_for() {
    let bench = Bench::at(LEAP_DAY);
    bench.host.fetch_add(SECOND / 4, Ordering::Relaxed);
    bench.write(B, 0x12);
    assert_eq!(bench.sleep(), Some(Duration::from_millis(750)));
    assert_eq!((bench.edges(), bench.read(C)), (1, 0xd0));
    assert_eq!(bench.sleep(), Some(Duration::from_secs(1)));
    assert_eq!(bench.edges(), 1);
    // Held, it does not end.
    bench.read(C);
    bench.write(B, 0x92);
    assert_eq!((bench.read(B), bench.rtc.until_due()), (0x92, None));
}

#[test]
fn periodic_interrupts_have_the_rate_of_register_a() {
    let bench = Bench::at(LEAP_DAY);
    for (rate, hertz) in [(6, 1024), (15, 2), (3, 8192), (1, 256), (2, 128)] {
        bench.write(A, 0x20 | rate);
        bench.write(B, 0x42);
        bench.read(C);
        bench.edges();
        let start = bench.host.load(Ordering::Relaxed);
        for _ in 0..hertz {
            bench.sleep().unwrap_or_else(|| panic!("rate {rate}"));
            assert_eq!(bench.read(C) & 0xc0, 0xc0, "rate {rate}");
        }
        assert_eq!(bench.edges(), hertz, "rate {rate}");
        let passed = bench.host.load(Ordering::Relaxed) - start;
        assert!(
            passed.abs_diff(SECOND) < 2 * SECOND / hertz,
            "rate {rate}: {passed}"
        );
        bench.write(B, 0x02);
    }
    bench.write(A, 0x20);
    bench.write(B, 0x42);
    assert_eq!(bench.rtc.until_due(), None, "rate 0 is off");
}

#[test]
fn a_guest_that_does_not_look_costs_one_interrupt() {
    let bench = Bench::at(LEAP_DAY);
    bench.write(A, 0x23);
    bench.write(B, 0x72);
    for _ in 0..1000 {
        bench.host.fetch_add(SECOND / 100, Ordering::Relaxed);
        bench.rtc.tick();
    }
    assert_eq!(bench.edges(), 1);
    assert_eq!(bench.rtc.until_due(), None);
}

#[test]
fn a_flag_that_is_enabled_late_interrupts_at_once() {
    let bench = Bench::at(LEAP_DAY);
    bench.host.fetch_add(SECOND, Ordering::Relaxed);
    bench.write(B, 0x12);
    assert_eq!(bench.edges(), 1);
}

#[test]
fn an_offset_that_the_guest_set_is_told_and_given_back() {
    let bench = Bench::at(LEAP_DAY);
    bench.write(4, 0x21);
    assert_eq!(
        (bench.rtc.offset(), bench.set.load(Ordering::Relaxed)),
        (-7200, -7200)
    );
    let next = Bench::at(LEAP_DAY + 60);
    let next = Bench {
        rtc: next.rtc.with_offset(-7200),
        ..next
    };
    assert_eq!([4, 2, 0].map(|index| next.read(index)), [0x22, 0x00, 0x58]);
    assert_eq!(
        next.set.load(Ordering::Relaxed),
        i64::MIN,
        "only the guest sets it"
    );
    assert_eq!(Rtc::new().with_offset(i64::MAX).offset(), 253_402_300_799);
}

#[test]
fn a_host_whose_clock_is_set_back_has_nothing_happen() {
    let bench = Bench::at(LEAP_DAY);
    bench.alarm_at([0x00, 0x00, 0x00]);
    bench.host.store((LEAP_DAY - 3600) * SECOND, Ordering::Relaxed);
    bench.rtc.tick();
    assert_eq!(bench.edges(), 0);
    assert_eq!(bench.rtc.until_due(), Some(Duration::from_secs(60)));
    bench.host.store((LEAP_DAY + 3) * SECOND, Ordering::Relaxed);
    bench.rtc.tick();
    assert_eq!(bench.edges(), 1, "and one that is set on has its alarm");
}

proptest! {
    /// Against the plain definition: second by second.
    #[test]
    fn the_next_alarm_is_the_first_second_that_matches(
        now in 0u64..200_000, hour in 0u8..26, minute in 0u8..62, second in 0u8..62, any in 0u8..8,
    ) {
        let bench = Bench::at(now);
        bench.write(B, 0x06);
        let part = |bit: u8, value: u8| if any & bit != 0 { 0xff } else { value };
        for (index, value) in [(5, part(1, hour)), (3, part(2, minute)), (1, part(4, second))] {
            bench.write(index, value);
        }
        bench.write(B, 0x26);
        let matches = |at: u64| {
            let of_day = at % 86_400;
            let is = |bit: u8, value: u8, of: u64| any & bit != 0 || u64::from(value) == of;
            is(1, hour, of_day / 3600) && is(2, minute, of_day / 60 % 60) && is(4, second, of_day % 60)
        };
        let expected = (now + 1..=now + 86_400).find(|at| matches(*at)).map(|at| (at - now).min(60));
        prop_assert_eq!(bench.rtc.until_due().map(|due| due.as_secs()), expected);
    }

    /// The line rises only for what is enabled, and the owner is always told early enough.
    #[test]
    fn nothing_that_is_enabled_is_slept_through(
        steps in prop::collection::vec((any::<bool>(), 0u8..14, any::<u8>(), 0u64..3_000), 1..200),
    ) {
        let bench = Bench::at(LEAP_DAY);
        let mut wake: Option<u64> = None;
        for (is_write, index, value, milliseconds) in steps {
            let now = bench.host.fetch_add(milliseconds * 1_000_000, Ordering::Relaxed) + milliseconds * 1_000_000;
            if wake.is_some_and(|at| at <= now) {
                bench.rtc.tick();
            }
            match is_write {
                true => bench.write(index, value),
                false => drop(bench.read(index)),
            }
            // Sleeps on, unless it was told that less is left.
            let told = bench.sooner.swap(0, Ordering::Relaxed) > 0;
            let due = bench.rtc.until_due().map(|due| now + due.as_nanos() as u64);
            prop_assert!(told || due.is_none_or(|due| wake.is_some_and(|at| at <= due)) , "{:?} {:?}", due, wake);
            wake = due;
        }
    }
}
