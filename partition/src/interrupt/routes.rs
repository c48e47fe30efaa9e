//! The routing table of one VM: which message each message-signalled interrupt stands for, beside the controllers' own pins.

use std::collections::BTreeMap;
use std::io;

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1,
    kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};

use super::{Gsi, MsiMessage};
use crate::board::IOAPIC_PINS;
use crate::error::InterruptError;

/// The message-signalled interrupts given out, with the message that KVM was last told; `None` before the first.
#[derive(Debug, Default)]
pub(super) struct Routes {
    messages: BTreeMap<u32, Option<MsiMessage>>,
}

impl Routes {
    /// Takes the lowest number that is free.
    pub(super) fn reserve(&mut self) -> Result<Gsi, InterruptError> {
        let free = (IOAPIC_PINS..IOAPIC_PINS + MOST_MESSAGES).find(|gsi| !self.messages.contains_key(gsi));
        let gsi = free.ok_or(InterruptError::NoRoute { most: MOST_MESSAGES })?;
        self.messages.insert(gsi, None);
        Ok(Gsi(gsi))
    }

    /// Gives a number back, after its eventfd was disconnected; KVM's own entry goes with the next table.
    pub(super) fn free(&mut self, gsi: Gsi) {
        self.messages.remove(&gsi.0);
    }

    /// The whole table with `gsi` standing for `message`; `None` if KVM knows it so already.
    pub(super) fn with(
        &self,
        gsi: Gsi,
        message: MsiMessage,
    ) -> Result<Option<KvmIrqRouting>, InterruptError> {
        if self.messages.get(&gsi.0) == Some(&Some(message)) {
            return Ok(None);
        }
        let mut entries = controller_routes();
        let others = self.messages.iter().filter(|(other, _)| **other != gsi.0);
        entries.extend(others.filter_map(|(&other, message)| message.map(|m| msi_route(other, m))));
        entries.push(msi_route(gsi.0, message));
        let table = KvmIrqRouting::from_entries(&entries).map_err(|_| InterruptError::Route {
            gsi: gsi.0,
            source: io::ErrorKind::OutOfMemory.into(),
        })?;
        Ok(Some(table))
    }

    /// Notes that KVM has taken the table of [`Routes::with`].
    pub(super) fn published(&mut self, gsi: Gsi, message: MsiMessage) {
        self.messages.insert(gsi.0, Some(message));
    }
}

/// The routes of the board's own pins, which every table must repeat: 0 to 15 reach PIC and I/O APIC, the rest the I/O APIC only.
///
/// As on a PC, the timer (GSI 0) is wired to the I/O APIC's pin 2, where the PICs' cascade leaves it free; the MADT says so.
pub(crate) fn controller_routes() -> Vec<kvm_irq_routing_entry> {
    let mut entries = Vec::new();
    for gsi in 0..IOAPIC_PINS {
        match gsi {
            TIMER => entries.push(pin_route(gsi, KVM_IRQCHIP_IOAPIC, TIMER_PIN)),
            TIMER_PIN => {}
            _ => entries.push(pin_route(gsi, KVM_IRQCHIP_IOAPIC, gsi)),
        }
        match gsi {
            0..8 => entries.push(pin_route(gsi, KVM_IRQCHIP_PIC_MASTER, gsi)),
            8..16 => entries.push(pin_route(gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8)),
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

/// Entries of a table (include/linux/kvm_host.h, `KVM_MAX_IRQ_ROUTES`).
const MOST_ENTRIES: u32 = 4096;
/// Those that are left beside the controllers' own: 23 of the I/O APIC and 16 of the PICs.
const MOST_MESSAGES: u32 = MOST_ENTRIES - (IOAPIC_PINS - 1) - 16;
const TIMER: u32 = 0;
const TIMER_PIN: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(data: u32) -> MsiMessage {
        MsiMessage {
            address: 0xfee0_1000,
            data,
        }
    }

    #[test]
    fn a_full_table_is_as_large_as_kvm_takes_and_the_next_vector_is_refused() {
        let mut routes = Routes::default();
        for gsi in IOAPIC_PINS..IOAPIC_PINS + MOST_MESSAGES - 1 {
            routes.published(Gsi(gsi), message(gsi));
        }
        let last = routes.reserve().unwrap();
        let table = routes.with(last, message(1)).unwrap().unwrap();
        assert_eq!(table.as_slice().len(), MOST_ENTRIES as usize);
        let refusal = routes.reserve().unwrap_err().to_string();
        assert_eq!(refusal, "all 4057 message-signalled routes of this VM are in use");
        routes.free(Gsi(1000));
        assert_eq!(routes.reserve().unwrap(), Gsi(1000));
    }

    #[test]
    fn pins_keep_their_controllers_in_every_table() {
        let mut routes = Routes::default();
        let gsi = routes.reserve().unwrap();
        let table = routes.with(gsi, message(0x41)).unwrap().unwrap();
        for pin in 0..IOAPIC_PINS {
            let entries = table.as_slice().iter().filter(|entry| entry.gsi == pin);
            let wires = if pin == TIMER_PIN || pin >= 16 { 1 } else { 2 };
            assert_eq!(entries.count(), wires, "pin {pin}");
        }
        let of_kind = |kind| {
            table
                .as_slice()
                .iter()
                .filter(|entry| entry.type_ == kind)
                .count()
        };
        assert_eq!(
            (of_kind(KVM_IRQ_ROUTING_IRQCHIP), of_kind(KVM_IRQ_ROUTING_MSI)),
            (39, 1)
        );
    }

    #[test]
    fn a_table_is_made_again_until_kvm_has_taken_it() {
        let mut routes = Routes::default();
        let gsi = routes.reserve().unwrap();
        assert!(routes.with(gsi, message(1)).unwrap().is_some());
        assert!(
            routes.with(gsi, message(1)).unwrap().is_some(),
            "it was not published"
        );
        routes.published(gsi, message(1));
        assert!(routes.with(gsi, message(1)).unwrap().is_none());
        assert!(routes.with(gsi, message(2)).unwrap().is_some());
    }
}
