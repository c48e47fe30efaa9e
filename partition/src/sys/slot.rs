//! KVM memory slots: each owns the host memory that it shows to the guest.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use vm_memory::GuestAddress;

use super::mapping::Backing;
use crate::vm::{Access, Vm};

/// Host memory shown to the guest; dropping it takes the range away.
#[must_use = "dropping the slot takes the memory away from the guest"]
pub struct Slot {
    vm: Arc<Vm>,
    number: u32,
    guest: GuestAddress,
    /// Dropped only when KVM has let go of it.
    backing: ManuallyDrop<Arc<dyn Backing>>,
}

impl Slot {
    /// Shows all of `backing` to the guest as slot `number`, which is not in use.
    pub(crate) fn fill(
        vm: &Arc<Vm>,
        number: u32,
        (guest, access): (GuestAddress, Access),
        backing: Arc<dyn Backing>,
    ) -> Result<Self, kvm_ioctls::Error> {
        let flags = match access {
            Access::ReadWrite => 0,
            Access::ReadOnly => KVM_MEM_READONLY,
        };
        let region = kvm_userspace_memory_region {
            slot: number,
            flags,
            guest_phys_addr: guest.0,
            memory_size: backing.size(),
            userspace_addr: backing.host().0,
        };
        // SAFETY: `Backing` is sealed in `sys`, so address and size are a live mapping that `backing` owns; the value made
        // here keeps it until KVM has deleted the slot, and for ever if KVM refuses that.
        unsafe { vm.fd().set_user_memory_region(region) }?;
        Ok(Self {
            vm: Arc::clone(vm),
            number,
            guest,
            backing: ManuallyDrop::new(backing),
        })
    }

    /// Where the guest sees it.
    #[must_use]
    pub fn guest(&self) -> GuestAddress {
        self.guest
    }

    /// Takes the slot away from the guest; KVM has let go of the host memory when this succeeds.
    fn clear(&self) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot: self.number,
            guest_phys_addr: self.guest.0,
            ..Default::default()
        };
        // SAFETY: a size of zero deletes the slot and gives KVM no host memory.
        unsafe { self.vm.fd().set_user_memory_region(region) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            // The guest still reaches the memory, so the mapping stays, and so does the slot's number.
            tracing::error!(%error, guest = self.guest.0, "a KVM memory slot could not be cleared");
            return;
        }
        // SAFETY: `drop` runs once and nothing touches `backing` after it.
        unsafe { ManuallyDrop::drop(&mut self.backing) }
        self.vm.return_slot(self.number);
    }
}
