//! Giving back what a dead process took, from the record that it wrote before.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pellucid_partition::{Bdf, Healer};

use crate::driver::{DRIVER_LIMIT, DriverSeat, Way};
use crate::error::TakeError;

/// Restores functions to the drivers that they had. The ledger calls it only for claims without a living holder.
#[derive(Debug, Clone)]
pub struct PciHealer {
    root: PathBuf,
    patience: Duration,
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
        }
    }

    /// Waits that long for a driver to let go or to bind, instead of 30 s.
    #[must_use]
    pub fn patient_for(self, patience: Duration) -> PciHealer {
        PciHealer { patience, ..self }
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
        let seat = DriverSeat::new(&self.root, device, self.patience);
        if let Some(quarantine) = &way.quarantined
            && seat.exists()
            && !seat.reset_and_prove()?
        {
            return Err(TakeError::Quarantined {
                device,
                reason: quarantine.reason.clone(),
            });
        }
        seat.restore(&way)?;
        tracing::info!(%device, to = ?way.original.bound, "healed");
        Ok(())
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
