//! What can be refused before anything is touched, and what can fail after.

use pellucid_image::{AcpiError, SmbiosError};
use pellucid_partition::{Bdf, ClaimError, CpuError, PartitionError, PlanError};
use pellucid_passthrough::{Refusal, SriovError, VfioUserError};

mod boot;
mod machine;

pub use boot::{BootError, VariablesError};
pub use machine::MachineError;

/// Why a logical server cannot be started here. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The host could not be surveyed.
    #[error(transparent)]
    Host(#[from] pellucid_partition::SurveyError),
    /// The host's PCI functions could not be surveyed.
    #[error(transparent)]
    Pci(#[from] pellucid_passthrough::SurveyError),
    /// KVM cannot be used.
    #[error("{reason}")]
    Kvm {
        /// Why, and what would help.
        reason: String,
    },
    /// CPUs or memory do not fit.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// CPUs cannot be held as asked.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// There is nothing to boot.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A device cannot be lent.
    #[error(transparent)]
    Device(#[from] Refusal),
    /// A device that another process serves cannot be had.
    #[error(transparent)]
    Served(#[from] VfioUserError),
    /// The devices cannot be where they are wanted.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A device is in quarantine, or a card does not have the virtual functions that are wanted.
    #[error(transparent)]
    Take(#[from] SriovError),
    /// Somebody else has a claim on what is wanted.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The server would not be the captured machine that it is to be.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// Addresses that a guest's PCI tree cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A domain that the board does not have.
    #[error("device {device}: the guest has PCI domain 0000 only; place it with at=0000:BUS:DEVICE.FUNCTION")]
    Domain {
        /// The address wanted.
        device: Bdf,
    },
    /// Two at one address, or one where the board has a function of its own.
    #[error(
        "device {device}: the address is taken in the guest by {by}; place it with at=BDF, free on bus 00: {free}"
    )]
    Taken {
        /// The address wanted.
        device: Bdf,
        /// Who has it.
        by: String,
        /// Device numbers that are free.
        free: String,
    },
    /// No port leads to the bus.
    #[error("device {device}: no free device number on bus 00 for a root port that leads to bus {:02x}", device.bus())]
    NoPort {
        /// The address wanted.
        device: Bdf,
    },
    /// No address for a device that wants any.
    #[error("{device}: no free device number on bus 00; place it with at=BDF on another bus")]
    Full {
        /// Where the device comes from.
        device: String,
    },
    /// A bridge of a captured machine that the board cannot have.
    #[error("device {device}: the bridge {bridge} above it cannot be had: {why}")]
    Bridge {
        /// The device's address on that machine.
        device: Bdf,
        /// The bridge's.
        bridge: Bdf,
        /// Why.
        why: &'static str,
    },
    /// A device that no hot-plug slot can have.
    #[error("device {device} cannot be hot-plugged: {why}")]
    HotPlug {
        /// Where it comes from.
        device: String,
        /// Why, and what would help.
        why: &'static str,
    },
    /// A device number that cannot be behind a port.
    #[error(
        "device {device}: behind a port an operating system only looks for device 0; place it with at=BDF, free there: {free}"
    )]
    Device {
        /// The address wanted.
        device: Bdf,
        /// Addresses on its bus that are free.
        free: String,
    },
}

/// Why a device was not unplugged. Unless it could not be given back, the guest still has it.
#[derive(Debug, thiserror::Error)]
pub enum UnplugError {
    /// The server has no such device.
    #[error("device {device} is not lent to this server; `vmm list` shows what is")]
    NotLent {
        /// The address given.
        device: Bdf,
    },
    /// It is not behind a hot-plug slot.
    #[error("device {device} is not in a hot-plug slot; start the server with --device {device},hotplug")]
    NoSlot {
        /// The device.
        device: Bdf,
    },
    /// It is unplugged already.
    #[error("device {device} is unplugged already")]
    Already {
        /// The device.
        device: Bdf,
    },
    /// The guest has not let go of it.
    #[error("device {device} is in use by the guest; ask for it first, or take it by force")]
    InUse {
        /// The device.
        device: Bdf,
    },
    /// The guest was asked and has not let go of it.
    #[error(
        "device {device}: the guest has not let go of it within {} s and keeps it; its operating system may have no PCI Express hot-plug \
         driver, or a driver that does not let go; take it by force", limit.as_secs_f32()
    )]
    Unanswered {
        /// The device.
        device: Bdf,
        /// How long it had.
        limit: std::time::Duration,
    },
    /// It was taken from the guest and is not back on its driver.
    #[error(transparent)]
    Release(#[from] pellucid_passthrough::ReleaseError),
}

