//! Giving back what a dead process took, from the record that it wrote before.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pellucid_partition::{Bdf, Healer};

use crate::driver::{DRIVER_LIMIT, DriverSeat, Way};
use crate::error::TakeError;
use crate::inventory::Inventory;

/// Restores functions to the drivers that they had. The ledger calls it only for claims without a living holder.
#[derive(Debug, Clone)]
pub struct PciHealer {
    root: PathBuf,
    patience: Duration,
    lifted: Vec<Bdf>,
}

impl PciHealer {
    /// The kind of record that it understands.
    pub const KIND: &str = "pci-driver";

    /// A healer of this host.
    #[must_use]
    pub fn new() -> PciHealer {
        PciHealer::at(Path::new("/"))
    }

    /// A healer of the host whose `sys` is below `root`.
    #[must_use]
    pub fn at(root: &Path) -> PciHealer {
        PciHealer {
            root: root.to_owned(),
            patience: DRIVER_LIMIT,
            lifted: Vec::new(),
        }
    }

    /// Waits that long for a driver to let go or to bind, instead of 30 s.
    #[must_use]
    pub fn patient_for(self, patience: Duration) -> PciHealer {
        PciHealer { patience, ..self }
    }

    /// Gives `device` back to its driver although it failed its proof: a person has looked at it.
    #[must_use]
    pub fn lifting(mut self, device: Bdf) -> PciHealer {
        self.lifted.push(device);
        self
    }

    fn restore(&self, resource: &str, record: &serde_json::Value) -> Result<(), TakeError> {
        let unreadable = |source: Box<dyn Error + Send + Sync>| TakeError::Record {
            device: resource.to_owned(),
            source,
        };
        let device: Bdf = resource
            .parse()
            .map_err(|error: pellucid_partition::BdfError| unreadable(error.into()))?;
        let way: Way = serde_json::from_value(record.clone()).map_err(|error| unreadable(error.into()))?;
        let seat = Arc::new(DriverSeat::new(&self.root, device, self.patience));
        // One that a healer has given back before it died is in use, and not to be reset.
        if way.quarantined.is_some() && seat.is_away() && !self.lifted.contains(&device) {
            self.prove(device, &seat, &way)?;
        }
        seat.restore(&way)?;
        tracing::info!(%device, to = ?way.original.bound, "healed");
        Ok(())
    }
}

impl PciHealer {
    /// Tries every reset on a function in quarantine. It stays there unless one is proved.
    fn prove(&self, device: Bdf, seat: &Arc<DriverSeat>, way: &Way) -> Result<(), TakeError> {
        // One that died on the ladder has left the method that it was at.
        restore_reset_methods(seat, way);
        let host = Inventory::survey_at(&self.root).map_err(|error| TakeError::Sysfs {
            device,
            path: error.path,
            source: error.source,
        })?;
        let Some(function) = host.function(device) else {
            return Ok(());
        };
        let report = seat.climb(function)?;
        let Some(fault) = report.fault() else {
            tracing::info!(%device, %report, "the quarantine is lifted by a reset");
            return Ok(());
        };
        // What was tried is undone, and the reason of the first time goes on standing beside that of this time.
        restore_reset_methods(seat, way);
        let mut quarantine = way.quarantined.clone().unwrap_or_default();
        quarantine.reason = format!("{}; tried again: {fault}", quarantine.reason);
        quarantine.report = Some(report);
        Err(TakeError::Quarantined {
            device,
            quarantine: Box::new(quarantine),
        })
    }
}

impl Default for PciHealer {
    fn default() -> PciHealer {
        PciHealer::new()
    }
}

impl Healer for PciHealer {
    fn kind(&self) -> &str {
        Self::KIND
    }

    fn undo(&self, resource: &str, record: &serde_json::Value) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.restore(resource, record).map_err(Into::into)
    }
}

/// Each is tried one by one, and then all are to be there again as they were.
fn restore_reset_methods(seat: &DriverSeat, way: &Way) {
    if let Err(error) = way.settings.restore_reset_methods(seat) {
        let device = seat.device();
        tracing::warn!(%device, %error, "its reset methods are in another order than before");
    }
}
