//! Devices that a guest had, that the host has at the moment, and that may come again.

use std::sync::Arc;

use pellucid_partition::{Bdf, StateDir};
use pellucid_passthrough::{Bar, Claimant, Function, Ids, Inventory, IoSpace};

use crate::error::{LendError, PlugError};
use crate::offer::Offer;
use crate::spec::DeviceSpec;
use crate::taken::Taken;
use crate::tree::Tree;

/// One that went back to the host and may come again.
pub(crate) struct Absent {
    /// Its address in the guest.
    pub(crate) at: Bdf,
    pub(crate) spec: DeviceSpec,
    pub(crate) ids: Ids,
}

impl Absent {
    /// Whether `function` is what the guest had there, with the BARs that the tree has places for.
    pub(crate) fn is(&self, function: &Function, tree: &Tree) -> bool {
        let places = tree.bars(self.at);
        let fits = |bar: &Bar| {
            places
                .iter()
                .any(|place| (place.index, place.kind, place.size) == (bar.index, bar.kind, bar.size))
        };
        self.ids == function.ids && places.len() == function.bars.len() && function.bars.iter().all(fits)
    }
}

/// Asks the host for them anew: much may have happened since they went back.
pub(crate) fn take_again(
    coming: &[&Absent],
    held_by: (&StateDir, &str),
    space: Option<Arc<IoSpace>>,
) -> Result<Taken, PlugError> {
    let host = Inventory::survey().map_err(LendError::from)?;
    let specs: Vec<DeviceSpec> = coming.iter().map(|absent| absent.spec.clone()).collect();
    let places: Vec<Bdf> = coming.iter().map(|absent| absent.at).collect();
    let mut refusals = Vec::new();
    let offers = Offer::all(&specs, &host, &mut refusals);
    if let Some(refusal) = refusals.into_iter().next() {
        return Err(PlugError::Refused(Box::new(refusal)));
    }
    let claimant = Claimant::new(held_by.0, held_by.1);
    Ok(Taken::take(offers, &places, &claimant, held_by, space)?)
}
