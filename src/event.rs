//! What a running server tells its owner.

use std::path::PathBuf;

use pellucid_partition::Bdf;
use pellucid_passthrough::{Counts, DeviceEvent, DmaFault, ErrorReport, ResetReport};
use pellucid_vcpu::{SystemRequest, VcpuEvent};

use crate::policy::{DevicePolicy, Reaction};

/// Something that happened to a running server. Told on the thread where it happened: the receiver must not block.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerEvent {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest set its clock: to start it with this offset again lets the clock run on. A guest can set it as often as it likes; who
    /// keeps the offset asks [`LogicalServer::clock_offset`](crate::LogicalServer::clock_offset) at his own pace.
    ClockSet {
        /// How many seconds it is ahead of the host's now.
        offset: i64,
    },
    /// A vCPU cannot go on; the text names it, its place and the cause.
    Crashed {
        /// What KVM or the run loop said.
        cause: String,
    },
    /// An error that could not be corrected came through the port that a lent device is below.
    DeviceError {
        /// Its address on the host; in the guest, if another process serves it.
        device: Bdf,
        /// Whose error it was, and which.
        report: ErrorReport,
        /// What its policy asks for; [`LogicalServer::react`](crate::LogicalServer::react) does it.
        reaction: Reaction,
    },
    /// A lent device had more corrected errors than its policy is silent about.
    DeviceCorrected {
        /// Its address on the host; in the guest, if another process serves it.
        device: Bdf,
        /// How many since the server started, or since devices were last plugged or unplugged.
        corrected: u64,
        /// Those of them since that was last told, or within the time that the policy has set.
        recent: Counts,
    },
    /// The IOMMU blocked what a lent device wanted to do: its guest is hostile or mistaken, or the device is broken.
    DeviceBlocked {
        /// Which device, what, and where.
        fault: DmaFault,
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
        /// What its policy asks for; [`LogicalServer::react`](crate::LogicalServer::react) does it.
        reaction: Reaction,
    },
    /// The guest has switched off a hot-plug slot, as its owner has waited for: what is in it may be unplugged, or something plugged.
    SlotOff {
        /// The device that was named when the waiting began.
        device: Bdf,
    },
    /// The process that serves a lent device has gone, or was given up: the guest reads all ones from the device.
    DeviceLost {
        /// Its address in the guest; a served device has none on the host.
        device: Bdf,
        /// What its policy asks for after an error; [`LogicalServer::react`](crate::LogicalServer::react) does it.
        reaction: Reaction,
    },
    /// The guest's firmware has put something elsewhere than it is on the host.
    PlacedElsewhere {
        /// The device or port, by its address in the guest at first.
        device: Bdf,
        /// What of it.
        what: String,
        /// Where the host has it.
        host: u64,
        /// Where the guest has it.
        guest: u64,
    },
    /// What the guest wrote to its firmware's variables could not be kept.
    VariablesLost {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
}

impl ServerEvent {
    pub(crate) fn of_device(event: DeviceEvent, policy: &DevicePolicy) -> Self {
        match event {
            DeviceEvent::Error { device, report } => Self::DeviceError {
                device,
                reaction: policy.reaction_to(&report),
                report,
            },
            DeviceEvent::Wanted { device } => Self::DeviceWanted {
                device,
                reaction: policy.on_request,
            },
            DeviceEvent::Lost { device } => Self::DeviceLost {
                device,
                reaction: policy.on_error,
            },
            DeviceEvent::Corrected {
                device,
                corrected,
                recent,
            } => Self::DeviceCorrected {
                device,
                corrected,
                recent,
            },
            DeviceEvent::Blocked { fault } => Self::DeviceBlocked { fault },
        }
    }

    /// The device that a policy has something to say about, and what.
    pub(crate) fn reaction(&self) -> Option<(Bdf, Reaction)> {
        match self {
            Self::DeviceError { device, reaction, .. }
            | Self::DeviceWanted { device, reaction }
            | Self::DeviceLost { device, reaction } => Some((*device, *reaction)),
            _ => None,
        }
    }

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
