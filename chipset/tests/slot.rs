//! A port's hot-plug slot as a hot-plug driver and a hostile guest find it: orderly removal, surprise, insertion, masked events.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be built fails its test")]

use std::sync::{Arc, Mutex};

use pellucid_chipset::{Indicator, PciConfig, PciError, Placed, Placeholder, PortKind, RootPort, SlotState};
use pellucid_partition::{Bdf, ConfigHandler, MsiMessage};
use proptest::prelude::*;

mod specs;

const LINK_STATUS: u16 = 0x52;
const SLOT_CAPABILITIES: u16 = 0x54;
const CONTROL: u16 = 0x58;
const STATUS: u16 = 0x5a;
const MSI_CONTROL: u16 = 0x92;

const BUTTON: u16 = 1;
const PRESENCE: u16 = 1 << 3;
const OCCUPIED: u16 = 1 << 6;
const LINK: u16 = 1 << 8;
const LINK_ACTIVE: u16 = 1 << 13;

/// Events of button, presence and link, the interrupt, power on with its indicator.
const LISTENING: u16 = 0x1029 | POWER_ON;
const POWER_ON: u16 = 0x0100;
const BLINKING: u16 = 0x0200;
const POWER_OFF: u16 = 0x0400;
const DARK: u16 = 0x0300;

/// A port at 1c.0 with a function in its slot, and what it told.
struct Bench {
    config: Arc<PciConfig>,
    port: Arc<RootPort>,
    messages: Arc<Mutex<Vec<MsiMessage>>>,
    switched: Arc<Mutex<Vec<SlotState>>>,
    _placed: [Placed; 2],
}

impl Bench {
    /// With MSI on and all events wanted, as Linux's pciehp leaves it.
    fn listening() -> Self {
        let bench = Self::new();
        for (offset, value) in [(0x94, 0x10_u16), (0x96, 0xfee0), (0x9c, 0x4041), (MSI_CONTROL, 1)] {
            bench.write(offset, value);
        }
        bench.write(CONTROL, LISTENING);
        bench
    }

    fn new() -> Self {
        let (messages, switched) = (Arc::default(), Arc::<Mutex<Vec<_>>>::default());
        let sent: Arc<Mutex<Vec<_>>> = Arc::clone(&messages);
        let told = Arc::clone(&switched);
        let mut spec = specs::port(1, 1);
        spec.hot_plug = true;
        let port = RootPort::new(&spec).unwrap();
        let port = port.on_interrupt(move |message| sent.lock().unwrap().push(message));
        let port = Arc::new(port.on_slot_switched(move |state| told.lock().unwrap().push(state)));
        let config = Arc::new(PciConfig::new(0));
        let (at, behind): (Bdf, Bdf) = ("00:1c.0".parse().unwrap(), "01:00.0".parse().unwrap());
        let function = Placeholder::new(spec.identity, 0x01_0802);
        let placed = [
            config.place_port(at, Arc::clone(&port)).unwrap(),
            config.place(behind, Arc::new(function)).unwrap(),
        ];
        Self {
            config,
            port,
            messages,
            switched,
            _placed: placed,
        }
    }

