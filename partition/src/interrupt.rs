//! Interrupts: lines of the in-kernel controllers and message-signalled vectors, each an eventfd that KVM listens to.
//!
//! Every value owns its registration; dropping it disconnects the eventfd first and frees the route after.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::kvm_msi;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::error::InterruptError;
use crate::vm::{Vm, errno};

mod line;
pub(crate) mod routes;

pub use line::{IrqLine, LevelLine, ResampleLine};
use routes::Routes;

/// A global system interrupt: an I/O APIC pin below 24, a message-signalled route from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gsi(pub u32);

/// What a device writes to raise a message-signalled interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MsiMessage {
    /// The address written to, `0xfeexxxxx` on x86.
    pub address: u64,
    /// The value written.
    pub data: u32,
}

/// The interrupt wiring of one VM.
#[derive(Debug)]
pub struct Interrupts {
    vm: Arc<Vm>,
    routes: Mutex<Routes>,
}

/// A message-signalled vector: an eventfd and the message that it stands for.
#[derive(Debug)]
#[must_use = "dropping the vector disconnects it"]
pub struct MsiVector {
    /// Whether KVM listens to `event`.
    connected: Mutex<bool>,
    event: EventFd,
    gsi: Gsi,
    interrupts: Arc<Interrupts>,
}

impl Interrupts {
    /// The wiring of `vm`, with the controllers' own routes.
    #[must_use]
    pub fn new(vm: Arc<Vm>) -> Self {
        Self {
            vm,
            routes: Mutex::default(),
        }
    }

    /// Connects an edge-triggered line.
    pub fn line(&self, gsi: Gsi) -> Result<IrqLine, InterruptError> {
        IrqLine::connect(&self.vm, gsi)
    }

    /// A level-triggered line that software raises and lowers.
    #[must_use]
    pub fn level_line(&self, gsi: Gsi) -> LevelLine {
        LevelLine::new(&self.vm, gsi)
    }

    /// Connects a level-triggered line with an acknowledgement, as a device's INTx wants it.
    pub fn resample_line(&self, gsi: Gsi) -> Result<ResampleLine, InterruptError> {
        ResampleLine::connect(&self.vm, gsi)
    }

    /// A message-signalled vector, masked until its first [`MsiVector::route`].
    pub fn msi(self: &Arc<Self>) -> Result<MsiVector, InterruptError> {
        let gsi = self.routes().reserve()?;
        let event = match eventfd(gsi) {
            Ok(event) => event,
            Err(error) => {
                self.routes().free(gsi);
                return Err(error);
            }
        };
        Ok(MsiVector {
            connected: Mutex::new(false),
            event,
            gsi,
            interrupts: Arc::clone(self),
        })
    }

    /// Delivers one message-signalled interrupt, without a route. For a device that raises few: each costs a system call. One that
    /// the guest does not take, because what it stands for is nobody's, is lost, as on hardware.
    pub fn send(&self, message: MsiMessage) -> Result<(), InterruptError> {
        let msi = kvm_msi {
            address_lo: message.address as u32,
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..Default::default()
        };
        match self.vm.fd().signal_msi(msi) {
            // No local APIC is meant by it.
            Err(error) if error.errno() == EPERM => Ok(()),
            sent => sent.map(|_| ()).map_err(|e| InterruptError::Send {
                address: message.address,
                source: errno(e),
            }),
        }
    }

    /// Publishes the routing table with `gsi` standing for `message`, unless it does already.
    fn route(&self, gsi: Gsi, message: MsiMessage) -> Result<(), InterruptError> {
        let mut routes = self.routes();
        let Some(table) = routes.with(gsi, message)? else {
            return Ok(());
        };
        let published = self.vm.fd().set_gsi_routing(&table);
        published.map_err(|e| InterruptError::Route {
            gsi: gsi.0,
            source: errno(e),
        })?;
        routes.published(gsi, message);
        Ok(())
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MsiVector {
    /// Its interrupt number.
    #[must_use]
    pub fn gsi(&self) -> Gsi {
        self.gsi
    }

    /// What the device signals. While masked, signals stay pending in it.
    #[must_use]
    pub fn eventfd(&self) -> &EventFd {
        &self.event
    }

    /// Lets the vector stand for `message`, connecting it if it was masked.
    pub fn route(&self, message: MsiMessage) -> Result<(), InterruptError> {
        let mut connected = self.connected();
        self.interrupts.route(self.gsi, message)?;
        if !*connected {
            let vm = self.interrupts.vm.fd();
            vm.register_irqfd(&self.event, self.gsi.0)
                .map_err(|e| connect_error(self.gsi, e))?;
            *connected = true;
        }
        Ok(())
    }

    /// Disconnects the vector from the guest; a signal meanwhile is delivered on the next [`MsiVector::route`].
    pub fn mask(&self) -> Result<(), InterruptError> {
        let mut connected = self.connected();
        if *connected {
            let vm = self.interrupts.vm.fd();
            vm.unregister_irqfd(&self.event, self.gsi.0)
                .map_err(|e| connect_error(self.gsi, e))?;
            *connected = false;
        }
        Ok(())
    }

    /// Whether a signal came while masked.
    #[must_use]
    pub fn pending(&self) -> bool {
        let connected = self.connected();
        // Only an unconnected eventfd may be read: KVM consumes the counter of a connected one.
        let waiting = !*connected && self.event.read().is_ok();
        if waiting && self.event.write(1).is_err() {
            tracing::error!(gsi = self.gsi.0, "a pending interrupt could not be put back");
        }
        waiting
    }

    fn connected(&self) -> MutexGuard<'_, bool> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MsiVector {
    fn drop(&mut self) {
        match self.mask() {
            Ok(()) => self.interrupts.routes().free(self.gsi),
            // Its number stays taken: KVM may still raise what it stands for.
            Err(error) => tracing::error!(%error, "an interrupt vector could not be disconnected"),
        }
    }
}

fn eventfd(gsi: Gsi) -> Result<EventFd, InterruptError> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(|source| InterruptError::Eventfd { gsi: gsi.0, source })
}

/// What KVM_SIGNAL_MSI says of a message that no local APIC takes (virt/kvm/irqchip.c returns -1).
const EPERM: i32 = 1;

fn connect_error(gsi: Gsi, error: kvm_ioctls::Error) -> InterruptError {
    InterruptError::Connect {
        gsi: gsi.0,
        source: errno(error),
    }
}
