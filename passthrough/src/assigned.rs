//! The third stage: a function wired to a guest: memory mapped for DMA, BARs and interrupts connected.

use std::sync::Arc;

use pellucid_partition::{Bdf, ConfigHandler};

use crate::bound::Bound;
use crate::dma::MappedMemory;
use crate::endpoint::Endpoint;
use crate::error::{AssignError, ReleaseError};
use crate::guest::{Guest, View};
use crate::inventory::Function;
use crate::transport::Transport;

/// Wired to a guest, which drives it from now on. Dropping it takes everything back, as [`Assigned::release`] does.
#[must_use = "dropping it takes the device from the guest"]
pub struct Assigned {
    // Teardown order: what the guest reaches, the device (stopped, reset, proved), and last the memory that the device could
    // reach until it was stopped.
    endpoint: Arc<Endpoint>,
    bound: Option<Bound>,
    memory: Option<Arc<MappedMemory>>,
    function: Function,
}

impl Bound {
    /// Wires the function to `guest`: memory first, then interrupts and BARs, so that nothing is reachable half done.
    pub fn assign(self, guest: &Guest, view: View) -> Result<Assigned, AssignError> {
        let device = self.bdf();
        let held = self.held().ok_or_else(|| AssignError::Device {
            device,
            act: "assigning it",
            source: std::io::Error::from_raw_os_error(libc::ENODEV),
        })?;
        let memory = held.map(&guest.memory)?;
        held.announce(guest)?;
        let transport: Arc<dyn Transport> = Arc::clone(self.lease()) as _;
        let mut guest = guest.clone();
        guest.peers = guest
            .peers
            .or_else(|| self.space().map(|space| Arc::clone(space.peers())));
        let endpoint = Endpoint::wire(device, &transport, &guest, view)?;
        tracing::info!(%device, hidden = ?endpoint.hidden(), "assigned");
        Ok(Assigned {
            endpoint: Arc::new(endpoint),
            function: self.function().clone(),
            bound: Some(self),
            memory: Some(memory),
        })
    }
}

impl Assigned {
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

    /// Its configuration space, for the guest's PCI bus.
    #[must_use]
    pub fn config(&self) -> Arc<dyn ConfigHandler> {
        Arc::clone(&self.endpoint) as _
    }

    /// Capabilities that the guest does not see, by name.
    #[must_use]
    pub fn hidden(&self) -> Vec<&'static str> {
        self.endpoint.hidden()
    }

    /// Interrupt vectors that the host gives it now.
    #[must_use]
    pub fn vectors_in_use(&self) -> usize {
        self.endpoint.vectors_in_use()
    }

    /// Takes the function from the guest, stops and resets it, proves that it is well, and gives it back to its driver.
    pub fn release(mut self) -> Result<(), ReleaseError> {
        self.take_back()
    }

    fn take_back(&mut self) -> Result<(), ReleaseError> {
        let Some(mut bound) = self.bound.take() else {
            return Ok(());
        };
        self.endpoint.end();
        let health = bound.stop();
        // The device is closed: nothing reaches the guest's memory any more, and its group is still there to unmap it from.
        self.memory = None;
        bound.finish(health)
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        if let Err(error) = self.take_back() {
            tracing::error!(device = %self.bdf(), %error, "taking the function back failed");
        }
    }
}
