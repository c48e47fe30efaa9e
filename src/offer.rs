//! A device that can be lent as far as is known without touching it.

use pellucid_partition::Resource;
use pellucid_passthrough::{Admitted, Inventory, RESOURCE_KIND, Served, VirtualFunctions, Wanted};

use crate::error::CheckError;
use crate::spec::{DeviceSource, DeviceSpec};

/// What was asked for, and that it may be had.
#[derive(Debug)]
pub struct Offer {
    spec: DeviceSpec,
    admitted: Option<Admitted>,
}

impl Offer {
    /// Asks the inventory for the functions of the host, all together since an IOMMU group is lent whole or not at all, and sees that
    /// each socket is one. Those that may be had, in the order of asking; the refusals of the others are added to `refusals`.
    pub(crate) fn all(
        devices: &[DeviceSpec],
        host: &Inventory,
        refusals: &mut Vec<CheckError>,
    ) -> Vec<Offer> {
        let wanted: Vec<Wanted> = devices.iter().filter_map(wanted).collect();
        let mut admitted = match wanted.is_empty() {
            true => Vec::new(),
            false => host.admit_together(&wanted).unwrap_or_else(|refused| {
                refusals.extend(refused.refusals.into_iter().map(CheckError::from));
                refused.others
            }),
        };
        let mut offers = Vec::new();
        for spec in devices {
            let admitted = match &spec.from {
                DeviceSource::Host(bdf) => {
                    let own = admitted.iter().position(|one| one.function().bdf == *bdf);
                    // Refused, or asked for twice.
                    let Some(own) = own else { continue };
                    Some(admitted.remove(own))
                }
                DeviceSource::Virtual(function) => {
                    if let Err(refusal) = VirtualFunctions::check(function.card, function.of) {
                        refusals.push(CheckError::Take(refusal));
                        continue;
                    }
                    None
                }
                DeviceSource::Served(socket) => {
                    if let Err(refusal) = Served::check(socket) {
                        refusals.push(refusal.into());
                        continue;
                    }
                    None
                }
            };
            let spec = spec.clone();
            offers.push(Offer { spec, admitted });
        }
        offers
    }

    /// What was asked for.
    #[must_use]
    pub fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    /// The function of the host; `None` if another process serves it, and for a virtual function, which may have to be made.
    #[must_use]
    pub fn admitted(&self) -> Option<&Admitted> {
        self.admitted.as_ref()
    }
}

/// What is asked of the host's inventory; `None` if another process serves the device.
fn wanted(spec: &DeviceSpec) -> Option<Wanted> {
    let wanted = Wanted::new(spec.host()?);
    Some(match spec.force {
        true => wanted.by_force(),
        false => wanted,
    })
}

/// What a device is claimed as.
pub(crate) fn resource(from: &DeviceSource) -> Resource {
    match from {
        DeviceSource::Host(bdf) => Resource::new(RESOURCE_KIND, &bdf.to_string()),
        // One that is not there yet, nobody has.
        DeviceSource::Virtual(function) => {
            let name = VirtualFunctions::find(function.card, function.index);
            let name = name.map_or_else(|| from.to_string(), |name| name.to_string());
            Resource::new(RESOURCE_KIND, &name)
        }
        DeviceSource::Served(socket) => Served::resource(socket),
    }
}
