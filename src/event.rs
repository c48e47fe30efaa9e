//! What a running server tells its owner.

use pellucid_partition::Bdf;
use pellucid_passthrough::ResetReport;
use pellucid_vcpu::{SystemRequest, VcpuEvent};

/// Something that happened to a running server. Told on the thread where it happened: the receiver must not block.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerEvent {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// A vCPU cannot go on; the text names it, its place and the cause.
    Crashed {
        /// What KVM or the run loop said.
        cause: String,
    },
    /// A lent device reported an error that it could not recover from.
    DeviceError {
        /// Its address on the host; in the guest, if another process serves it.
        device: Bdf,
    },
    /// A lent device was reset after the guest, and is back on its driver if it is well.
    DeviceReset {
        /// What was tried, how long it took, what was found.
        report: Box<ResetReport>,
    },
    /// The host asks for a lent device back.
    DeviceWanted {
        /// Its address on the host; in the guest, if another process serves it.
        device: Bdf,
    },
    /// The process that serves a lent device has gone, or was given up: the guest reads all ones from the device.
    DeviceLost {
        /// Its address in the guest; a served device has none on the host.
        device: Bdf,
    },
}

impl ServerEvent {
    pub(crate) fn of_vcpu(event: VcpuEvent) -> Self {
        match event {
            VcpuEvent::System {
                request: SystemRequest::Shutdown,
                ..
            } => Self::PowerOff,
            VcpuEvent::System {
                request: SystemRequest::Reset,
                ..
            } => Self::Reset,

            other => Self::Crashed {
                cause: other.to_string(),
            },
        }
    }
}