/// Why a device was not plugged. It is where it was.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// The server was not started with it.
    #[error("device {device} was not lent to this server; what it was started with can be plugged again")]
    NotLent {
        /// The address given.
        device: Bdf,
    },
    /// The guest has it.
    #[error("device {device} is in the guest already")]
    InGuest {
        /// The device.
        device: Bdf,
    },
    /// The guest has not switched the slot off since the device went.
    #[error(
        "device {device}: the guest is not done with its slot, which its operating system switches off after a device has gone; if that has no \
         PCI Express hot-plug driver it never will"
    )]
    SlotInUse {
        /// The device.
        device: Bdf,
    },
    /// Something else is at its address on the host now.
    #[error(
        "device {device} is not the one that the guest had: its ids or BARs are others; start the server again with it"
    )]
    Another {
        /// The device.
        device: Bdf,
    },
    /// It cannot be lent now.
    #[error(transparent)]
    Refused(Box<CheckError>),
    /// It could not be taken or wired.
    #[error(transparent)]
    Lend(#[from] LendError),
}

/// Why a server that passed its check did not start. Everything taken was given back.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A claim was not granted.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// Memory or KVM refused.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// CPUs could not be held as asked.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// What is to be booted could not be loaded.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The board's tables could not be written.
    #[error(transparent)]
    Tables(#[from] AcpiError),
    /// The SMBIOS tables could not be written.
    #[error(transparent)]
    Smbios(#[from] SmbiosError),
    /// The board could not be built.
    #[error(transparent)]
    Board(#[from] pellucid_chipset::BoardError),
    /// A device could not be lent.
    #[error(transparent)]
    Lend(#[from] LendError),
    /// The vCPUs could not be created.
    #[error(transparent)]
    Park(#[from] pellucid_vcpu::ParkError),
    /// The vCPUs could not be run.
    #[error(transparent)]
    Run(#[from] pellucid_vcpu::StartError),
}

/// Why a device that may be lent was not. Every device is back on its driver.
#[derive(Debug, thiserror::Error)]
pub enum LendError {
    /// A device could not be taken off its driver.
    #[error(transparent)]
    Take(#[from] pellucid_passthrough::TakeError),
    /// Virtual functions could not be made or set up.
    #[error(transparent)]
    Functions(#[from] SriovError),
    /// The host's PCI functions could not be surveyed again.
    #[error(transparent)]
    Pci(#[from] pellucid_passthrough::SurveyError),
    /// A virtual function cannot be lent.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A device was offered and then not among those that were claimed.
    #[error("device {device}: it was not claimed with the others; examine the server again, and run it then")]
    Unclaimed {
        /// Its address in the guest.
        device: Bdf,
    },
    /// A device could not be opened.
    #[error(transparent)]
    Bind(#[from] pellucid_passthrough::BindError),
    /// A device could not be wired to the guest.
    #[error(transparent)]
    Assign(#[from] pellucid_passthrough::AssignError),
    /// BARs do not fit the guest's windows.
    #[error(transparent)]
    Bars(#[from] pellucid_passthrough::PlacementError),
    /// A function could not be shown at its address.
    #[error("device {device}: {source}")]
    Place {
        /// Its address in the guest.
        device: Bdf,
        /// Why.
        source: pellucid_chipset::PciError,
    },
    /// Nobody would learn of errors of the devices.
    #[error("watching for errors of the devices: {source}")]
    Watch {
        /// What the kernel refused.
        source: std::io::Error,
    },
    /// A device's interrupt line could not be connected.
    #[error(transparent)]
    Line(pellucid_partition::InterruptError),
}
