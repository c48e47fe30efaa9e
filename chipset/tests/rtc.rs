//! The real-time clock as drivers meet it: the formats, setting it, the update bit, dates that do not exist.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use pellucid_chipset::Rtc;
use pellucid_partition::PioHandler;
use proptest::prelude::*;

/// A clock whose host time the test moves, in nanoseconds since 1970.
struct Bench {
    rtc: Rtc,
    host: Arc<AtomicU64>,
}

impl Bench {
    fn at(seconds: u64) -> Self {
        let host = Arc::new(AtomicU64::new(seconds * SECOND));
        let now = Arc::clone(&host);
        let rtc = Rtc::with_clock(move || {
            SystemTime::UNIX_EPOCH + Duration::from_nanos(now.load(Ordering::Relaxed))
        });
        Self { rtc, host }
    }

    fn pass(&self, nanoseconds: u64) {
        self.host.fetch_add(nanoseconds, Ordering::Relaxed);
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

    /// Century, year, month, day, hours, minutes, seconds, weekday.
    fn time(&self) -> [u8; 8] {
        [0x32, 9, 8, 7, 4, 2, 0, 6].map(|index| self.read(index))
    }

    /// As mc146818_set_time() does it.
    fn set(&self, time: [u8; 7]) {
        let control = self.read(B);
        self.write(B, control | 0x80);
        for (index, value) in [0x32, 9, 8, 7, 4, 2, 0].into_iter().zip(time) {
            self.write(index, value);
        }
        self.write(B, control);
    }
}

const SECOND: u64 = 1_000_000_000;
/// 2024-02-29 23:59:58 UTC, a Thursday.
const LEAP_DAY: u64 = 1_709_251_198;
const A: u8 = 0x0a;
const B: u8 = 0x0b;
const C: u8 = 0x0c;

#[test]
fn the_hosts_time_is_shown_in_bcd_and_rolls_over_a_leap_day() {
    let bench = Bench::at(LEAP_DAY);
    assert_eq!(bench.time(), [0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x58, 5]);
    bench.pass(2 * SECOND);
    assert_eq!(bench.time(), [0x20, 0x24, 0x03, 0x01, 0x00, 0x00, 0x00, 6]);
}

#[test]
fn register_b_chooses_binary_and_twelve_hours() {
    let bench = Bench::at(LEAP_DAY);
    bench.write(B, 0x06);
    assert_eq!(bench.time(), [20, 24, 2, 29, 23, 59, 58, 5]);
    bench.write(B, 0x00);
    assert_eq!(bench.read(4), 0x91, "11 in the afternoon");
    bench.pass(2 * SECOND);
    assert_eq!(bench.read(4), 0x12, "midnight is 12 in the morning");
    bench.pass(12 * 3600 * SECOND);
    assert_eq!(bench.read(4), 0x92, "noon is 12 in the afternoon");
}

#[test]
fn a_time_that_the_guest_sets_runs_on_from_there() {
    let bench = Bench::at(LEAP_DAY);
    bench.set([0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59]);
    assert_eq!(bench.time(), [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59, 6]);
    bench.pass(SECOND);
    assert_eq!(bench.time(), [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 7]);
}

#[test]
fn a_held_clock_stands_still() {
    let bench = Bench::at(LEAP_DAY);
    bench.write(B, 0x82);
    bench.pass(5 * SECOND);
    assert_eq!(bench.read(0), 0x58);
    assert_eq!(bench.read(A) & 0x80, 0, "and never updates");
}

#[test]
fn a_single_register_can_be_set_while_the_clock_runs() {
    let bench = Bench::at(LEAP_DAY);
    bench.write(4, 0x07);
    assert_eq!(bench.time(), [0x20, 0x24, 0x02, 0x29, 0x07, 0x59, 0x58, 5]);
}

#[test]
fn a_date_that_does_not_exist_is_passed_over() {
    let bench = Bench::at(LEAP_DAY);
    for time in [
        [0x20, 0x23, 0x02, 0x29, 0, 0, 0],
        [0xff; 7],
        [0x20, 0x24, 0x13, 0x01, 0, 0, 0],
        [0x20, 0x24, 0x01, 0x00, 0, 0, 0],
    ] {
        bench.set(time);
        assert_eq!(
            bench.time(),
            [0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x58, 5],
            "{time:x?}"
        );
    }
}

#[test]
fn the_update_bit_warns_of_the_last_244_microseconds_of_a_second() {
    let bench = Bench::at(LEAP_DAY);
    bench.pass(SECOND - 244_001);
    assert_eq!(bench.read(A), 0x26);
    bench.pass(1);
    assert_eq!(bench.read(A), 0xa6);
    bench.pass(244_000);
    assert_eq!((bench.read(A), bench.read(0)), (0x26, 0x59));
}

#[test]
fn the_flags_of_register_c_tell_a_polling_guest_once_that_a_second_ended() {
    let bench = Bench::at(LEAP_DAY - 60);
    assert_eq!(bench.read(C), 0);
    bench.pass(SECOND);
    assert_eq!((bench.read(C), bench.read(C)), (0x50, 0));
    bench.write(A, 0x20);
    bench.pass(SECOND);
    assert_eq!(bench.read(C), 0x10, "no periodic rate, no periodic flag");
}

#[test]
fn alarms_and_battery_backed_bytes_are_kept() {
    let bench = Bench::at(LEAP_DAY);
    for index in [1, 3, 5, 0x0e, 0x31, 0x33, 0x7f] {
        bench.write(index, 0xa0 | index & 0x0f);
    }
    for index in [1, 3, 5, 0x0e, 0x31, 0x33, 0x7f] {
        assert_eq!(bench.read(index), 0xa0 | index & 0x0f, "{index:#x}");
    }
    bench.write(0x0d, 0);
    assert_eq!(
        bench.read(0x0d),
        0x80,
        "the battery is good whatever the guest writes"
    );
}

#[test]
fn presets_reach_only_the_battery_backed_bytes() {
    let rtc = Rtc::new()
        .with_byte(0x34, 0x12)
        .with_byte(0x0b, 0xff)
        .with_byte(0x32, 0x99)
        .with_byte(0xff, 1);
    let bench = Bench {
        rtc,
        host: Arc::default(),
    };
    assert_eq!((bench.read(0x34), bench.read(B)), (0x12, 0x02));
    assert_eq!(bench.read(0x32), 0x20);
}

#[test]
fn the_nmi_mask_is_no_part_of_the_index_and_the_index_reads_all_ones() {
    let bench = Bench::at(LEAP_DAY);
    bench.rtc.write(0, &[0x80]);
    let mut data = [0; 4];
    bench.rtc.read(1, &mut data);
    assert_eq!(data, [0x58, 0xff, 0xff, 0xff]);
    bench.rtc.read(0, &mut data[..2]);
    assert_eq!(data[..2], [0xff, 0x58]);
}

#[test]
fn a_word_write_is_an_index_and_its_data() {
    let bench = Bench::at(LEAP_DAY);
    bench.rtc.write(0, &[0x40, 0x77]);
    assert_eq!(bench.read(0x40), 0x77);
}

proptest! {
    #[test]
    fn every_time_that_can_be_shown_can_be_set(seconds in 0u64..253_402_300_800, mode in 0u8..4, host in 0u64..4_000_000_000) {
        let shown = Bench::at(0);
        shown.host.store(0, Ordering::Relaxed);
        // Beyond what nanoseconds in a u64 can count, reach the time by setting it.
        let seconds = seconds % 18_000_000_000;
        let (source, target) = (Bench::at(seconds), Bench::at(host));
        for bench in [&source, &target] {
            bench.write(B, mode << 1);
        }
        let time = source.time();
        target.set(time[..7].try_into().unwrap());
        prop_assert_eq!(target.time(), time);
    }

    #[test]
    fn no_sequence_of_accesses_panics(accesses in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 1..5)), 0..200), host in 0u64..18_000_000_000) {
        let bench = Bench::at(host);
        for (offset, mut data) in accesses {
            bench.rtc.write(offset % 3, &data);
            bench.rtc.read(offset % 3, &mut data);
        }
        bench.rtc.write(u16::MAX, &[1, 2]);
        prop_assert_eq!(bench.read(0x0d), 0x80);
    }
}
