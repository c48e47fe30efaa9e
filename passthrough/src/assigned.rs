//! The third stage: a function wired to a guest: memory mapped for DMA, BARs and interrupts connected.

use std::sync::Arc;

use pellucid_partition::{Bdf, ConfigHandler};

use crate::bound::{Bound, Released};
use crate::dma::MappedMemory;
use crate::endpoint::Endpoint;
use crate::error::{AssignError, ReleaseError};
use crate::error_watch::{Threshold, Watched};
use crate::guest::{Guest, View};
use crate::inventory::Function;
use crate::reset::quiesce;
use crate::transport::Transport;

/// Wired to a guest, which drives it from now on. Dropping it takes everything back, as [`Assigned::release`] does.
#[must_use = "dropping it takes the device from the guest"]
pub struct Assigned {
    // Teardown order: what the guest reaches, the memory that the device reaches until it is stopped, and the device (reset, proved).
    endpoint: Arc<Endpoint>,
    memory: Option<Arc<MappedMemory>>,
    bound: Option<Bound>,
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
        if let Some(held) = self.held() {
            held.rests(false);
        }
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

    /// What the guest reaches of it.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
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

    /// What an [`ErrorWatch`](crate::ErrorWatch) needs of it.
    #[must_use]
    pub fn watched(&self, corrected: Option<Threshold>) -> Watched {
        Watched {
            device: self.bdf(),
            transport: self.endpoint.transport(),
            corrected,
        }
    }

    /// Takes the function from the guest, stops and resets it, proves that it is well, and gives it back to its driver.
    pub fn release(self) -> Result<Released, ReleaseError> {
        self.unassign().release()
    }

    /// Takes the function from the guest and stops it. It stays open, and can be released with others ([`Bound::release_all`]).
    pub fn unassign(mut self) -> Bound {
        match self.unwire() {
            Some(bound) => bound,
            None => unreachable!("only this and `drop` take it, and both end the value"),
        }
    }

    fn unwire(&mut self) -> Option<Bound> {
        let bound = self.bound.take()?;
        self.endpoint.end();
        if let Err(error) = quiesce(bound.transport()) {
            tracing::warn!(device = %bound.bdf(), error, "not stopped; its reset will be the next to try");
        }
        // Whatever it still does, it does not reach the guest's memory from here on.
        self.memory = None;
        if let Some(held) = bound.held() {
            held.rests(true);
        }
        Some(bound)
    }
}

impl Drop for Assigned {
    fn drop(&mut self) {
        drop(self.unwire());
    }
}
