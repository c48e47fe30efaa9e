//! A device that can be lent as far as is known without touching it.

use pellucid_partition::Resource;
use pellucid_passthrough::{Admitted, Inventory, RESOURCE_KIND, Served};

use crate::error::CheckError;
use crate::spec::{DeviceSource, DeviceSpec};

/// What was asked for, and that it may be had.
#[derive(Debug)]
pub struct Offer {
    spec: DeviceSpec,
    admitted: Option<Admitted>,
}

impl Offer {
    /// Asks the inventory for a function of the host, and sees that a socket is one.
    pub(crate) fn of(spec: &DeviceSpec, host: &Inventory) -> Result<Offer, CheckError> {
        let admitted = match &spec.from {
            DeviceSource::Host(bdf) => Some(host.admit(*bdf)?),
            DeviceSource::Served(socket) => {
                Served::check(socket)?;
                None
            }
        };
        let spec = spec.clone();
        Ok(Offer { spec, admitted })
    }

    /// What was asked for.
    #[must_use]
    pub fn spec(&self) -> &DeviceSpec {
        &self.spec
    }

    /// The function of the host; `None` if another process serves it.
    #[must_use]
    pub fn admitted(&self) -> Option<&Admitted> {
        self.admitted.as_ref()
    }
}

/// What a device is claimed as.
pub(crate) fn resource(from: &DeviceSource) -> Resource {
    match from {
        DeviceSource::Host(bdf) => Resource::new(RESOURCE_KIND, &bdf.to_string()),
        DeviceSource::Served(socket) => Served::resource(socket),
    }
}
