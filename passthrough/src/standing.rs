//! What the members of an IOMMU group are to somebody who wants to lend others of it: in the way, or not.
//!
//! Stricter than the kernel, which asks only whether a member has a driver that does DMA: see decision 0016.

use std::fmt;

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

use crate::census::Census;
use crate::inventory::{DriverState, Function, Inventory};

/// What a member of an IOMMU group is to those who want others of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "standing")]
pub enum Standing {
    /// A PCI-to-PCI bridge that only passes on what others send. Not in the way.
    Bridge,
    /// A host bridge without a driver: the root of the tree, which sends nothing itself. Not in the way.
    HostBridge,
    /// A driver that only keeps others away has it, or is the only one that may. Not in the way.
    Parked {
        /// The driver: pci-stub, or one of the vfio-pci family.
        driver: String,
    },
    /// No driver has it, and any may come and take it: in the way.
    Idle,
    /// A host driver has it: in the way.
    Driven {
        /// The driver.
        driver: String,
    },
    /// The survey could not read it, or it is no PCI function: in the way.
    Unknown,
}

/// A member of an IOMMU group, and what it is to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name: the address, or what the kernel calls a device that is no PCI function.
    pub device: String,
    /// Its address, if it is a PCI function.
    pub bdf: Option<Bdf>,
    /// What it is to those who want others of the group.
    #[serde(flatten)]
    pub standing: Standing,
    /// Whether it is a bridge, which cannot be lent itself.
    pub bridge: bool,
}

impl Standing {
    pub(crate) fn of(function: &Function) -> Standing {
        let parking = |driver: &String| DriverState::parks(driver);
        let DriverState { bound, only } = &function.driver;
        match bound.as_ref().or(only.as_ref()) {
            _ if function.is_transparent_bridge() => Standing::Bridge,
            Some(driver) if parking(driver) => Standing::Parked {
                driver: driver.clone(),
            },
            _ if bound.is_none() && function.ids.class >> 8 == HOST_BRIDGE => Standing::HostBridge,
            _ => bound.as_ref().map_or(Standing::Idle, |driver| Standing::Driven {
                driver: driver.clone(),
            }),
        }
    }

    /// Whether it keeps the others of its group from being lent.
    #[must_use]
    pub fn hinders(&self) -> bool {
        matches!(self, Standing::Idle | Standing::Driven { .. } | Standing::Unknown)
    }
}

impl Member {
    /// Whether it can be in a set that is lent together, as far as it alone decides.
    #[must_use]
    pub fn can_join(&self) -> bool {
        !self.bridge && self.standing != Standing::Unknown
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Member { device, .. } = self;
        match &self.standing {
            Standing::Bridge => write!(f, "{device} (bridge)"),
            Standing::HostBridge => write!(f, "{device} (host bridge)"),
            Standing::Parked { driver } => write!(f, "{device} (parked on {driver})"),
            Standing::Idle => write!(f, "{device} (no driver)"),
            Standing::Driven { driver } => write!(f, "{device} (driver {driver})"),
            Standing::Unknown => write!(f, "{device} (not readable)"),
        }
    }
}

impl Inventory {
    /// All members of an IOMMU group with what they are to one another, by address.
    #[must_use]
    pub fn members(&self, group: u32) -> Vec<Member> {
        Census::of(self).members(group).to_vec()
    }
}

/// Base class and sub-class of a host bridge.
const HOST_BRIDGE: u32 = 0x0600;
