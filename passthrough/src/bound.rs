//! The second stage: a claimed function, opened, answering, and kept from doing DMA.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use pellucid_partition::Bdf;

use crate::claimed::Claimed;
use crate::error::{BindError, ReleaseError};
use crate::inventory::Function;
use crate::lease::Lease;
use crate::space::IoSpace;
use crate::sys::Group;
use crate::transport::{IrqKind, RegionIndex, Transport};

/// Opened, in a partition's I/O address space. Cannot yet do DMA: its bus master bit is off.
///
/// Dropping it resets the function, proves that it is well, and gives it back as [`Bound::release`] does.
#[must_use = "dropping it gives the function back to its driver"]
pub struct Bound {
    // Teardown order: the device, then its group, then its driver's claim.
    lease: Arc<Lease>,
    group: Option<Group>,
    claimed: Claimed,
    space: Arc<IoSpace>,
}

impl Claimed {
    /// Opens the function in `space`, resets it, and sees that it answers as itself with DMA off.
    pub fn bind(self, space: &Arc<IoSpace>) -> Result<Bound, BindError> {
        let device = self.bdf();
        let (group, vfio) = space.admit(device, self.group(), self.node())?;
        let bound = Bound {
            lease: Arc::new(Lease::new(Box::new(vfio))),
            group: Some(group),
            claimed: self,
            space: Arc::clone(space),
        };
        let opened = |source| BindError::Open { device, source };
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
}

impl Bound {
    /// The function as it was surveyed.
    #[must_use]
    pub fn function(&self) -> &Function {
        self.claimed.function()
    }

    /// Its address on the host.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.claimed.bdf()
    }

    /// The address space that it is in.
    #[must_use]
    pub fn space(&self) -> &Arc<IoSpace> {
        &self.space
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

    /// The descriptor of its group, for KVM.
    pub(crate) fn group_fd(&self) -> i32 {
        self.group.as_ref().map_or(-1, |group| group.as_fd().as_raw_fd())
    }

    /// Stops the function, resets it, proves that it is well and gives it back to its host driver.
    pub fn release(mut self) -> Result<(), ReleaseError> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<(), ReleaseError> {
        if self.group.is_none() {
            return Ok(());
        }
        let health = prove(self.lease.as_ref(), self.function());
        self.space.untell_kvm(self.group_fd());
        // Only a closed device lets vfio-pci unbind, whoever still has a handler of it in a cache.
        self.lease.end();
        self.group = None;
        match health {
            Ok(()) => Ok(self.claimed.give_back()?),
            Err(reason) => Err(self.claimed.quarantine(reason).into()),
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            tracing::error!(device = %self.bdf(), %error, "giving the function back failed");
        }
    }
}

/// Turns memory, I/O and bus master off.
pub(crate) fn quiesce(transport: &dyn Transport) -> io::Result<()> {
    let mut command = [0; 2];
    transport.read(RegionIndex::Config, COMMAND, &mut command)?;
    command[0] &= !0x7;
    transport.write(RegionIndex::Config, COMMAND, &command)
}

/// Stops and resets the function, then looks whether it is well: it answers with its ids, and DMA is off.
pub(crate) fn prove(transport: &dyn Transport, function: &Function) -> Result<(), String> {
    let said = |act: &'static str| move |error: io::Error| format!("{act}: {error}");
    quiesce(transport).map_err(said("stopping it"))?;
    for kind in [
        IrqKind::Msix,
        IrqKind::Msi,
        IrqKind::Intx,
        IrqKind::Error,
        IrqKind::Request,
    ] {
        if transport.irq(kind).count > 0
            && let Err(error) = transport.unwire(kind)
        {
            // Disabling what was not enabled is refused by some kernels, and harmless.
            tracing::debug!(device = %function.bdf, ?kind, %error, "not unwired");
        }
    }
    if transport.resettable() {
        transport.reset().map_err(said("VFIO_DEVICE_RESET"))?;
        quiesce(transport).map_err(said("stopping it after the reset"))?;
    }
    let wanted = u32::from(function.ids.device) << 16 | u32::from(function.ids.vendor);
    let found = read_ids(transport).map_err(said("reading its ids"))?;
    if found != wanted {
        return Err(format!("it answers {found:08x} instead of {wanted:08x}"));
    }
    let mut command = [0; 2];
    transport
        .read(RegionIndex::Config, COMMAND, &mut command)
        .map_err(said("reading its command register"))?;
    if command[0] & 0x4 != 0 {
        return Err("its bus master bit does not go off".to_owned());
    }
    Ok(())
}

fn read_ids(transport: &dyn Transport) -> io::Result<u32> {
    // Vendor and device are served by VFIO from its own copy; revision and class come from the device, and a device
    // that fell off the bus answers all ones there.
    let mut revision = [0; 4];
    transport.read(RegionIndex::Config, REVISION, &mut revision)?;
    if revision == [0xff; 4] {
        return Ok(u32::MAX);
    }
    let mut ids = [0; 4];
    transport.read(RegionIndex::Config, 0, &mut ids)?;
    Ok(u32::from_le_bytes(ids))
}

/// The command register's offset (PCI 3.0, 6.2).
const COMMAND: u64 = 0x04;
/// Revision and class.
const REVISION: u64 = 0x08;
