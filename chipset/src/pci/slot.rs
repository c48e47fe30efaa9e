//! A hot-plug slot behind a port: what it tells the guest, and what the guest does to it (PCI Express base 5.0, sections 6.7
//! and 7.5.3.9 to 7.5.3.11).
//!
//! It has an attention button, a power controller and both indicators; an adapter may go without warning. Commands complete at
//! once, so there is no event for that. The registers are the port's own; every change of them is made under one lock, because an
//! interrupt is due when a condition over several of them becomes true.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pellucid_partition::MsiMessage;

use crate::pci::root_port::{EXPRESS, LINK_ACTIVE, MSI, PRESENCE_DETECTED};
use crate::pci::space::{Change, Space};

/// What a hot-plug slot shows, and what the guest has made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotState {
    /// Whether an adapter is in it.
    pub occupied: bool,
    /// Whether the guest has its power on.
    pub powered: bool,
    /// What the guest says by its power indicator.
    pub indicator: Indicator,
}

/// What the light says that a slot's power controller goes with (section 6.7.1.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indicator {
    /// The slot is in use; its adapter must not be taken.
    On,
    /// It is being switched on or off.
    Blinking,
    /// An adapter may be taken or put in.
    Off,
}

impl SlotState {
    /// Whether the guest is done with it: an adapter may be taken or put in.
    #[must_use]
    pub fn is_off(self) -> bool {
        !self.powered && self.indicator == Indicator::Off
    }

    pub(crate) fn of(space: &Space) -> Self {
        let slot = space.load(SLOT);
        Self {
            occupied: slot & OCCUPIED != 0,
            powered: slot & POWER_OFF == 0,
            indicator: match (slot & POWER_INDICATOR) >> 8 {
                2 => Indicator::Blinking,
                3 => Indicator::Off,
                // 0 is reserved.
                _ => Indicator::On,
            },
        }
    }
}

/// The events of a slot, and who is told of what the guest does.
pub(crate) struct Slot {
    /// Whether the interrupt condition held when it was last looked at.
    condition: Mutex<bool>,
    pub(crate) message: Box<dyn Fn(MsiMessage) + Send + Sync>,
    pub(crate) switched: Box<dyn Fn(SlotState) + Send + Sync>,
}

impl Slot {
    /// A slot that tells nobody yet.
    pub(crate) fn new() -> Self {
        Self {
            condition: Mutex::new(false),
            message: Box::new(|_| ()),
            switched: Box::new(|_| ()),
        }
    }

    /// The port's registers with an adapter in the slot, switched on as firmware leaves it.
    pub(crate) fn describe(space: Space) -> Space {
        space
            .with_or(SLOT_CAPABILITIES, HOT_PLUG)
            .with_u32(SLOT, OCCUPIED | 0x0100 | 0x00c0)
            .writable(SLOT, CONTROL)
            .clearable(SLOT, EVENTS)
    }

    /// Takes a guest's write to any of the port's registers.
    pub(crate) fn write(&self, space: &Space, offset: u16, data: &[u8]) -> Option<Change> {
        let change = self.change(space, || space.write(offset, data))?;
        let switches = POWER_OFF | POWER_INDICATOR;
        if change.register == SLOT && (change.before ^ change.after) & switches != 0 {
            (self.switched)(SlotState::of(space));
        }
        Some(change)
    }

    /// Presses the attention button.
    pub(crate) fn press(&self, space: &Space) {
        self.change(space, || space.modify(SLOT, |slot| slot | BUTTON_PRESSED));
    }

    /// Takes the adapter out or puts one in. Nothing happens to a slot that is so already.
    pub(crate) fn occupy(&self, space: &Space, occupied: bool) {
        let next = |slot| match (slot & OCCUPIED != 0) == occupied {
            true => slot,
            false => (slot ^ OCCUPIED) | PRESENCE_CHANGED,
        };
        self.change(space, || space.modify(SLOT, next));
    }

    /// Whether configuration requests cross the link.
    pub(crate) fn is_up(space: &Space) -> bool {
        space.load(LINK) & ACTIVE != 0
    }

    /// Makes a change of the registers under the lock, then sends the message that it makes due.
    fn change<T>(&self, space: &Space, change: impl FnOnce() -> T) -> T {
        let mut condition = self.lock();
        let changed = change();
        let due = settle(&mut condition, space);
        drop(condition);
        if let Some(message) = due {
            (self.message)(message);
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings the link to where slot and link control have it, and says which message is due: one for each time that the condition of
/// section 6.7.3.4 becomes true. A message that could not be sent because the guest had MSI off is sent when it has it on.
fn settle(condition: &mut bool, space: &Space) -> Option<MsiMessage> {
    // A write may have ended it before its own consequence is the next event.
    let before = *condition && holds(space);
    let (slot, link) = (space.load(SLOT), space.load(LINK));
    let up = slot & (OCCUPIED | POWER_OFF) == OCCUPIED && link & LINK_DISABLED == 0;
    if up != (link & ACTIVE != 0) {
        // Speed and width stand in the capability, which an adapter that comes again has too.
        let trained = space.load(LINK_CAPABILITIES) << 16 & TRAINED;
        let status = if up { ACTIVE | trained } else { 0 };
        space.modify(LINK, |link| link & !(ACTIVE | TRAINED) | status);
        space.modify(SLOT, |slot| slot | LINK_CHANGED);
    }
    *condition = holds(space);
    (*condition && !before).then(|| MsiMessage {
        address: u64::from(space.load(MSI + 8)) << 32 | u64::from(space.load(MSI + 4)),
        data: space.load(MSI + 12) & 0xffff,
    })
}

/// Whether there is an event that the guest wants an interrupt for, and can have one.
fn holds(space: &Space) -> bool {
    let slot = space.load(SLOT);
    let wanted = slot & 0x1f | slot >> 4 & 0x100;
    space.load(MSI) & MSI_ON != 0 && slot & INTERRUPT_ON != 0 && slot >> 16 & wanted != 0
}

const LINK_CAPABILITIES: u16 = EXPRESS + 0x0c;
/// Link control; link status in the upper half.
const LINK: u16 = EXPRESS + 0x10;
const SLOT_CAPABILITIES: u16 = EXPRESS + 0x14;
/// Slot control; slot status in the upper half.
const SLOT: u16 = EXPRESS + 0x18;

/// Attention button, power controller, attention and power indicator, surprise removal, hot-plug.
const HOT_PLUG: u32 = 0x7b;
/// Enables of button, fault, presence and command events, of the interrupt and of the link event; the indicators and the power.
const CONTROL: u32 = 0x17fb;
const INTERRUPT_ON: u32 = 1 << 5;
const POWER_INDICATOR: u32 = 3 << 8;
const POWER_OFF: u32 = 1 << 10;
/// All that a guest clears by writing 1.
const EVENTS: u32 = 0x011f << 16;
const BUTTON_PRESSED: u32 = 1 << 16;
const PRESENCE_CHANGED: u32 = 1 << 19;
const OCCUPIED: u32 = (PRESENCE_DETECTED as u32) << 16;
const LINK_CHANGED: u32 = 1 << 24;
const LINK_DISABLED: u32 = 1 << 4;
const ACTIVE: u32 = (LINK_ACTIVE as u32) << 16;
/// Speed and width of the link.
const TRAINED: u32 = 0x03ff << 16;
const MSI_ON: u32 = 1 << 16;
