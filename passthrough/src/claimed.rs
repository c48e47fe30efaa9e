//! The first stage: a function held by this process and off its host driver.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pellucid_partition::{Bdf, StateDir};

use crate::admit::Admitted;
use crate::claimant::Claimant;
use crate::custody::{Custody, Fellows};
use crate::driver::DriverSeat;
use crate::error::{SriovError, TakeError};
use crate::inventory::Function;
use crate::quarantine::Quarantine;
use crate::reset::ResetReport;
use crate::vf::{VfSettings, VfToken};

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
    seat: Arc<DriverSeat>,
    /// None once given back, or kept for `heal` by a quarantine.
    held: Option<Custody>,
    fellows: Arc<Fellows>,
    token: Option<VfToken>,
}

impl Admitted {
    /// Takes the function off its driver for `partition`, as [`Claimant::claim`] does.
    pub fn claim(self, state: &StateDir, partition: &str) -> Result<Claimed, TakeError> {
        Claimant::new(state, partition).claim(self)
    }
}

impl Claimed {
    /// Held, with the way back on record; still on its driver.
    pub(crate) fn held(admitted: &Admitted, held: Custody, fellows: Arc<Fellows>) -> Claimed {
        fellows.join();
        Claimed {
            function: admitted.function().clone(),
            group: admitted.group(),
            node: PathBuf::new(),
            seat: Arc::clone(&held.seat),
            held: Some(held),
            fellows,
            token: None,
        }
    }

    /// To vfio-pci. What fails on the way is taken back by dropping it.
    pub(crate) fn leave_driver(&mut self) -> Result<(), TakeError> {
        self.seat.to_vfio()?;
        self.node = self.seat.await_node(self.group)?;
        let way = self.held.as_ref().map(|held| &held.way);
        let from = way.and_then(|way| way.original.bound.as_deref());
        tracing::info!(device = %self.bdf(), ?from, group = self.group, "claimed");
        Ok(())
    }

    /// Has the physical function's driver give this virtual function an address or a VLAN, which a guest cannot change. What it had is put
    /// back with its driver.
    pub fn configure(&mut self, settings: &VfSettings) -> Result<(), SriovError> {
        let Some(held) = &mut self.held else { return Ok(()) };
        if held.way.vf.is_none() {
            held.way.vf = Some(held.seat.vf_link()?);
            held.way.record(&mut held.claim)?;
        }
        held.seat.tell_vf_link(settings)
    }

    /// Shows `token` when the function is opened. Where vfio-pci drives a physical function, whoever opens that with a token sets it, and
    /// whoever opens one of its virtual functions must show the same.
    pub fn with_token(mut self, token: VfToken) -> Claimed {
        self.token = Some(token);
        self
    }

    /// By what VFIO knows the function.
    pub(crate) fn vfio_name(&self) -> String {
        let device = self.bdf();
        match self.token {
            Some(token) => format!("{device} vf_token={token}"),
            None => device.to_string(),
        }
    }

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

    /// Its directory in sysfs.
    pub(crate) fn sysfs(&self) -> PathBuf {
        self.seat.path("")
    }

    /// Resets and proves the function, which is not open, by the kernel's own methods.
    pub(crate) fn climb_closed(&self) -> Result<ResetReport, TakeError> {
        self.seat.climb(&self.function)
    }

    /// Gives the function back to the driver that it had, proves that it is bound, and ends the claim. One that was claimed with others of
    /// its IOMMU group goes back when the last of them does.
    pub fn release(mut self) -> Result<(), TakeError> {
        self.give_back().map(|_| ())
    }

    /// Keeps the function away from everybody: it failed its health proof. The record stays, and `heal` tries again.
    pub(crate) fn quarantine(&mut self, quarantine: Quarantine) -> Result<bool, TakeError> {
        self.leave(Some(quarantine))
    }

    /// Says whether it is back, or waits for the others of its group.
    pub(crate) fn give_back(&mut self) -> Result<bool, TakeError> {
        self.leave(None)
    }

    fn leave(&mut self, fault: Option<Quarantine>) -> Result<bool, TakeError> {
        match self.held.take() {
            Some(held) => self.fellows.leave(held, fault),
            None => Ok(true),
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            tracing::error!(device = %self.bdf(), %error, "not given back; `heal` will try again");
        }
    }
}

/// The kind of resource under which functions are claimed.
pub const RESOURCE_KIND: &str = "device";
