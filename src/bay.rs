//! A hot-plug slot of a running guest: the port before it, what is in it, and who waits for the guest to let go of that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pellucid_chipset::{Indicator, PciError, RootPort, RootPortSpec, SlotState};
use pellucid_partition::{Bdf, Interrupts};
use pellucid_passthrough::Endpoint;

use crate::event::ServerEvent;
use crate::server::EventSink;

/// The slot behind one port.
pub(crate) struct Bay {
    port: Arc<RootPort>,
    inside: Arc<Inside>,
}

/// What the port tells on a vCPU thread, and the server's owner asks for.
struct Inside {
    /// The functions in the slot, which lose what they were set to when the guest switches it off.
    functions: Mutex<Vec<Arc<Endpoint>>>,
    powered: AtomicBool,
    /// Of which device its owner is told once the slot is off. Told once: a guest that plays with its switches tells nobody.
    awaited: Mutex<Option<Bdf>>,
    switched: Condvar,
    events: EventSink,
}

impl Bay {
    /// The port that `spec` describes, with its slot wired to the guest's interrupts.
    pub(crate) fn build(
        spec: &RootPortSpec,
        interrupts: &Arc<Interrupts>,
        events: &EventSink,
    ) -> Result<Self, PciError> {
        let inside = Arc::new(Inside {
            functions: Mutex::default(),
            powered: AtomicBool::new(true),
            awaited: Mutex::default(),
            switched: Condvar::new(),
            events: Arc::clone(events),
        });
        let (interrupts, told) = (Arc::clone(interrupts), Arc::clone(&inside));
        let port = RootPort::new(spec)?
            .on_interrupt(move |message| {
                if let Err(error) = interrupts.send(message) {
                    tracing::error!(%error, "a slot's interrupt is lost");
                }
            })
            .on_slot_switched(move |state| told.switched(state));
        Ok(Self {
            port: Arc::new(port),
            inside,
        })
    }

    /// The port, for the board.
    pub(crate) fn port(&self) -> &Arc<RootPort> {
        &self.port
    }

    /// Whether the guest is done with the slot: what is in it may go, or something may come.
    pub(crate) fn is_off(&self) -> bool {
        self.state().is_some_and(SlotState::is_off)
    }

    /// Notes what is in the slot.
    pub(crate) fn fill(&self, functions: Vec<Arc<Endpoint>>) {
        *lock(&self.inside.functions) = functions;
    }

    /// Puts an adapter in and presses the button, as a person does; the guest is told.
    pub(crate) fn insert(&self) {
        self.port.insert();
        self.port.press_attention_button();
    }

    /// Takes the adapter out; nothing behind the port answers from here on, and the guest is told.
    pub(crate) fn pull(&self) {
        *lock(&self.inside.awaited) = None;
        self.port.pull();
        self.fill(Vec::new());
    }

    /// Has `device` told of when the slot is off, which may be at once.
    pub(crate) fn awaits(&self, device: Bdf) {
        *lock(&self.inside.awaited) = Some(device);
        if self.is_off() {
            self.inside.tell();
        }
    }

    /// The same, and asks the guest to switch it off, unless it is about to.
    pub(crate) fn asks(&self, device: Bdf) {
        let asked = lock(&self.inside.awaited).replace(device).is_some();
        // A second time is a withdrawal.
        if !asked && self.state().is_some_and(|state| state.indicator == Indicator::On) {
            self.port.press_attention_button();
        }
        if self.is_off() {
            self.inside.tell();
        }
    }

    /// Asks no longer. A guest that was still waiting to begin does not.
    pub(crate) fn withdraws(&self) {
        *lock(&self.inside.awaited) = None;
        let waiting = |state: SlotState| state.powered && state.indicator == Indicator::Blinking;
        if self.state().is_some_and(waiting) {
            self.port.press_attention_button();
        }
    }

    /// Waits until the slot is off; false if it is not within `limit`.
    pub(crate) fn off_within(&self, limit: Duration) -> bool {
        let awaited = lock(&self.inside.awaited);
        let waiting = |_: &mut Option<Bdf>| !self.is_off();
        let waited = self.inside.switched.wait_timeout_while(awaited, limit, waiting);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn state(&self) -> Option<SlotState> {
        self.port.slot()
    }
}

impl Inside {
    fn switched(&self, state: SlotState) {
        if self.powered.swap(state.powered, Ordering::SeqCst) && !state.powered {
            let functions = lock(&self.functions).clone();
            for function in functions {
                function.power_cycle();
            }
        }
        if state.is_off() {
            self.tell();
        }
    }

    fn tell(&self) {
        let awaited = lock(&self.awaited).take();
        self.switched.notify_all();
        if let Some(device) = awaited {
            (self.events)(ServerEvent::SlotOff { device });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
