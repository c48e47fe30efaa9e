//! KVM as a subscriber of guest memory: a slot for each region, coming and going with it.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use super::{GuestMemory, MemorySubscriber, Region, Subscription};
use crate::error::MemoryError;
use crate::sys::slot::Slot;
use crate::vm::{Access, Vm};

impl GuestMemory {
    /// Shows all RAM, now and later, to the guest of `vm` until the subscription is dropped.
    pub fn show_to(&self, vm: &Arc<Vm>) -> Result<Subscription, MemoryError> {
        self.subscribe(Arc::new(RamSlots {
            vm: Arc::clone(vm),
            slots: Mutex::default(),
        }))
    }
}

/// Shows RAM to the VM, a slot for each region.
struct RamSlots {
    vm: Arc<Vm>,
    slots: Mutex<Vec<Slot>>,
}

impl MemorySubscriber for RamSlots {
    fn name(&self) -> &str {
        "KVM"
    }

    fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>> {
        let backing = Arc::clone(&region.mapping);
        let slot = self.vm.show(region.guest, backing, Access::ReadWrite)?;
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(slot);
        Ok(())
    }

    fn detach(&self, region: &Region) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|slot| slot.guest() != region.guest);
    }
}
