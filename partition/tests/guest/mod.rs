//! A guest of a few bytes: one vCPU in real mode that starts at 0x1000, and what it did first.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses its part; a guest that cannot be made ends its test"
)]

use std::os::fd::AsFd;
use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd};
use pellucid_partition::{Mapping, Vm};

/// Where the guest's code begins.
pub const CODE: u64 = 0x1000;
/// `mov al, [0x2000]; out 0x10, al; hlt`
pub const LOAD: [u8; 6] = [0xa0, 0x00, 0x20, 0xe6, 0x10, 0xf4];
/// `mov al, 0x77; mov [0x2000], al; out 0x10, al; hlt`
pub const STORE: [u8; 8] = [0xb0, 0x77, 0xa2, 0x00, 0x20, 0xe6, 0x10, 0xf4];

/// Why the guest came out first.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit {
    Out(u16, u8),
    Load(u64),
    Store(u64, u8),
    Other(String),
}

/// The bootstrap processor about to run the code at [`CODE`].
pub fn vcpu(vm: &Vm) -> VcpuFd {
    let vcpu = vm.fd().create_vcpu(0).unwrap();
    restart(&vcpu);
    vcpu
}

pub fn restart(vcpu: &VcpuFd) {
    let mut sregs = vcpu.get_sregs().unwrap();
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs).unwrap();
    let mut regs = vcpu.get_regs().unwrap();
    (regs.rip, regs.rflags) = (CODE, 2);
    vcpu.set_regs(&regs).unwrap();
}

pub fn run(vcpu: &mut VcpuFd) -> Exit {
    match vcpu.run().unwrap() {
        VcpuExit::IoOut(port, data) => Exit::Out(port, data[0]),
        VcpuExit::MmioRead(address, _) => Exit::Load(address),
        VcpuExit::MmioWrite(address, data) => Exit::Store(address, data[0]),
        other => Exit::Other(format!("{other:?}")),
    }
}

/// `size` bytes of memory that begin with `bytes`.
pub fn memory(size: usize, bytes: &[u8]) -> Arc<Mapping> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size as u64).unwrap();
    let mapping = Mapping::shared(file.as_fd(), 0, size).unwrap();
    for (offset, byte) in bytes.iter().enumerate() {
        assert!(mapping.write(offset, &[*byte]));
    }
    Arc::new(mapping)
}
