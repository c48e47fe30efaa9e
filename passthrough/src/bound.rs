//! The second stage: a claimed function, opened, proved to be well, and kept from doing DMA.

use std::io;
use std::sync::Arc;

use pellucid_partition::Bdf;

use crate::claimed::Claimed;
use crate::error::{BindError, ReleaseError, VfioUserError};
use crate::held::{Held, HostHold};
use crate::inventory::Function;
use crate::lease::Lease;
use crate::reset::{ResetReport, stop};
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
    // Teardown order: the device, which is open until the function is given back, then what it was opened from.
    lease: Arc<Lease>,
    held: Held,
    function: Function,
    admission: Option<ResetReport>,
}

/// A function that was taken back from a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// How it was reset, and the proof that it is well.
    pub reset: ResetReport,
    /// Whether it is on its driver again. Else it goes back with the last function of its IOMMU group.
    pub is_back: bool,
}

impl Claimed {
    /// Opens the function in `space`, resets it, and proves that it is well, with DMA off.
    pub fn bind(self, space: &Arc<IoSpace>) -> Result<Bound, BindError> {
        let (group, vfio) = space.admit(&self)?;
        let held = HostHold {
            group: Some(group),
            claimed: self,
            space: Arc::clone(space),
        };
        Bound::open(Box::new(vfio), Held::Host(Box::new(held)))
    }
}

impl Bound {
    /// Stops and resets a function that was just opened, and proves that it is well. On a failure it goes back, or into quarantine.
    pub(crate) fn open(transport: Box<dyn Transport>, held: Held) -> Result<Bound, BindError> {
        let device = held.bdf();
        held.rests(true);
        let mut bound = Bound {
            lease: Arc::new(Lease::new(transport)),
            function: held.function().clone(),
            held,
            admission: None,
        };
        let opened = |source: io::Error| match source.downcast::<VfioUserError>() {
            Ok(served) => served.into(),
            Err(source) => BindError::Open { device, source },
        };
        stop(bound.transport()).map_err(opened)?;
        let report = bound.reset();
        if report.is_well() {
            tracing::info!(%device, %report, "bound");
            bound.admission = Some(report);
            return Ok(bound);
        }
        bound.close(&report);
        if let Err(error) = bound.finish(report.clone()) {
            tracing::error!(%device, %error, "kept after it could not be bound");
        }
        Err(BindError::NotWell {
            device,
            report: Box::new(report),
        })
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
        self.held.space()
    }

    /// Its regions and interrupts.
    #[must_use]
    pub fn transport(&self) -> &dyn Transport {
        self.lease.as_ref()
    }

    /// How it was reset when it was opened, and the proof that it was well.
    #[must_use]
    pub fn admission(&self) -> Option<&ResetReport> {
        self.admission.as_ref()
    }

    /// The device, shared with those who answer for it on the buses.
    pub(crate) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// How it is held.
    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    /// Stops the function, resets it, proves that it is well and gives it back to its host driver. If it is not well, it is kept away from
    /// everybody, and the error says so.
    pub fn release(mut self) -> Result<Released, ReleaseError> {
        self.give_back()
    }

    /// The same for several: all are reset and proved before the first goes back, so that one reset can serve those that share a bridge.
    #[must_use = "each may have failed"]
    pub fn release_all(all: Vec<Bound>) -> Vec<Result<Released, ReleaseError>> {
        let reports: Vec<ResetReport> = all.iter().map(Bound::reset).collect();
        for (bound, report) in all.iter().zip(&reports) {
            bound.close(report);
        }
        let finish = |(mut bound, report): (Bound, ResetReport)| bound.finish(report);
        all.into_iter().zip(reports).map(finish).collect()
    }

    fn give_back(&mut self) -> Result<Released, ReleaseError> {
        let report = self.reset();
        self.close(&report);
        self.finish(report)
    }

    pub(crate) fn reset(&self) -> ResetReport {
        let transport: Arc<dyn Transport> = Arc::clone(&self.lease) as _;
        self.held.climb(&transport)
    }

    /// Closes the device: nothing is reached by it from here on. Only a closed device lets vfio-pci unbind, whoever still has a handler of it
    /// in a cache.
    pub(crate) fn close(&self, report: &ResetReport) {
        match report.is_stuck() {
            true => self.lease.abandon(),
            false => self.lease.end(),
        }
    }

    /// Gives the closed function back, or keeps it away from everybody if it is not well.
    fn finish(&mut self, report: ResetReport) -> Result<Released, ReleaseError> {
        self.held.finish(report)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.lease.is_over() {
            return;
        }
        if let Err(error) = self.give_back() {
            tracing::error!(device = %self.bdf(), %error, "giving the function back failed");
        }
    }
}
