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
use crate::space::IoSpace;
use crate::transport::Transport;

/// Wired to a guest, which drives it from now on. Dropping it takes everything back, as [`Assigned::release`] does.
#[must_use = "dropping it takes the device from the guest"]
pub struct Assigned {
    // Teardown order: what the guest has of it, and the device (reset, proved).
    wiring: Wiring,
    bound: Bound,
}

/// What a guest has of a function. Dropping it takes that away and stops the function.
struct Wiring {
    device: Bdf,
    endpoint: Arc<Endpoint>,
    /// What the device reaches until it is stopped.
    memory: Option<Arc<MappedMemory>>,
    transport: Arc<dyn Transport>,
    space: Option<Arc<IoSpace>>,
}

impl Bound {
    /// Wires the function to `guest`: memory first, then interrupts and BARs, so that nothing is reachable half done.
    pub fn assign(self, guest: &Guest, view: View) -> Result<Assigned, AssignError> {
        let device = self.bdf();
        let memory = self.held().map(&guest.memory)?;
        self.held().announce(guest)?;
        let transport: Arc<dyn Transport> = Arc::clone(self.lease()) as _;
        let mut guest = guest.clone();
        guest.peers = guest
            .peers
            .or_else(|| self.space().map(|space| Arc::clone(space.peers())));
        let endpoint = Endpoint::wire(device, &transport, &guest, view)?;
        self.held().rests(false);
        tracing::info!(%device, hidden = ?endpoint.hidden(), "assigned");
        let wiring = Wiring {
            device,
            endpoint: Arc::new(endpoint),
            memory: Some(memory),
            transport,
            space: self.space().cloned(),
        };
        Ok(Assigned { wiring, bound: self })
    }
}

impl Assigned {
    /// The function as it was surveyed.
    #[must_use]
    pub fn function(&self) -> &Function {
        self.bound.function()
    }

    /// Its address on the host.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.bound.bdf()
    }

    /// Its configuration space, for the guest's PCI bus.
    #[must_use]
    pub fn config(&self) -> Arc<dyn ConfigHandler> {
        Arc::clone(&self.wiring.endpoint) as _
    }

    /// What the guest reaches of it.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.wiring.endpoint
    }

    /// Capabilities that the guest does not see, by name.
    #[must_use]
    pub fn hidden(&self) -> Vec<&'static str> {
        self.wiring.endpoint.hidden()
    }

    /// Interrupt vectors that the host gives it now.
    #[must_use]
    pub fn vectors_in_use(&self) -> usize {
        self.wiring.endpoint.vectors_in_use()
    }

    /// What an [`ErrorWatch`](crate::ErrorWatch) needs of it.
    #[must_use]
    pub fn watched(&self, corrected: Option<Threshold>) -> Watched {
        Watched {
            device: self.bdf(),
            transport: self.wiring.endpoint.transport(),
            corrected,
        }
    }

    /// Takes the function from the guest, stops and resets it, proves that it is well, and gives it back to its driver.
    pub fn release(self) -> Result<Released, ReleaseError> {
        self.unassign().release()
    }

    /// Takes the function from the guest and stops it. It stays open, and can be released with others ([`Bound::release_all`]).
    pub fn unassign(self) -> Bound {
        drop(self.wiring);
        self.bound
    }
}

impl Drop for Wiring {
    fn drop(&mut self) {
        self.endpoint.end();
        if let Err(error) = quiesce(self.transport.as_ref()) {
            tracing::warn!(device = %self.device, error, "not stopped; its reset will be the next to try");
        }
        // Whatever it still does, it does not reach the guest's memory from here on.
        self.memory = None;
        if let Some(space) = &self.space {
            space.groups().rests(self.device, true);
        }
    }
}
