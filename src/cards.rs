//! Cards that stay with their host drivers and lend virtual functions, which may be there only once a server starts.

use std::collections::BTreeMap;

use pellucid_passthrough::{Admitted, Claimant, Inventory, SriovError, VirtualFunctions};

use crate::error::LendError;
use crate::offer::Offer;
use crate::spec::DeviceSource;

/// The cards whose virtual functions are wanted, each with as many as the most demanding device wants it to have.
pub(crate) fn provide(offers: &[Offer], claimant: &Claimant<'_>) -> Result<Vec<VirtualFunctions>, LendError> {
    let mut counts = BTreeMap::new();
    for offer in offers {
        if let DeviceSource::Virtual(function) = offer.spec().from {
            let count = counts.entry(function.card).or_insert(0);
            *count = function.of.max(*count);
        }
    }
    let made = counts
        .into_iter()
        .map(|(card, count)| Ok(claimant.virtual_functions(card, count)?));
    made.collect()
}

/// What is to be claimed, in the order of the offers. Virtual functions may be there only now.
pub(crate) fn admit(offers: &[Offer], cards: &[VirtualFunctions]) -> Result<Vec<Admitted>, LendError> {
    let host = match cards.is_empty() {
        true => Inventory::default(),
        false => Inventory::survey()?,
    };
    let mut admitted = Vec::new();
    for offer in offers {
        if let DeviceSource::Virtual(function) = offer.spec().from {
            let card = cards.iter().find(|card| card.physical() == function.card);
            let functions = card.map(VirtualFunctions::functions).unwrap_or_default();
            let one = functions.get(usize::from(function.index));
            let missing = || SriovError::Missing {
                device: function.card,
                there: functions.len(),
                count: function.index.saturating_add(1),
            };
            admitted.push(host.admit(*one.ok_or_else(missing)?)?);
        }
        admitted.extend(offer.admitted().cloned());
    }
    Ok(admitted)
}
