#![doc = include_str!("../README.md")]

mod admit;
mod advice;
mod aer;
mod assigned;
mod bars;
mod bound;
mod capabilities;
mod census;
mod claimant;
mod claimed;
mod config;
mod custody;
mod dma;
mod dma_fault;
mod driver;
mod endpoint;
mod error;
mod error_watch;
mod events;
mod groups;
mod guest;
mod heal;
mod held;
mod inventory;
mod lease;
mod line;
mod link;
mod messages;
mod msix;
mod peers;
mod placement;
mod quarantine;
mod reset;
#[cfg(test)]
mod script;
mod space;
mod sriov;
mod standing;
#[allow(
    unsafe_code,
    reason = "VFIO is ioctls, which have no safe interface; sys/ gives them one"
)]
mod sys;
mod transport;
mod vectors;
mod vf;
mod vfio_user;
mod windows;
mod wiring;

pub use admit::{Admitted, Wanted};
pub use advice::{Advice, Reason, Verdict};
pub use aer::{Blame, ErrorReport, Severity};
pub use assigned::Assigned;
pub use bars::{Allowed, BarShape, Change, Decode, Open};
pub use bound::{Bound, Released};
pub use capabilities::{Capabilities, Capability};
pub use claimant::Claimant;
pub use claimed::{Claimed, RESOURCE_KIND};
pub use config::{ConfigOrigin, ConfigTable, Register, SIZE as CONFIG_SIZE, Source, Written};
pub use dma::DmaProgress;
pub use dma_fault::{Access, DmaFault};
pub use endpoint::Endpoint;
pub use error::{
    AssignError, BindError, PlacementError, Refusal, ReleaseError, SetRefused, SriovError, SurveyError,
    TakeError, VfioUserError,
};
pub use error_watch::{ErrorWatch, Threshold, Watched};
pub use events::{DeviceEvent, EventSink};
pub use guest::{Guest, View};
pub use heal::PciHealer;
pub use inventory::{
    Bar, BarKind, Bridge, Condition, Counts, DriverState, ErrorCounts, Function, Group, Ids, Inventory, Name,
    Names, NodeState, Place, PowerState, ReservedRegion, Sriov, Use, VfioState,
};
pub use msix::{Geometry, MsixTable, Part};
pub use peers::{BarMapper, Peers};
pub use placement::{Placement, PlacementWindows, PortWindows};
pub use quarantine::Quarantine;
pub use reset::{Check, Finding, ResetAct, ResetLadder, ResetOutcome, ResetReport, ResetStep};
pub use space::IoSpace;
pub use sriov::{SRIOV_KIND, SriovHealer, VirtualFunctions};
pub use standing::{Member, Standing};
pub use transport::{IrqInfo, IrqKind, RegionIndex, RegionInfo, Transport};
pub use vf::{MacAddress, VfError, VfSettings, VfToken, Vlan};
pub use vfio_user::Served;

/// Claims are kept in it; here so that this crate can be used alone.
pub use pellucid_partition::StateDir;
