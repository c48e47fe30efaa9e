//! The second stage: a claimed function, opened, answering, and kept from doing DMA.

use std::io;
use std::sync::Arc;

use pellucid_partition::Bdf;

use crate::claimed::Claimed;
use crate::error::{BindError, ReleaseError, VfioUserError};
use crate::health::{prove, quiesce, read_ids};
use crate::held::{Held, HostHold};
use crate::inventory::Function;
use crate::lease::Lease;
use crate::space::IoSpace;
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
    // Teardown order: the device, then what it was opened from.
    lease: Arc<Lease>,
    /// None once given back.
    held: Option<Held>,
    function: Function,
}

impl Claimed {
    /// Opens the function in `space`, resets it, and sees that it answers as itself with DMA off.
    pub fn bind(self, space: &Arc<IoSpace>) -> Result<Bound, BindError> {
        let (group, vfio) = space.admit(self.bdf(), self.group(), self.node())?;
        let held = HostHold {
            group: Some(group),
            claimed: self,
            space: Arc::clone(space),
        };
        Bound::open(Box::new(vfio), Held::Host(Box::new(held)))
    }
}

impl Bound {
    /// Stops and resets a function that was just opened, and sees that it answers as itself. On a failure it goes back.
    pub(crate) fn open(transport: Box<dyn Transport>, held: Held) -> Result<Bound, BindError> {
        let device = held.bdf();
        let bound = Bound {
            lease: Arc::new(Lease::new(transport)),
            function: held.function().clone(),
            held: Some(held),
        };
        let opened = |source: io::Error| match source.downcast::<VfioUserError>() {
            Ok(served) => served.into(),
            Err(source) => BindError::Open { device, source },
        };
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

    /// The function as it was surveyed.
    #[must_use]
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// Its address: on the host, or for a function that another process serves in the guest.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.function.bdf
    }

    /// The I/O address space that it is in; `None` for a function that another process serves.
    #[must_use]
    pub fn space(&self) -> Option<&Arc<IoSpace>> {
        self.held.as_ref().and_then(Held::space)
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

    /// How it is held; `None` once it was given back.
    pub(crate) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
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
        self.held.take().map_or(Ok(()), |held| held.finish(health))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.held.is_none() {
            return;
        }
        if let Err(error) = self.give_back() {
            tracing::error!(device = %self.bdf(), %error, "giving the function back failed");
        }
    }
}
