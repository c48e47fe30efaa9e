//! The second stage: a claimed function, opened, answering, and kept from doing DMA.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use pellucid_partition::Bdf;

use crate::claimed::Claimed;
use crate::error::{BindError, ReleaseError};
use crate::health::{prove, quiesce, read_ids};
use crate::inventory::Function;
use crate::lease::Lease;
use crate::space::IoSpace;
use crate::sys::Group;
use crate::transport::Transport;

/// Opened, in a partition's I/O address space. Cannot yet do DMA: its bus master bit is off.
///
/// Dropping it resets the function, proves that it is well, and gives it back as [`Bound::release`] does. A stage is
/// consumed by the next:
///
/// ```compile_fail
/// # fn show(bound: pellucid_passthrough::Bound, guest: pellucid_passthrough::Guest, view: pellucid_passthrough::View) {
/// let assigned = bound.assign(&guest, view);
/// bound.transport();
/// # }
/// ```
#[must_use = "dropping it gives the function back to its driver"]
pub struct Bound {
    // Teardown order: the device, then its group, then its driver's claim.
    lease: Arc<Lease>,
    group: Option<Group>,
    claimed: Claimed,
    space: Arc<IoSpace>,
}

impl Claimed {
    /// Opens the function in `space`, resets it, and sees that it answers as itself with DMA off.
    pub fn bind(self, space: &Arc<IoSpace>) -> Result<Bound, BindError> {
        let device = self.bdf();
        let (group, vfio) = space.admit(device, self.group(), self.node())?;
        let bound = Bound {
            lease: Arc::new(Lease::new(Box::new(vfio))),
            group: Some(group),
            claimed: self,
            space: Arc::clone(space),
        };
        let opened = |source| BindError::Open { device, source };
        quiesce(bound.transport()).map_err(opened)?;
        if bound.transport().resettable() {
            bound.transport().reset().map_err(opened)?;
            quiesce(bound.transport()).map_err(opened)?;
        }
        let ids = bound.function().ids;
        let wanted = u32::from(ids.device) << 16 | u32::from(ids.vendor);
        let found = read_ids(bound.transport()).map_err(opened)?;
        if found != wanted {
            return Err(BindError::WrongIds {
                device,
                wanted,
                found,
            });
        }
        Ok(bound)
    }
}

impl Bound {
    /// The function as it was surveyed.
    #[must_use]
    pub fn function(&self) -> &Function {
        self.claimed.function()
    }

    /// Its address on the host.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.claimed.bdf()
    }

    /// The address space that it is in.
    #[must_use]
    pub fn space(&self) -> &Arc<IoSpace> {
        &self.space
    }

    /// Its regions and interrupts.
    #[must_use]
    pub fn transport(&self) -> &dyn Transport {
        self.lease.as_ref()
    }

    /// The device, shared with those who answer for it on the buses.
    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// The descriptor of its group, for KVM.
    pub(crate) fn group_fd(&self) -> i32 {
        self.group.as_ref().map_or(-1, |group| group.as_fd().as_raw_fd())
    }

    /// Stops the function, resets it, proves that it is well and gives it back to its host driver.
    pub fn release(mut self) -> Result<(), ReleaseError> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<(), ReleaseError> {
        let health = self.stop();
        self.finish(health)
    }

    /// Stops the function, proves that it is well and closes it: nothing is reached by it from here on.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        let health = prove(self.lease.as_ref(), self.function());
        // Only a closed device lets vfio-pci unbind, whoever still has a handler of it in a cache.
        self.lease.end();
        health
    }

    /// Gives the stopped function back, or keeps it away from everybody if it is not well.
    pub(crate) fn finish(&mut self, health: Result<(), String>) -> Result<(), ReleaseError> {
        let Some(group) = self.group.take() else {
            return Ok(());
        };
        self.space.untell_kvm(group.as_fd().as_raw_fd());
        drop(group);
        match health {
            Ok(()) => Ok(self.claimed.give_back()?),
            Err(reason) => Err(self.claimed.quarantine(reason).into()),
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.group.is_none() {
            return;
        }
        if let Err(error) = self.give_back() {
            tracing::error!(device = %self.bdf(), %error, "giving the function back failed");
        }
    }
}
