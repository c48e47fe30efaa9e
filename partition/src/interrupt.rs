//! Interrupts: lines of the in-kernel controllers and message-signalled vectors, each an eventfd that KVM listens to.
//!
//! Every value owns its registration; dropping it disconnects the eventfd first and frees the route after.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::board::IOAPIC_PINS;
use crate::error::InterruptError;
use crate::vm::{Vm, errno};

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
    routes: Mutex<BTreeMap<u32, Option<MsiMessage>>>,
}

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

/// A message-signalled vector: an eventfd and the message that it stands for.
#[derive(Debug)]
#[must_use = "dropping the vector disconnects it"]
pub struct MsiVector {
    // Teardown order: the wire before its route.
    wire: Mutex<Option<()>>,
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
            routes: Mutex::new(BTreeMap::new()),
        }
    }

    /// Connects an edge-triggered line.
    pub fn line(&self, gsi: Gsi) -> Result<IrqLine, InterruptError> {
        let event = eventfd(gsi)?;
        self.vm
            .fd()
            .register_irqfd(&event, gsi.0)
            .map_err(|e| connect_error(gsi, e))?;
        Ok(IrqLine {
            wire: Wire {
                vm: Arc::clone(&self.vm),
                event,
                gsi,
            },
        })
    }

    /// A level-triggered line that software raises and lowers.
    #[must_use]
    pub fn level_line(&self, gsi: Gsi) -> LevelLine {
        LevelLine {
            vm: Arc::clone(&self.vm),
            gsi,
        }
    }

    /// Connects a level-triggered line with an acknowledgement, as a device's INTx wants it.
    pub fn resample_line(&self, gsi: Gsi) -> Result<ResampleLine, InterruptError> {
        let (event, resample) = (eventfd(gsi)?, eventfd(gsi)?);
        let connected = self
            .vm
            .fd()
            .register_irqfd_with_resample(&event, &resample, gsi.0);
        connected.map_err(|e| connect_error(gsi, e))?;
        Ok(ResampleLine {
            wire: Wire {
                vm: Arc::clone(&self.vm),
                event,
                gsi,
            },
            resample,
        })
    }

    /// A message-signalled vector, masked until its first [`MsiVector::route`].
    pub fn msi(self: &Arc<Self>) -> Result<MsiVector, InterruptError> {
        let gsi = self.reserve()?;
        let event = match eventfd(gsi) {
            Ok(event) => event,
            Err(error) => {
                self.free(gsi);
                return Err(error);
            }
        };
        Ok(MsiVector {
            wire: Mutex::new(None),
            event,
            gsi,
            interrupts: Arc::clone(self),
        })
    }

    fn reserve(&self) -> Result<Gsi, InterruptError> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let free = (IOAPIC_PINS..MAX_ROUTES).find(|gsi| !routes.contains_key(gsi));
        let gsi = free.ok_or(InterruptError::NoRoute {
            most: MAX_ROUTES - IOAPIC_PINS,
        })?;
        routes.insert(gsi, None);
        Ok(Gsi(gsi))
    }

    fn free(&self, gsi: Gsi) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.remove(&gsi.0);
    }

    /// Publishes the routing table with `gsi` standing for `message`, unless it does already.
    fn route(&self, gsi: Gsi, message: MsiMessage) -> Result<(), InterruptError> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.get(&gsi.0) == Some(&Some(message)) {
            return Ok(());
        }
        routes.insert(gsi.0, Some(message));
        let mut entries = controller_routes();
        entries.extend(
            routes
                .iter()
                .filter_map(|(&gsi, message)| message.map(|m| msi_route(gsi, m))),
        );
        let refused = |source| InterruptError::Route { gsi: gsi.0, source };
        let table =
            KvmIrqRouting::from_entries(&entries).map_err(|_| refused(io::ErrorKind::OutOfMemory.into()))?;
        self.vm
            .fd()
            .set_gsi_routing(&table)
            .map_err(|e| refused(errno(e)))
    }
}

impl IrqLine {
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
    /// Raises or lowers the line.
    pub fn assert_level(&self, active: bool) {
        if let Err(error) = self.vm.fd().set_irq_line(self.gsi.0, active) {
            tracing::error!(%error, gsi = self.gsi.0, active, "KVM_IRQ_LINE refused");
        }
    }
}

impl ResampleLine {
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
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        self.interrupts.route(self.gsi, message)?;
        if wire.is_none() {
            let vm = self.interrupts.vm.fd();
            vm.register_irqfd(&self.event, self.gsi.0)
                .map_err(|e| connect_error(self.gsi, e))?;
            *wire = Some(());
        }
        Ok(())
    }

    /// Disconnects the vector from the guest; a signal meanwhile is delivered on the next [`MsiVector::route`].
    pub fn mask(&self) -> Result<(), InterruptError> {
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        if wire.take().is_some() {
            let vm = self.interrupts.vm.fd();
            vm.unregister_irqfd(&self.event, self.gsi.0)
                .map_err(|e| connect_error(self.gsi, e))?;
        }
        Ok(())
    }

    /// Whether a signal came while masked.
    #[must_use]
    pub fn pending(&self) -> bool {
        let wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        // Only an unconnected eventfd may be read: KVM consumes the counter of a connected one.
        let waiting = wire.is_none() && self.event.read().is_ok();
        if waiting && self.event.write(1).is_err() {
            tracing::error!(gsi = self.gsi.0, "a pending interrupt could not be put back");
        }
        waiting
    }
}

impl Drop for MsiVector {
    fn drop(&mut self) {
        if let Err(error) = self.mask() {
            tracing::error!(%error, "an interrupt vector could not be disconnected");
        }
        self.interrupts.free(self.gsi);
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

fn eventfd(gsi: Gsi) -> Result<EventFd, InterruptError> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(|source| InterruptError::Eventfd { gsi: gsi.0, source })
}

fn connect_error(gsi: Gsi, error: kvm_ioctls::Error) -> InterruptError {
    InterruptError::Connect {
        gsi: gsi.0,
        source: errno(error),
    }
}

/// The routes that KVM sets up for its own controllers, which a new table must repeat: pins 0 to 15 reach PIC and I/O APIC,
/// the rest the I/O APIC only (arch/x86/kvm/irq_comm.c, `default_routing`).
fn controller_routes() -> Vec<kvm_irq_routing_entry> {
    let mut entries = Vec::new();
    for pin in 0..IOAPIC_PINS {
        entries.push(pin_route(pin, KVM_IRQCHIP_IOAPIC, pin));
        match pin {
            0..8 => entries.push(pin_route(pin, KVM_IRQCHIP_PIC_MASTER, pin)),
            8..16 => entries.push(pin_route(pin, KVM_IRQCHIP_PIC_SLAVE, pin - 8)),
            _ => {}
        }
    }
    entries
}

fn pin_route(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    let irqchip = kvm_irq_routing_irqchip { irqchip, pin };
    let u = kvm_irq_routing_entry__bindgen_ty_1 { irqchip };
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u,
        ..Default::default()
    }
}

fn msi_route(gsi: u32, message: MsiMessage) -> kvm_irq_routing_entry {
    let msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        data: message.data,
        ..Default::default()
    };
    let u = kvm_irq_routing_entry__bindgen_ty_1 { msi };
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u,
        ..Default::default()
    }
}

/// include/linux/kvm_host.h: `KVM_MAX_IRQ_ROUTES`.
const MAX_ROUTES: u32 = 4096;
