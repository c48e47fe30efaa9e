//! KVM memory slots: each owns the host memory that it shows to the guest.

use std::sync::Arc;

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vm_memory::GuestAddress;

use super::mapping::Backing;
use crate::vm::Access;

/// Shows `backing` to the guest at `guest` as slot `slot`.
///
/// The caller keeps `backing` alive until [`clear`] was called for the slot: [`crate::Slot`] does, by owning both.
pub(crate) fn fill(
    vm: &VmFd,
    slot: u32,
    guest: GuestAddress,
    backing: &Arc<dyn Backing>,
    access: Access,
) -> Result<(), kvm_ioctls::Error> {
    let flags = match access {
        Access::ReadWrite => 0,
        Access::ReadOnly => KVM_MEM_READONLY,
    };
    let region = kvm_userspace_memory_region {
        slot,
        flags,
        guest_phys_addr: guest.0,
        memory_size: backing.size(),
        userspace_addr: backing.host().0,
    };
    // SAFETY: `Backing` promises that host address and size are a live mapping of its own, and the slot that is
    // being filled holds the `Arc`, so the guest loses the range before the mapping goes.
    unsafe { vm.set_user_memory_region(region) }
}

/// Takes slot `slot` away from the guest; KVM has let go of the host memory when this returns.
pub(crate) fn clear(vm: &VmFd, slot: u32, guest: GuestAddress) -> Result<(), kvm_ioctls::Error> {
    let region = kvm_userspace_memory_region {
        slot,
        guest_phys_addr: guest.0,
        ..Default::default()
    };
    // SAFETY: a size of zero deletes the slot and gives KVM no host memory.
    unsafe { vm.set_user_memory_region(region) }
}
