//! Removing virtual functions that nobody uses any more, from the record of who made them.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pellucid_partition::{Bdf, Healer, Resource, StateDir};

use super::{Before, number, restore};
use crate::claimed::RESOURCE_KIND;
use crate::driver::{DRIVER_LIMIT, DriverSeat};
use crate::error::{SriovError, TakeError};

/// Removes the virtual functions that dead processes made, once nobody uses one. The ledger comes to it after the functions themselves.
#[derive(Debug, Clone)]
pub struct SriovHealer {
    state: StateDir,
    root: PathBuf,
    patience: Duration,
}

impl SriovHealer {
    /// The kind of record that it understands.
    pub const KIND: &str = "sriov";

    /// A healer of this host, where functions are claimed in `state`.
    #[must_use]
    pub fn of(state: &StateDir) -> SriovHealer {
        SriovHealer {
            state: state.clone(),
            root: PathBuf::from("/"),
            patience: DRIVER_LIMIT,
        }
    }

    /// On the host whose `sys` is below `root`.
    #[must_use]
    pub fn at(self, root: &Path) -> SriovHealer {
        SriovHealer {
            root: root.to_owned(),
            ..self
        }
    }

    fn remove(&self, device: Bdf, before: &Before) -> Result<(), SriovError> {
        let seat = DriverSeat::new(&self.root, device, self.patience);
        if !seat.exists() {
            tracing::warn!(%device, "the physical function is no longer in this machine");
            return Ok(());
        }
        let now = number(&seat, "sriov_numvfs").unwrap_or(0);
        if now != before.made && now != 0 {
            tracing::warn!(%device, now, made = before.made, "others changed the number of virtual functions; left to them");
            return Ok(());
        }
        let functions = seat.virtual_functions();
        // Held until they are gone, so that nobody begins to use one meanwhile.
        let mut claims = Vec::new();
        let mut used = Vec::new();
        for function in functions {
            let resource = Resource::new(RESOURCE_KIND, &function.to_string());
            let driven = DriverSeat::new(&self.root, function, self.patience)
                .bound()
                .is_some();
            match self.state.claim(resource, "removal of virtual functions") {
                Ok(claim) if !driven => claims.push(claim),
                _ => used.push(function),
            }
        }
        if !used.is_empty() {
            return Err(SriovError::InUse {
                device,
                functions: used,
            });
        }
        restore(&seat, before).map_err(|source| SriovError::Refused {
            device,
            source: Box::new(source),
        })?;
        for claim in claims {
            claim.release().map_err(TakeError::from)?;
        }
        Ok(())
    }
}

impl Healer for SriovHealer {
    fn kind(&self) -> &str {
        Self::KIND
    }

    fn undo(&self, resource: &str, record: &serde_json::Value) -> Result<(), Box<dyn Error + Send + Sync>> {
        let device = resource.parse()?;
        let before = serde_json::from_value(record.clone())?;
        Ok(self.remove(device, &before)?)
    }
}
