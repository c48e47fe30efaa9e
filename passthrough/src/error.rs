//! One error enum per step. Each message says subject, cause and remedy; the kernel's errno is kept as the source.

mod assign;
mod refusal;
mod sriov;
mod vfio_user;

use std::io;
use std::path::PathBuf;

use pellucid_partition::{Bdf, ClaimError};

use crate::quarantine::Quarantine;
use crate::reset::ResetReport;

pub use assign::{AssignError, PlacementError};
use refusal::some;
pub use refusal::{Refusal, SetRefused};
pub use sriov::SriovError;
pub use vfio_user::VfioUserError;

/// The host could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot be read: {source}; are sysfs and proc mounted and readable for this user?", path = path.display())]
pub struct SurveyError {
    /// The file or directory.
    pub path: PathBuf,
    /// The kernel's answer.
    pub source: io::Error,
}

/// A function could not be taken off its driver, or given back to it.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Its claim was refused.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The host has begun to use it since it was admitted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What the host uses it for cannot be known.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// A sysfs attribute refused.
    #[error("device {device}: {path}: {source}; driver changes need root", path = path.display())]
    Sysfs {
        /// The function.
        device: Bdf,
        /// The attribute written.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A driver does not let go, or does not bind. If that cannot be broken off, the function stays claimed until the kernel is done.
    #[error(
        "device {device}: driver {driver} has not answered for {seconds} s; find what still uses it (open files, mounts; the kernel log may say more), then `vmm heal`"
    )]
    Stuck {
        /// The function.
        device: Bdf,
        /// The driver.
        driver: String,
        /// How long it was given.
        seconds: u64,
    },
    /// The wanted driver did not bind.
    #[error("device {device}: {wanted} did not bind, it has {}; the kernel log says why", driver(found.as_ref()))]
    NotBound {
        /// The function.
        device: Bdf,
        /// The driver wanted.
        wanted: String,
        /// The driver found.
        found: Option<String>,
    },
    /// The group's node did not come.
    #[error("device {device}: {node} did not appear; is /dev a devtmpfs or udev running?", node = node.display())]
    NoNode {
        /// The function.
        device: Bdf,
        /// The node.
        node: PathBuf,
    },
    /// The process that serves it does not.
    #[error(transparent)]
    Served(#[from] VfioUserError),
    /// A record that makes no sense.
    #[error("device {device}: its undo record is not readable: {source}; bind its driver by hand")]
    Record {
        /// The function.
        device: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its virtual functions are in use, and would go with its driver.
    #[error(
        "device {device}: its virtual functions {} are in use and would go with its driver; give them back first",
        some(functions)
    )]
    VirtualFunctions {
        /// The physical function.
        device: Bdf,
        /// Those in use.
        functions: Vec<Bdf>,
    },
    /// It failed its health proof and is kept away from everybody.
    #[error(
        "device {device}: quarantined: {}; `vmm heal` tries its resets again, `vmm heal --lift {device}` gives it back as it is",
        quarantine.reason
    )]
    Quarantined {
        /// The function.
        device: Bdf,
        /// What failed, when, and the evidence.
        quarantine: Box<Quarantine>,
    },
}

/// A function could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The container does not open.
    #[error("{path}: {source}; is vfio_iommu_type1 loaded, and /dev/vfio accessible to this user?", path = path.display())]
    Container {
        /// Its node.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The group does not open.
    #[error("device {device}: {node}: {source}; {}", group_remedy(source), node = node.display())]
    Group {
        /// The function.
        device: Bdf,
        /// The group's node.
        node: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A member of the group is still driven by the host.
    #[error(
        "device {device}: IOMMU group {group} is not viable, a member is still on a host driver; release that member too"
    )]
    NotViable {
        /// The function.
        device: Bdf,
        /// The group.
        group: u32,
    },
    /// The IOMMU backend refused.
    #[error(
        "device {device}: the IOMMU refused to serve it: {source}; the kernel log says why (interrupt remapping missing?)"
    )]
    Iommu {
        /// The function.
        device: Bdf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device does not open.
    #[error(
        "device {device}: cannot be opened through VFIO: {source}; {}",
        open_remedy(source)
    )]
    Open {
        /// The function.
        device: Bdf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The process that serves it does not.
    #[error(transparent)]
    Served(#[from] VfioUserError),
    /// It is not well, whatever was tried; one of the host's is quarantined.
    #[error("device {device}: not fit to be lent: {}; it needs a power cycle, or `vmm heal` later", report.fault().unwrap_or_default())]
    NotWell {
        /// The function.
        device: Bdf,
        /// What was tried and found.
        report: Box<ResetReport>,
    },
}

/// Giving back went wrong. What could be given back has been.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The host driver did not get it back, or must not: it is not well.
    #[error(transparent)]
    Driver(#[from] TakeError),
    /// Virtual functions that were made for it did not go.
    #[error(transparent)]
    Functions(#[from] SriovError),
}

impl ReleaseError {
    /// How the function was reset, if it is kept because it is not well.
    #[must_use]
    pub fn report(&self) -> Option<&ResetReport> {
        match self {
            ReleaseError::Driver(TakeError::Quarantined { quarantine, .. }) => quarantine.report.as_ref(),
            ReleaseError::Driver(_) | ReleaseError::Functions(_) => None,
        }
    }
}

fn driver(found: Option<&String>) -> String {
    found.map_or_else(|| "no driver".to_owned(), |name| format!("driver {name}"))
}

fn open_remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EACCES) => {
            "it shares a card with functions on vfio-pci: show their VF token (Claimed::with_token)"
        }
        _ => "the kernel log says why",
    }
}

fn group_remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EBUSY) => "another process has the group open; stop it first",
        Some(libc::EPERM) => "the platform gives no interrupt isolation, or the group is not for this user",
        Some(libc::EACCES) => "run as root or give this user access to the node",
        _ => "the kernel log says why",
    }
}
