//! One `KVM_RUN` and its exit, as a closed set: what this crate did not ask for becomes a crash with its data, never a guess.

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::event::{Crash, SystemRequest};
use crate::sys::run_page::RunPage;

/// Why `KVM_RUN` came back. The slices are the guest's data inside `kvm_run`.
pub(crate) enum Exit<'a> {
    /// Reads from a port, `item` bytes each: more than one for a string instruction.
    PioRead {
        port: u16,
        item: usize,
        data: &'a mut [u8],
    },
    /// Writes to a port, `item` bytes each.
    PioWrite { port: u16, item: usize, data: &'a [u8] },
    /// A read of 1 to 8 bytes where no memory is.
    MmioRead { address: u64, data: &'a mut [u8] },
    /// A write of 1 to 8 bytes where no memory is.
    MmioWrite { address: u64, data: &'a [u8] },
    /// A signal, the bell, or a vCPU that has just been started by another; pending I/O is complete.
    Interrupted,
    /// The guest asks for something.
    System(SystemRequest),
    /// The vCPU cannot go on.
    Crash(Crash),
}

/// Runs the guest until it leaves. `page` is the same vCPU's.
pub(crate) fn run<'a>(fd: &'a mut VcpuFd, page: &RunPage) -> Exit<'a> {
    match fd.run() {
        Ok(VcpuExit::IoIn(port, data)) => Exit::PioRead {
            port,
            item: page.io_item_size(),
            data,
        },
        Ok(VcpuExit::IoOut(port, data)) => Exit::PioWrite {
            port,
            item: page.io_item_size(),
            data,
        },
        Ok(VcpuExit::MmioRead(address, data)) => Exit::MmioRead { address, data },
        Ok(VcpuExit::MmioWrite(address, data)) => Exit::MmioWrite { address, data },
        Ok(VcpuExit::Intr) => Exit::Interrupted,
        Ok(VcpuExit::Shutdown) => Exit::Crash(Crash::TripleFault),
        Ok(VcpuExit::SystemEvent(kind, _)) => Exit::System(SystemRequest::from_kvm(kind)),
        Ok(VcpuExit::FailEntry(hardware_reason, cpu)) => {
            Exit::Crash(Crash::FailedEntry { hardware_reason, cpu })
        }
        Ok(VcpuExit::InternalError) => {
            let (suberror, data) = page.internal_error();
            Exit::Crash(Crash::Internal { suberror, data })
        }
        Ok(VcpuExit::MemoryFault { flags, gpa, size }) => Exit::Crash(Crash::MemoryFault {
            address: gpa,
            size,
            flags,
        }),
        Ok(_) => Exit::Crash(Crash::UnexpectedExit {
            reason: page.exit_reason(),
        }),
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Exit::Interrupted,
        Err(error) => Exit::Crash(Crash::RunFailed { errno: error.errno() }),
    }
}
