//! Why virtual functions could not be had.

use pellucid_partition::Bdf;

use super::TakeError;
use super::refusal::some;

/// Virtual functions could not be made, set up or removed.
#[derive(Debug, thiserror::Error)]
pub enum SriovError {
    /// Not a physical function.
    #[error(
        "device {device}: it has no virtual functions (no SR-IOV, or the firmware has turned it off); lend the device itself"
    )]
    Incapable {
        /// The function asked for.
        device: Bdf,
    },
    /// More than there can be, or none.
    #[error("device {device}: {count} virtual functions are not possible, 1 to {total} are")]
    Count {
        /// The physical function.
        device: Bdf,
        /// How many were asked for.
        count: u16,
        /// How many there can be.
        total: u16,
    },
    /// There are some, and their number cannot grow.
    #[error(
        "device {device}: it has {now} virtual functions and {count} are needed; release those first, or let the first server ask for {count} (vfs={count})"
    )]
    Few {
        /// The physical function.
        device: Bdf,
        /// How many there are.
        now: u16,
        /// How many are needed.
        count: u16,
    },
    /// They did not come.
    #[error(
        "device {device}: {there} of {count} virtual functions came into an IOMMU group; is the IOMMU on, and room on the bus for them?"
    )]
    Missing {
        /// The physical function.
        device: Bdf,
        /// How many are there.
        there: usize,
        /// How many were asked for.
        count: u16,
    },
    /// Somebody uses one.
    #[error(
        "device {device}: its virtual functions {} are in use; they go when nobody uses one",
        some(functions)
    )]
    InUse {
        /// The physical function.
        device: Bdf,
        /// Those in use.
        functions: Vec<Bdf>,
    },
    /// The driver of the physical function refused.
    #[error("device {device}: its driver does not do it: {source}")]
    Refused {
        /// The physical function.
        device: Bdf,
        /// What it said.
        source: Box<TakeError>,
    },
    /// Not a virtual function of a network card that is up in this host.
    #[error(
        "device {device}: no network interface of its physical function is here to set it up; is the card on its host driver?"
    )]
    NoInterface {
        /// The virtual function.
        device: Bdf,
    },
    /// The network card's driver refused.
    #[error(
        "device {device}: its MAC address or VLAN cannot be set: {source}; does the driver of the physical function have that?"
    )]
    Settings {
        /// The virtual function.
        device: Bdf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Its claim was refused.
    #[error(transparent)]
    Take(#[from] TakeError),
}
