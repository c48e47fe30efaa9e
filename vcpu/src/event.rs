//! What a vCPU tells its owner: crashes and the guest's own requests, each by name and with its data. The sets are closed.

use std::fmt;

use crate::meter::Place;

/// Something that ended a vCPU without its owner's order. Its thread has left the guest for good; the others still run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VcpuEvent {
    /// The vCPU cannot go on.
    Crashed {
        /// Which one.
        vcpu: u32,
        /// Why.
        crash: Crash,
        /// The guest's instruction pointer, if it could still be read.
        rip: Option<u64>,
    },
    /// The guest asked the hypervisor for something (`KVM_EXIT_SYSTEM_EVENT`).
    System {
        /// Which vCPU asked.
        vcpu: u32,
        /// For what.
        request: SystemRequest,
    },
}

/// Why a vCPU cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Crash {
    /// A fault while delivering a double fault: the processor shut down (`KVM_EXIT_SHUTDOWN`).
    TripleFault,
    /// KVM could not emulate what the guest did (`KVM_EXIT_INTERNAL_ERROR`).
    Internal {
        /// `KVM_INTERNAL_ERROR_*`: 1 is a failed emulation, 4 an unexpected exit.
        suberror: u32,
        /// The kernel's data; for a failed emulation, flags, size and bytes of the instruction.
        data: Vec<u64>,
    },
    /// The processor refused to enter the guest (`KVM_EXIT_FAIL_ENTRY`).
    FailedEntry {
        /// The hardware's reason: VMX instruction error or SVM exit code.
        hardware_reason: u64,
        /// The host CPU that refused.
        cpu: u32,
    },
    /// Guest memory that its host cannot provide (`KVM_EXIT_MEMORY_FAULT`).
    MemoryFault {
        /// Guest-physical address.
        address: u64,
        /// Bytes.
        size: u64,
        /// `KVM_MEMORY_EXIT_FLAG_*`.
        flags: u64,
    },
    /// `KVM_RUN` failed.
    RunFailed {
        /// The kernel's error number.
        errno: i32,
    },
    /// An exit that KVM should not make with this crate's settings.
    UnexpectedExit {
        /// `KVM_EXIT_*`.
        reason: u32,
    },
    /// A device's handler panicked: an invariant of the host's program is broken, not the guest's fault.
    HandlerPanicked {
        /// What the vCPU was in.
        place: Place,
        /// The panic's message.
        message: String,
    },
}

/// What a guest can ask of its hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemRequest {
    /// Power off.
    Shutdown,
    /// Reset.
    Reset,
    /// Note that it has crashed.
    Crash,
    /// A request of a later kernel.
    Other(u32),
}

impl SystemRequest {
    pub(crate) fn from_kvm(kind: u32) -> Self {
        match kind {
            kvm_bindings::KVM_SYSTEM_EVENT_SHUTDOWN => Self::Shutdown,
            kvm_bindings::KVM_SYSTEM_EVENT_RESET => Self::Reset,
            kvm_bindings::KVM_SYSTEM_EVENT_CRASH => Self::Crash,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for VcpuEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crashed {
                vcpu,
                crash,
                rip: Some(rip),
            } => write!(f, "vCPU {vcpu} at {rip:#x}: {crash}"),
            Self::Crashed {
                vcpu,
                crash,
                rip: None,
            } => write!(f, "vCPU {vcpu}: {crash}"),
            Self::System { vcpu, request } => write!(f, "vCPU {vcpu} asked for {request:?}"),
        }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TripleFault => f.write_str("triple fault: the guest's processor shut down"),
            Self::Internal { suberror, data } => write!(f, "KVM internal error {suberror}, data {data:x?}"),
            Self::FailedEntry { hardware_reason, cpu } => {
                write!(
                    f,
                    "host CPU {cpu} refused to enter the guest, hardware reason {hardware_reason:#x}"
                )
            }
            Self::MemoryFault { address, size, flags } => {
                write!(
                    f,
                    "no memory behind guest address {address:#x} ({size} bytes, flags {flags:#x})"
                )
            }
            Self::RunFailed { errno } => {
                write!(f, "KVM_RUN failed: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Self::UnexpectedExit { reason } => write!(f, "KVM made exit {reason}, which was not asked for"),
            Self::HandlerPanicked { place, message } => write!(f, "a handler panicked in {place}: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_who_where_and_why() {
        let crash = Crash::Internal {
            suberror: 1,
            data: vec![0x10],
        };
        let event = VcpuEvent::Crashed {
            vcpu: 3,
            crash,
            rip: Some(0x1000),
        };
        assert_eq!(
            event.to_string(),
            "vCPU 3 at 0x1000: KVM internal error 1, data [10]"
        );
        let crash = Crash::RunFailed { errno: libc::EFAULT };
        let event = VcpuEvent::Crashed {
            vcpu: 0,
            crash,
            rip: None,
        }
        .to_string();
        assert!(
            event.contains("Bad address") && event.contains("os error 14"),
            "{event}"
        );
    }

    #[test]
    fn a_request_of_a_later_kernel_keeps_its_number() {
        assert_eq!(SystemRequest::from_kvm(1), SystemRequest::Shutdown);
        assert_eq!(SystemRequest::from_kvm(2), SystemRequest::Reset);
        assert_eq!(SystemRequest::from_kvm(77), SystemRequest::Other(77));
    }
}
