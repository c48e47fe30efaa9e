//! Who takes functions: for which partition, on which host, and how long it waits for a driver.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pellucid_partition::{Bdf, Claim, ClaimError, Resource, StateDir};

use crate::admit::Admitted;
use crate::claimed::{Claimed, RESOURCE_KIND};
use crate::custody::{Custody, Fellows};
use crate::driver::{DRIVER_LIMIT, DriverSeat, Settings, Way};
use crate::error::TakeError;
use crate::quarantine::Quarantine;

/// Takes functions off their drivers. Nothing is held by it.
#[derive(Debug, Clone)]
pub struct Claimant<'s> {
    state: &'s StateDir,
    partition: &'s str,
    root: PathBuf,
    patience: Duration,
}

impl<'s> Claimant<'s> {
    /// Claims are held in `state`, for `partition`.
    #[must_use]
    pub fn new(state: &'s StateDir, partition: &'s str) -> Claimant<'s> {
        Claimant {
            state,
            partition,
            root: PathBuf::from("/"),
            patience: DRIVER_LIMIT,
        }
    }

    /// On the host whose `sys`, `proc` and `dev` are below `root`.
    #[must_use]
    pub fn at(self, root: &Path) -> Claimant<'s> {
        Claimant {
            root: root.to_owned(),
            ..self
        }
    }

    /// Waits that long for a driver to let go or to bind, instead of 30 s.
    #[must_use]
    pub fn patient_for(self, patience: Duration) -> Claimant<'s> {
        Claimant { patience, ..self }
    }

    pub(crate) fn state(&self) -> &StateDir {
        self.state
    }

    pub(crate) fn partition(&self) -> &str {
        self.partition
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Takes one function off its driver. The undo record is on disk before the first change.
    pub fn claim(&self, admitted: Admitted) -> Result<Claimed, TakeError> {
        let mut claimed = Claimed::held(&admitted, self.hold(&admitted)?, Arc::default());
        claimed.leave_driver()?;
        Ok(claimed)
    }

    /// Takes all of them off their drivers, or none. Nothing is changed before all are held. Those of one IOMMU group are closed, all of
    /// them, before the first goes back.
    pub fn claim_all(&self, all: Vec<Admitted>) -> Result<Vec<Claimed>, TakeError> {
        let mut groups: BTreeMap<u32, Arc<Fellows>> = BTreeMap::new();
        let mut claimed = Vec::new();
        for admitted in &all {
            let fellows = groups.entry(admitted.group()).or_default();
            claimed.push(Claimed::held(admitted, self.hold(admitted)?, Arc::clone(fellows)));
        }
        for claimed in &mut claimed {
            claimed.leave_driver()?;
        }
        Ok(claimed)
    }

    /// Held, the way back on record, not moved.
    fn hold(&self, admitted: &Admitted) -> Result<Custody, TakeError> {
        let device = admitted.function().bdf;
        let mut claim = self.resource(device)?;
        // The survey may be old; a file system mounted since must not lose its disk.
        admitted.unused_now(&self.root)?;
        let seat = DriverSeat::new(&self.root, device, self.patience).held_by(claim.lock());
        self.no_virtual_function_in_use(&seat)?;
        let way = Way {
            original: seat.state()?,
            settings: Settings::of(&seat),
            vf: None,
            quarantined: None,
        };
        way.record(&mut claim)?;
        let seat = Arc::new(seat);
        Ok(Custody { seat, way, claim })
    }

    fn resource(&self, device: Bdf) -> Result<Claim, TakeError> {
        let resource = Resource::new(RESOURCE_KIND, &device.to_string());
        match self.state.claim(resource, self.partition) {
            Err(ClaimError::Stale { .. }) if let Some(quarantine) = Quarantine::find(self.state, device)? => {
                Err(TakeError::Quarantined {
                    device,
                    quarantine: Box::new(quarantine),
                })
            }
            other => Ok(other?),
        }
    }

    /// A physical function's driver takes the virtual ones with it when it goes, from whoever has them.
    fn no_virtual_function_in_use(&self, seat: &DriverSeat) -> Result<(), TakeError> {
        let mut functions = seat.virtual_functions();
        functions.retain(|function| {
            let resource = Resource::new(RESOURCE_KIND, &function.to_string());
            let driven = DriverSeat::new(&self.root, *function, self.patience)
                .bound()
                .is_some();
            driven || !matches!(self.state.refusal(&resource), Ok(None))
        });
        match functions.is_empty() {
            true => Ok(()),
            false => Err(TakeError::VirtualFunctions {
                device: seat.device(),
                functions,
            }),
        }
    }
}
