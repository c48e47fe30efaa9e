//! What can be refused before anything is touched, and what can fail after.

use pellucid_image::{AcpiError, DiscoverError, LoadError};
use pellucid_partition::{Bdf, ClaimError, CpuError, PartitionError, PlanError};
use pellucid_passthrough::{Refusal, SriovError, VfioUserError};

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
    /// The disk has nothing to boot.
    #[error(transparent)]
    Disk(#[from] DiscoverError),
    /// The kernel cannot be read.
    #[error(transparent)]
    Kernel(#[from] LoadError),
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
    /// The disk could not be read.
    #[error(transparent)]
    Disk(#[from] DiscoverError),
    /// The kernel could not be loaded.
    #[error(transparent)]
    Kernel(#[from] LoadError),
    /// The board's tables could not be written.
    #[error(transparent)]
    Tables(#[from] AcpiError),
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
