//! `KVM_X86_SETUP_MCE`, which kvm-ioctls lacks: what a vCPU's IA32_MCG_CAP says.

use std::io;
use std::os::fd::AsRawFd;

use kvm_ioctls::VcpuFd;

/// Sets IA32_MCG_CAP; its low byte is the number of banks, which KVM then has for this vCPU.
pub(crate) fn fix_capability(vcpu: &VcpuFd, capability: u64) -> io::Result<()> {
    // SAFETY: the kernel reads eight bytes from where the argument points, and they live across the call.
    let result = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_X86_SETUP_MCE, &raw const capability) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `_IOW(KVMIO, 0x9c, __u64)` of `include/uapi/linux/kvm.h`.
const KVM_X86_SETUP_MCE: libc::c_ulong = 0x4008_ae9c;
