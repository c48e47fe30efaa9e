//! The first stage: a function held by this process and off its host driver.

use std::path::{Path, PathBuf};

use pellucid_partition::{Bdf, Claim, StateDir};

use crate::admit::Admitted;
use crate::claimant::Claimant;
use crate::driver::{DriverSeat, Way};
use crate::error::TakeError;
use crate::inventory::Function;
use crate::quarantine::Quarantine;
use crate::sys::Errand;

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
    /// Takes the function off its driver for `partition`, as [`Claimant::claim`] does.
    pub fn claim(self, state: &StateDir, partition: &str) -> Result<Claimed, TakeError> {
        Claimant::new(state, partition).claim(self)
    }
}

impl Claimed {
    /// Held, with the way back on record; still on its driver.
    pub(crate) fn held(admitted: Admitted, seat: DriverSeat, way: Way, claim: Claim) -> Claimed {
        Claimed {
            function: admitted.function().clone(),
            group: admitted.group(),
            node: PathBuf::new(),
            seat,
            way,
            claim: Some(claim),
        }
    }

    /// To vfio-pci. What fails on the way is taken back by dropping it.
    pub(crate) fn leave_driver(&mut self) -> Result<(), TakeError> {
        self.seat.to_vfio()?;
        self.node = self.seat.await_node(self.group)?;
        tracing::info!(device = %self.bdf(), from = ?self.way.original.bound, group = self.group, "claimed");
        Ok(())
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

    /// Gives the function back to the driver that it had, proves that it is bound, and ends the claim.
    pub fn release(mut self) -> Result<(), TakeError> {
        self.give_back()
    }

    /// Keeps the function away from everybody: it failed its health proof. The record stays, and `heal` tries again.
    pub(crate) fn quarantine(&mut self, reason: String) -> TakeError {
        let device = self.bdf();
        tracing::error!(%device, reason, "quarantined: the function is not given back to the host");
        self.way.quarantined = Some(Quarantine::now(reason.clone()));
        if let Some(mut claim) = self.claim.take()
            && let Err(error) = self.way.record(&mut claim)
        {
            return error;
        }
        TakeError::Quarantined { device, reason }
    }

    pub(crate) fn give_back(&mut self) -> Result<(), TakeError> {
        let Some(claim) = self.claim.take() else {
            return Ok(());
        };
        if let Some(errand) = self.seat.stuck() {
            wait_for_the_kernel(errand, claim);
            return Ok(());
        }
        // On an error the claim is dropped unreleased, so that its record stays for `heal`.
        let restored = self.seat.restore(&self.way);
        if let Some(errand) = self.seat.stuck() {
            wait_for_the_kernel(errand, claim);
            return restored;
        }
        restored?;
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

/// Keeps a function held as long as a child hangs in its driver: moving it again would only hang too. Its record stays, so that `heal`
/// gives it back once the kernel lets go. If this process ends before, the child's copy of the lock holds it.
fn wait_for_the_kernel(errand: Errand, claim: Claim) {
    let name = format!("stuck-{}", claim.record().resource.name);
    let wait = move || {
        errand.bury();
        drop(claim);
    };
    if let Err(error) = std::thread::Builder::new()
        .name(name)
        .stack_size(STACK)
        .spawn(wait)
    {
        tracing::error!(%error, "nobody waits for a driver that hangs; the function can be healed meanwhile");
    }
}

/// The kind of resource under which functions are claimed.
pub const RESOURCE_KIND: &str = "device";

const STACK: usize = 128 << 10;
