//! `KVM_GET_STATS_FD`, which kvm-ioctls lacks: the kernel's own counters of one vCPU, as a file.
//!
//! Reading the file is safe code elsewhere; here is only the ioctl that opens it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use kvm_ioctls::VcpuFd;

/// Opens the statistics of `vcpu` (`KVM_CAP_BINARY_STATS_FD`, Linux 5.14).
pub(crate) fn open(vcpu: &VcpuFd) -> io::Result<File> {
    // SAFETY: the request takes no argument and changes nothing but the table of descriptors; the vCPU is open, being borrowed.
    let fd = unsafe { libc::ioctl(vcpu.as_raw_fd(), KVM_GET_STATS_FD) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for this caller, so nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(File::from(fd))
}

/// `_IO(KVMIO, 0xce)` of `include/uapi/linux/kvm.h`.
const KVM_GET_STATS_FD: libc::c_ulong = 0xaece;
