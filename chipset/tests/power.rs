//! ACPI power management and the ways to reset, as Linux's drivers use them.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be built fails its test")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pellucid_chipset::{
    AcpiPm, BoardEvent, DiagnosticPort, EventSink, FastReset, KeyboardReset, ResetRegister, SciLevel,
};
use pellucid_partition::PioHandler;
use proptest::prelude::*;

struct Bench {
    pm: AcpiPm,
    line: Arc<Mutex<Vec<SciLevel>>>,
    events: Events,
    nanoseconds: Arc<AtomicU64>,
}

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<BoardEvent>>>);

impl Events {
    fn sink(&self) -> EventSink {
        let events = Arc::clone(&self.0);
        Arc::new(move |event| events.lock().unwrap().push(event))
    }

    fn take(&self) -> Vec<BoardEvent> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Bench {
    fn new() -> Self {
        let (line, events) = (Arc::new(Mutex::new(Vec::new())), Events::default());
        let nanoseconds = Arc::new(AtomicU64::new(0));
        let (levels, now) = (Arc::clone(&line), Arc::clone(&nanoseconds));
        let pm = AcpiPm::with_clock(
            move |level| levels.lock().unwrap().push(level),
            events.sink(),
            move || Duration::from_nanos(now.load(Ordering::Relaxed)),
        );
        Self {
            pm,
            line,
            events,
            nanoseconds,
        }
    }

    fn read16(&self, offset: u16) -> u16 {
        let mut data = [0; 2];
        self.pm.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    fn write16(&self, offset: u16, value: u16) {
        self.pm.write(offset, &value.to_le_bytes());
    }

    fn timer(&self) -> u32 {
        let mut data = [0; 4];
        self.pm.read(TIMER, &mut data);
        u32::from_le_bytes(data)
    }

    fn line(&self) -> Vec<SciLevel> {
        std::mem::take(&mut self.line.lock().unwrap())
    }
}

const STATUS: u16 = 0;
const ENABLE: u16 = 2;
const CONTROL: u16 = 4;
const TIMER: u16 = 8;
const BUTTON: u16 = 0x100;

#[test]
fn a_press_holds_the_line_until_the_guest_acknowledges_it() {
    let bench = Bench::new();
    bench.write16(ENABLE, BUTTON);
    bench.pm.press_power_button();
    assert_eq!(bench.line(), [SciLevel::Asserted]);
    assert_eq!(bench.read16(STATUS), BUTTON);
    bench.write16(STATUS, BUTTON);
    assert_eq!(bench.line(), [SciLevel::Released]);
    assert!(!bench.pm.is_power_button_pending());
}

#[test]
fn a_press_during_the_handler_is_not_lost() {
    let bench = Bench::new();
    bench.write16(ENABLE, BUTTON);
    bench.pm.press_power_button();
    bench.write16(STATUS, BUTTON);
    bench.pm.press_power_button();
    assert_eq!(
        bench.line(),
        [SciLevel::Asserted, SciLevel::Released, SciLevel::Asserted]
    );
}

#[test]
fn a_press_before_the_guest_listens_is_delivered_when_it_does() {
    let bench = Bench::new();
    bench.pm.press_power_button();
    assert_eq!(bench.line(), []);
    bench.write16(ENABLE, BUTTON);
    assert_eq!(bench.line(), [SciLevel::Asserted]);
    bench.write16(ENABLE, 0);
    assert_eq!(bench.line(), [SciLevel::Released]);
}

#[test]
fn clearing_other_bits_leaves_the_press() {
    let bench = Bench::new();
    bench.write16(ENABLE, BUTTON);
    bench.pm.press_power_button();
    bench.write16(STATUS, !BUTTON);
    bench.pm.write(STATUS, &[0xff]);
    assert!(bench.pm.is_power_button_pending());
    bench.pm.write(STATUS + 1, &[0x01]);
    assert!(!bench.pm.is_power_button_pending());
}

#[test]
fn any_sleep_with_sleep_enable_is_power_off() {
    for sleep_type in 0..8 {
        let bench = Bench::new();
        bench.write16(CONTROL, sleep_type << 10);
        assert_eq!(bench.events.take(), []);
        bench.write16(CONTROL, sleep_type << 10 | 1 << 13);
        assert_eq!(bench.events.take(), [BoardEvent::PowerOff]);
        assert_eq!(
            bench.read16(CONTROL),
            sleep_type << 10 | 1,
            "sleep enable is write-only"
        );
    }
}

#[test]
fn the_board_is_in_acpi_mode_and_cannot_be_taken_out_of_it() {
    let bench = Bench::new();
    assert_eq!(bench.read16(CONTROL), 1);
    bench.write16(CONTROL, 0);
    assert_eq!(bench.read16(CONTROL), 1);
}

#[test]
fn the_timer_counts_3579545_ticks_a_second_and_wraps_at_24_bits() {
    let bench = Bench::new();
    assert_eq!(bench.timer(), 0);
    bench.nanoseconds.store(1_000_000_000, Ordering::Relaxed);
    assert_eq!(bench.timer(), 3_579_545);
    bench.nanoseconds.store(3_600_000_000_000, Ordering::Relaxed);
    assert_eq!(u64::from(bench.timer()), 3_579_545 * 3600 % (1 << 24));
}

#[test]
fn the_timers_carry_is_a_status_that_can_be_cleared() {
    let bench = Bench::new();
    bench.nanoseconds.store(2_343_000_000, Ordering::Relaxed);
    assert_eq!((bench.timer() >> 23, bench.read16(STATUS)), (0, 0));
    bench.nanoseconds.store(2_344_000_000, Ordering::Relaxed);
    assert_eq!((bench.timer() >> 23, bench.read16(STATUS)), (1, 1));
    bench.write16(STATUS, 1);
    assert_eq!(bench.read16(STATUS), 0);
    bench.nanoseconds.store(4_688_000_000, Ordering::Relaxed);
    assert_eq!(
        (bench.timer() >> 23, bench.read16(STATUS)),
        (0, 1),
        "on the way down too"
    );
}

#[test]
fn the_rest_of_the_block_reads_zero() {
    let bench = Bench::new();
    let mut data = [0xaa; 4];
    for offset in (12..128).step_by(4) {
        bench.pm.write(offset, &[0xff; 4]);
        bench.pm.read(offset, &mut data);
        assert_eq!(data, [0; 4]);
    }
    assert_eq!(bench.events.take(), []);
}

#[test]
fn the_reset_register_resets_with_bit_2_and_keeps_the_kind() {
    let events = Events::default();
    let register = ResetRegister::new(events.sink());
    register.write(0, &[0x02]);
    assert_eq!(events.take(), [], "the kind alone is no reset");
    for value in [0x06, 0x0e] {
        register.write(0, &[value]);
        assert_eq!(events.take(), [BoardEvent::Reset]);
    }
    let mut data = [0; 2];
    register.read(0, &mut data);
    assert_eq!(data, [0x0a, 0xff]);
    register.write(0, &[0x06, 0x06]);
    register.write(1, &[0x06]);
    assert_eq!(events.take(), [], "only one byte at its own port");
}

#[test]
fn linux_finds_no_keyboard_controller_but_can_reset_through_it() {
    let events = Events::default();
    let port = KeyboardReset::new(events.sink());
    // i8042_flush(): a status of all ones has output for ever, so the probe gives up after 17 reads.
    let mut status = [0];
    port.read(0, &mut status);
    assert_eq!(status, [0xff]);
    port.write(0, &[0x20]);
    assert_eq!(events.take(), []);
    port.write(0, &[0xfe]);
    assert_eq!(events.take(), [BoardEvent::Reset]);
}

#[test]
fn port_92_has_the_a20_gate_open_and_resets_with_bit_0() {
    let events = Events::default();
    let port = FastReset::new(events.sink());
    port.write(0, &[0x02]);
    let mut data = [0; 2];
    port.read(0, &mut data);
    assert_eq!((data, events.take()), ([0x02, 0xff], vec![]));
    port.write(0, &[0x03]);
    assert_eq!(events.take(), [BoardEvent::Reset]);
}

#[test]
fn the_diagnostic_port_takes_everything_and_reads_all_ones() {
    let mut data = [0; 4];
    DiagnosticPort.write(0, &[1, 2, 3, 4]);
    DiagnosticPort.read(0, &mut data);
    assert_eq!(data, [0xff; 4]);
}

proptest! {
    #[test]
    fn the_line_is_always_what_status_and_enable_say(steps in prop::collection::vec((0u16..132, prop::collection::vec(any::<u8>(), 1..5), any::<bool>()), 0..200)) {
        let bench = Bench::new();
        let mut level = SciLevel::Released;
        for (offset, mut data, press) in steps {
            bench.pm.write(offset, &data);
            bench.pm.read(offset, &mut data);
            if press {
                bench.pm.press_power_button();
            }
            for next in bench.line() {
                prop_assert_ne!(next, level, "only changes are told");
                level = next;
            }
            let pending = bench.read16(STATUS) & bench.read16(ENABLE) & BUTTON != 0;
            prop_assert_eq!(level == SciLevel::Asserted, pending);
        }
    }

    #[test]
    fn a_reading_of_the_timer_is_of_one_moment(nanoseconds: u64) {
        let bench = Bench::new();
        bench.nanoseconds.store(nanoseconds, Ordering::Relaxed);
        let expected = (u128::from(nanoseconds) * 3_579_545 / 1_000_000_000) as u32 & 0x00ff_ffff;
        prop_assert_eq!(bench.timer(), expected);
        prop_assert_eq!(u32::from(bench.read16(TIMER + 2)), expected >> 16);
    }
}

#[test]
fn the_timers_carry_raises_the_sci_when_it_is_enabled() {
    let bench = Bench::new();
    assert_eq!(bench.pm.until_due(), None);
    bench.write16(ENABLE, 1);
    let half = bench.pm.until_due().unwrap();
    assert!(
        half.as_millis().abs_diff(2343) < 2,
        "2^23 ticks of 3.579545 MHz, not {half:?}"
    );
    let sleep = |left: Duration| {
        bench
            .nanoseconds
            .fetch_add(left.as_nanos() as u64, Ordering::Relaxed);
        bench.pm.tick();
    };
    sleep(half - Duration::from_micros(1));
    assert_eq!(bench.line(), []);
    sleep(bench.pm.until_due().unwrap());
    assert_eq!(
        (bench.line(), bench.read16(STATUS)),
        (vec![SciLevel::Asserted], 1)
    );
    assert_eq!(
        bench.pm.until_due(),
        None,
        "nothing new until the guest has looked"
    );
    bench.write16(STATUS, 1);
    assert_eq!(bench.line(), [SciLevel::Released]);
    sleep(bench.pm.until_due().unwrap());
    assert_eq!(
        bench.line(),
        [SciLevel::Asserted],
        "once more when the top bit falls"
    );
}

#[test]
fn a_carry_that_nobody_waits_for_is_told_when_somebody_does() {
    let bench = Bench::new();
    bench.nanoseconds.store(2_400_000_000, Ordering::Relaxed);
    bench.pm.tick();
    assert_eq!(bench.line(), []);
    bench.write16(ENABLE, 1);
    assert_eq!(bench.line(), [SciLevel::Asserted]);
}

#[test]
fn the_owner_is_woken_for_the_timer_and_for_nothing_else() {
    let woken = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&woken);
    let pm = AcpiPm::with_clock(|_| (), Events::default().sink(), || Duration::ZERO).on_sooner(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let woken = |offset: u16, value: u16| {
        pm.write(offset, &value.to_le_bytes());
        woken.swap(0, Ordering::Relaxed) > 0
    };
    assert!(!woken(ENABLE, BUTTON) && !woken(STATUS, 0xffff) && !woken(CONTROL, 0x1c00));
    assert!(woken(ENABLE, 1) && woken(STATUS, 1));
}

#[test]
fn the_sleep_button_is_like_the_power_button() {
    let bench = Bench::new();
    bench.write16(ENABLE, 0x200);
    bench.pm.press_sleep_button();
    assert_eq!(
        (bench.line(), bench.read16(STATUS)),
        (vec![SciLevel::Asserted], 0x200)
    );
    bench.write16(STATUS, 0x200);
    assert_eq!(bench.line(), [SciLevel::Released]);
    assert!(!bench.pm.is_power_button_pending());
}