    fn read(&self, offset: u16) -> u16 {
        let mut data = [0; 2];
        self.port.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    fn write(&self, offset: u16, value: u16) {
        self.port.write(offset, &value.to_le_bytes());
    }

    /// Whether the function in the slot answers.
    fn answers(&self) -> bool {
        let mut data = [0; 4];
        self.config.read(1, 0, 0, &mut data);
        u32::from_le_bytes(data) == 0x1234_8086
    }

    /// The events that stand, cleared as an interrupt handler does.
    fn events(&self) -> u16 {
        let events = self.read(STATUS) & 0x011f;
        self.write(STATUS, events);
        events
    }

    fn messages(&self) -> usize {
        std::mem::take(&mut *self.messages.lock().unwrap()).len()
    }

    fn state(&self) -> (bool, bool, Indicator) {
        let state = self.port.slot().unwrap();
        (state.occupied, state.powered, state.indicator)
    }

    /// Switches the slot off as pciehp does: blink, power, dark.
    fn switches_off(&self) {
        let kept = LISTENING & !POWER_ON;
        for control in [BLINKING, POWER_OFF | BLINKING, POWER_OFF | DARK] {
            self.write(CONTROL, kept | control);
        }
    }
}

#[test]
fn a_slot_shows_what_it_has_and_that_something_is_in_it() {
    let bench = Bench::new();
    // Slot 5; no command completed, hot-plug with surprise, both indicators, power controller, button.
    let capabilities =
        u32::from(bench.read(SLOT_CAPABILITIES + 2)) << 16 | u32::from(bench.read(SLOT_CAPABILITIES));
    assert_eq!(capabilities, 5 << 19 | 1 << 18 | 0x7b);
    assert_eq!(bench.read(STATUS), OCCUPIED);
    assert_eq!(bench.state(), (true, true, Indicator::On));
    assert!(bench.answers() && bench.read(LINK_STATUS) & LINK_ACTIVE != 0);
    assert_eq!(RootPort::new(&specs::port(1, 1)).unwrap().slot(), None);
}

#[test]
fn a_slot_that_cannot_be_is_refused() {
    let mut spec = specs::onboard();
    spec.hot_plug = true;
    assert_eq!(RootPort::new(&spec).unwrap_err(), PciError::NoSlot);
    let mut spec = specs::port(1, 1);
    (spec.kind, spec.hot_plug) = (PortKind::Upstream, true);
    assert!(matches!(RootPort::new(&spec).unwrap_err(), PciError::Slot { .. }));
}

#[test]
fn an_orderly_removal_is_asked_for_done_by_the_guest_and_then_seen_by_it() {
    let bench = Bench::listening();
    bench.port.press_attention_button();
    let message = MsiMessage {
        address: 0xfee0_0010,
        data: 0x4041,
    };
    assert_eq!(*bench.messages.lock().unwrap(), [message]);
    assert_eq!((bench.messages(), bench.events()), (1, BUTTON));
    assert!(bench.answers(), "nothing is taken yet");

    bench.switches_off();
    assert_eq!(bench.state(), (true, false, Indicator::Off));
    assert!(!bench.answers(), "no power, no answer");
    assert_eq!((bench.messages(), bench.events()), (1, LINK));
    let told: Vec<_> = bench
        .switched
        .lock()
        .unwrap()
        .iter()
        .map(|state| state.is_off())
        .collect();
    assert_eq!(
        told,
        [false, false, true],
        "an adapter may go when the indicator is dark"
    );

    bench.port.pull();
    assert_eq!((bench.messages(), bench.events()), (1, PRESENCE));
    assert_eq!(bench.state(), (false, false, Indicator::Off));
    bench.port.pull();
    assert_eq!((bench.messages(), bench.events()), (0, 0), "it is out already");
}

#[test]
fn a_surprise_is_one_interrupt_with_both_events_and_nothing_answers_before_it() {
    let bench = Bench::listening();
    bench.port.pull();
    assert!(!bench.answers());
    assert_eq!((bench.messages(), bench.events()), (1, PRESENCE | LINK));
    assert_eq!(bench.read(LINK_STATUS), 0);
}

#[test]
fn what_is_put_in_answers_once_the_guest_has_switched_the_slot_on() {
    let bench = Bench::listening();
    bench.port.pull();
    bench.switches_off();
    bench.events();
    bench.messages();
    bench.port.insert();
    assert_eq!((bench.messages(), bench.events()), (1, PRESENCE));
    assert!(!bench.answers());
    bench.write(CONTROL, LISTENING & !POWER_ON | BLINKING);
    assert_eq!((bench.messages(), bench.events()), (1, LINK));
    assert!(bench.answers());
    assert_eq!(
        bench.read(LINK_STATUS),
        LINK_ACTIVE | 4 << 4 | 3,
        "8 GT/s x4, as before"
    );
    // A link that the guest itself takes down is down.
    bench.write(0x50, 1 << 4);
    assert!(!bench.answers());
    bench.write(0x50, 0);
    assert!(bench.answers());
}

#[test]
fn an_event_that_nobody_wants_yet_is_told_when_somebody_does() {
    let bench = Bench::new();
    bench.port.press_attention_button();
    assert_eq!(bench.messages(), 0);
    bench.write(CONTROL, LISTENING);
    assert_eq!(bench.messages(), 0, "MSI is off");
    bench.write(MSI_CONTROL, 1);
    assert_eq!(bench.messages(), 1);
    // Another event while one stands is no further interrupt: the handler looks at all of them.
    bench.port.pull();
    assert_eq!(bench.messages(), 0);
    bench.write(STATUS, BUTTON);
    assert_eq!(bench.messages(), 0, "two others stand");
    assert_eq!(bench.events(), PRESENCE | LINK);
    bench.port.insert();
    assert_eq!(bench.messages(), 1);
    // Masked one by one, and as a whole.
    bench.events();
    bench.messages();
    bench.write(CONTROL, LISTENING & !BUTTON);
    bench.port.press_attention_button();
    bench.write(CONTROL, LISTENING & !(1 << 5));
    bench.port.pull();
    assert_eq!(bench.messages(), 0);
    bench.write(CONTROL, LISTENING);
    assert_eq!(bench.messages(), 1);
}

#[test]
fn one_write_may_clear_events_and_give_a_command() {
    let bench = Bench::listening();
    bench.port.press_attention_button();
    bench.messages();
    let both = u32::from(LISTENING | POWER_OFF) | u32::from(BUTTON) << 16;
    bench.port.write(CONTROL, &both.to_le_bytes());
    assert_eq!(bench.events(), LINK, "the button is cleared, the link has gone");
    assert_eq!(bench.messages(), 1, "that condition ended and another began");
    assert_eq!(bench.switched.lock().unwrap().len(), 1);
    bench.port.write(CONTROL, &[LISTENING as u8]);
    assert_eq!(
        bench.switched.lock().unwrap().len(),
        1,
        "half a register without the switches"
    );
}

#[test]
fn a_port_without_such_a_slot_cannot_be_pulled() {
    let port = RootPort::new(&specs::port(1, 1)).unwrap();
    port.press_attention_button();
    port.pull();
    port.insert();
    let mut data = [0; 2];
    port.read(STATUS, &mut data);
    assert_eq!(u16::from_le_bytes(data), OCCUPIED);
}

/// What a guest and an administrator do, in any order.
#[derive(Debug, Clone)]
enum Act {
    Write(u16, Vec<u8>),
    Press,
    Pull,
    Insert,
}

fn act() -> impl Strategy<Value = Act> {
    // Mostly where it matters: link, slot, and MSI registers.
    let register = prop_oneof![0x50_u16..0x60, 0x90_u16..0xa0, 0_u16..0x100];
    let data = proptest::collection::vec(any::<u8>(), 1..=4);
    prop_oneof![
        4 => (register, data).prop_map(|(offset, data)| {
            let size = [1, 2, 4, 4][data.len() - 1].min(data.len().next_power_of_two());
            let data = data.into_iter().chain([0]).take(size).collect::<Vec<_>>();
            Act::Write(offset & !(data.len() as u16 - 1), data)
        }),
        1 => Just(Act::Press),
        1 => Just(Act::Pull),
        1 => Just(Act::Insert),
    ]
}

proptest! {
    #[test]
    fn whatever_is_done_the_slot_stays_true_to_itself(acts in proptest::collection::vec(act(), 1..60)) {
        let bench = Bench::new();
        let mut occupied = true;
        for act in acts {
            let before = bench.read(STATUS) & 0x011f;
            match &act {
                Act::Write(offset, data) => bench.port.write(*offset, data),
                Act::Press => bench.port.press_attention_button(),
                Act::Pull => (bench.port.pull(), occupied = false).0,
                Act::Insert => (bench.port.insert(), occupied = true).0,
            }
            let (control, status) = (bench.read(CONTROL), bench.read(STATUS));
            // Only an administrator puts in and takes out; only a change of the link or the slot makes an event.
            prop_assert_eq!(status & OCCUPIED != 0, occupied);
            prop_assert_eq!(status & !(0x011f | OCCUPIED), 0);
            let up = occupied && control & POWER_OFF == 0 && bench.read(0x50) & 1 << 4 == 0;
            prop_assert_eq!(bench.read(LINK_STATUS) & LINK_ACTIVE != 0, up);
            prop_assert_eq!(bench.port.slot().unwrap().occupied, occupied);
            let fresh = status & 0x011f & !before;
            match act {
                Act::Write(..) => prop_assert_eq!(fresh & !LINK, 0),
                Act::Press => prop_assert_eq!(status & BUTTON, BUTTON),
                Act::Pull | Act::Insert => prop_assert_eq!(fresh & !(PRESENCE | LINK), 0),
            }
            prop_assert_eq!(bench.read(SLOT_CAPABILITIES), 0x7b);
            let wanted = control & 0x1f | control >> 4 & 0x100;
            let due = bench.read(MSI_CONTROL) & 1 != 0 && control & 1 << 5 != 0 && status & wanted != 0;
            // At most one message for one act, and none without a reason.
            let sent = bench.messages();
            prop_assert!(sent <= usize::from(due), "{sent} messages, condition {due}");
        }
    }
}
