//! The record by which a function can be given back, by this process or by any later one.

use pellucid_partition::Claim;
use serde::{Deserialize, Serialize};

use super::{Settings, VfBefore};
use crate::error::TakeError;
use crate::heal::PciHealer;
use crate::inventory::DriverState;
use crate::quarantine::Quarantine;

/// How to give a function back: written and synced before the first change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// The driver and the override that it had.
    pub(crate) original: DriverState,
    /// What else a change of drivers loses.
    #[serde(default)]
    pub(crate) settings: Settings,
    /// What its physical function had for it, if that was changed.
    #[serde(default)]
    pub(crate) vf: Option<VfBefore>,
    /// Why it is kept away from its driver, if it failed its health proof.
    pub(crate) quarantined: Option<Quarantine>,
}

impl Way {
    /// Writes it to the function's claim.
    pub(crate) fn record(&self, claim: &mut Claim) -> Result<(), TakeError> {
        let unreadable = |error: serde_json::Error| TakeError::Record {
            device: claim.record().resource.name.clone(),
            source: error.into(),
        };
        let value = serde_json::to_value(self).map_err(unreadable)?;
        Ok(claim.record_undo(PciHealer::KIND, &value)?)
    }
}
