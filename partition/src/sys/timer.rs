//! `KVM_REINJECT_CONTROL`, which kvm-ioctls lacks: whether KVM's timer makes up for ticks that the guest was too slow for.

use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::kvm_reinject_control;
use kvm_ioctls::VmFd;

/// Has the VM's timer (`KVM_CREATE_PIT2`) drop ticks while an earlier one is not yet acknowledged.
pub(crate) fn drop_late_ticks(vm: &VmFd) -> io::Result<()> {
    let control = kvm_reinject_control::default();
    // SAFETY: the kernel reads one `kvm_reinject_control`, whose clear `pit_reinject` is what is asked for, and keeps nothing of it.
    let result = unsafe { libc::ioctl(vm.as_raw_fd(), KVM_REINJECT_CONTROL, &raw const control) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `_IO(KVMIO, 0x71)` (include/uapi/linux/kvm.h).
const KVM_REINJECT_CONTROL: libc::c_ulong = 0xae71;
