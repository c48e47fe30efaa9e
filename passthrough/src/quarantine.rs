//! Functions that failed their health proof: kept away from everybody, over the end of every process, until a reset is proved or a
//! person lifts it.

use std::time::{SystemTime, UNIX_EPOCH};

use pellucid_partition::{Bdf, ClaimError, ClaimRecord, Resource, StateDir};
use serde::{Deserialize, Serialize};

use crate::claimed::RESOURCE_KIND;
use crate::driver::Way;
use crate::heal::PciHealer;
use crate::reset::ResetReport;

/// Why a function is kept away from its driver and from every guest. It stands in the function's undo record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quarantine {
    /// What failed.
    pub reason: String,
    /// When, in seconds since 1970.
    pub since: u64,
    /// What was tried, and what was found.
    #[serde(default)]
    pub report: Option<ResetReport>,
}

impl Quarantine {
    pub(crate) fn now(reason: String, report: Option<ResetReport>) -> Quarantine {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Quarantine {
            reason,
            since: since.map_or(0, |since| since.as_secs()),
            report,
        }
    }

    /// The quarantine that a claim's record tells of, if it does.
    #[must_use]
    pub fn of(record: &ClaimRecord) -> Option<Quarantine> {
        let undo = record.undo.as_ref().filter(|undo| undo.kind == PciHealer::KIND)?;
        let way: Way = serde_json::from_value(undo.data.clone()).ok()?;
        way.quarantined
    }

    /// The quarantine of `device`, if it is in one.
    pub fn find(state: &StateDir, device: Bdf) -> Result<Option<Quarantine>, ClaimError> {
        let resource = Resource::new(RESOURCE_KIND, &device.to_string());
        let records = state.records()?;
        let of_it = records.iter().find(|(record, _)| record.resource == resource);
        Ok(of_it.and_then(|(record, _)| Quarantine::of(record)))
    }
}
