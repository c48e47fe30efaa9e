//! The lines of the in-kernel controllers: edge-triggered, level-triggered by software, level-triggered with an acknowledgement.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::{Gsi, connect_error, eventfd};
use crate::board::IOAPIC_PINS;
use crate::error::InterruptError;
use crate::vm::Vm;

/// An edge-triggered line.
#[derive(Debug)]
#[must_use = "dropping the line disconnects it"]
pub struct IrqLine {
    wire: Wire,
}

/// A level-triggered line driven by software.
#[derive(Debug)]
pub struct LevelLine {
    vm: Arc<Vm>,
    gsi: Gsi,
}

/// A level-triggered line driven by an eventfd, with a second one that tells when the guest has acknowledged.
#[derive(Debug)]
#[must_use = "dropping the line disconnects it"]
pub struct ResampleLine {
    wire: Wire,
    resample: EventFd,
}

impl IrqLine {
    pub(super) fn connect(vm: &Arc<Vm>, gsi: Gsi) -> Result<Self, InterruptError> {
        check_pin(gsi)?;
        let event = eventfd(gsi)?;
        let connected = vm.fd().register_irqfd(&event, gsi.0);
        connected.map_err(|e| connect_error(gsi, e))?;
        Ok(Self {
            wire: Wire::of(vm, event, gsi),
        })
    }

    /// Raises one interrupt.
    pub fn trigger(&self) {
        self.wire.signal();
    }

    /// The eventfd behind it.
    #[must_use]
    pub fn eventfd(&self) -> &EventFd {
        &self.wire.event
    }
}

impl LevelLine {
    pub(super) fn new(vm: &Arc<Vm>, gsi: Gsi) -> Self {
        Self {
            vm: Arc::clone(vm),
            gsi,
        }
    }

    /// Raises or lowers the line.
    pub fn assert_level(&self, active: bool) {
        if let Err(error) = self.vm.fd().set_irq_line(self.gsi.0, active) {
            tracing::error!(%error, gsi = self.gsi.0, active, "KVM_IRQ_LINE refused");
        }
    }
}

impl ResampleLine {
    pub(super) fn connect(vm: &Arc<Vm>, gsi: Gsi) -> Result<Self, InterruptError> {
        check_pin(gsi)?;
        let (event, resample) = (eventfd(gsi)?, eventfd(gsi)?);
        let connected = vm.fd().register_irqfd_with_resample(&event, &resample, gsi.0);
        connected.map_err(|e| connect_error(gsi, e))?;
        Ok(Self {
            wire: Wire::of(vm, event, gsi),
            resample,
        })
    }

    /// What the device signals.
    #[must_use]
    pub fn eventfd(&self) -> &EventFd {
        &self.wire.event
    }

    /// What KVM signals when the guest has acknowledged.
    #[must_use]
    pub fn resample_eventfd(&self) -> &EventFd {
        &self.resample
    }
}

/// An eventfd connected to a pin until dropped.
#[derive(Debug)]
struct Wire {
    vm: Arc<Vm>,
    event: EventFd,
    gsi: Gsi,
}

impl Wire {
    fn of(vm: &Arc<Vm>, event: EventFd, gsi: Gsi) -> Self {
        Self {
            vm: Arc::clone(vm),
            event,
            gsi,
        }
    }

    fn signal(&self) {
        if let Err(error) = self.event.write(1) {
            tracing::error!(%error, gsi = self.gsi.0, "an interrupt could not be raised");
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Err(error) = self.vm.fd().unregister_irqfd(&self.event, self.gsi.0) {
            tracing::error!(%error, gsi = self.gsi.0, "an interrupt line could not be disconnected");
        }
    }
}

fn check_pin(gsi: Gsi) -> Result<(), InterruptError> {
    match gsi.0 < IOAPIC_PINS {
        true => Ok(()),
        false => Err(InterruptError::NoSuchPin { gsi: gsi.0 }),
    }
}
