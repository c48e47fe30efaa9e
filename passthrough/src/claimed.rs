//! The first stage: a function held by this process and off its host driver.

use std::path::{Path, PathBuf};

use pellucid_partition::{Bdf, Claim, Resource, StateDir};

use crate::admit::{Admitted, unused};
use crate::driver::{DriverSeat, Way};
use crate::error::TakeError;
use crate::heal::PciHealer;
use crate::inventory::{Function, uses_now};

/// Held, off its host driver, with the way back on record. Not opened; cannot do DMA for us.
///
/// Dropping it gives the function back to its driver, as [`Claimed::release`] does, and logs what that cannot.
/// What was only claimed is not open:
///
/// ```compile_fail
/// # fn show(claimed: pellucid_passthrough::Claimed) {
/// claimed.transport();
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping the claim gives the function back to its driver"]
pub struct Claimed {
    function: Function,
    group: u32,
    node: PathBuf,
    seat: DriverSeat,
    way: Way,
    /// None once given back, or kept for `heal` by a quarantine.
    claim: Option<Claim>,
}

impl Admitted {
    /// Takes the function off its driver for `partition`. The undo record is on disk before the first change.
    pub fn claim(self, state: &StateDir, partition: &str) -> Result<Claimed, TakeError> {
        self.claim_at(Path::new("/"), state, partition)
    }

    /// The same on the host whose `sys` and `dev` are below `root`.
    pub fn claim_at(self, root: &Path, state: &StateDir, partition: &str) -> Result<Claimed, TakeError> {
        let device = self.function().bdf;
        let mut claim = state.claim(Resource::new(RESOURCE_KIND, &device.to_string()), partition)?;
        // The survey may be old; a file system mounted since must not lose its disk.
        unused(device, &uses_now(root, device))?;
        let seat = DriverSeat::new(root, device);
        let way = Way {
            original: seat.state()?,
            quarantined: None,
        };
        claim.record_undo(PciHealer::KIND, &to_value(device, &way)?)?;
        let group = self.group();
        let mut claimed = Claimed {
            function: self.function().clone(),
            group,
            node: PathBuf::new(),
            seat,
            way,
            claim: Some(claim),
        };
        // From here on, dropping `claimed` takes back whatever was done.
        claimed.seat.to_vfio()?;
        claimed.node = claimed.seat.await_node(group)?;
        tracing::info!(%device, from = ?claimed.way.original.bound, group, "claimed");
        Ok(claimed)
    }
}

impl Claimed {
    /// The function as it was surveyed.
    #[must_use]
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// Its address on the host.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.function.bdf
    }

    /// Its IOMMU group.
    #[must_use]
    pub fn group(&self) -> u32 {
        self.group
    }

    /// The node of its group.
    #[must_use]
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// Gives the function back to the driver that it had, proves that it is bound, and ends the claim.
    pub fn release(mut self) -> Result<(), TakeError> {
        self.give_back()
    }

    /// Keeps the function away from everybody: it failed its health proof. The record stays, and `heal` tries again.
    pub(crate) fn quarantine(&mut self, reason: String) -> TakeError {
        let device = self.bdf();
        tracing::error!(%device, reason, "quarantined: the function is not given back to the host");
        self.way.quarantined = Some(reason.clone());
        if let Some(mut claim) = self.claim.take() {
            let recorded =
                to_value(device, &self.way).and_then(|value| Ok(claim.record_undo(PciHealer::KIND, &value)?));
            if let Err(error) = recorded {
                return error;
            }
        }
        TakeError::Quarantined { device, reason }
    }

    pub(crate) fn give_back(&mut self) -> Result<(), TakeError> {
        let Some(claim) = self.claim.take() else {
            return Ok(());
        };
        // On an error the claim is dropped unreleased, so that its record stays for `heal`.
        self.seat.restore(&self.way)?;
        claim.release()?;
        tracing::info!(device = %self.bdf(), to = ?self.way.original.bound, "given back");
        Ok(())
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            tracing::error!(device = %self.bdf(), %error, "not given back; `heal` will try again");
        }
    }
}

fn to_value(device: Bdf, way: &Way) -> Result<serde_json::Value, TakeError> {
    let unreadable = |error: serde_json::Error| TakeError::Record {
        device: device.to_string(),
        source: error.into(),
    };
    serde_json::to_value(way).map_err(unreadable)
}

/// The kind of resource under which functions are claimed.
pub const RESOURCE_KIND: &str = "device";
