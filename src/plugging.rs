//! Taking devices from a running guest and giving them to it again, through hot-plug slots.

use std::time::Duration;

use pellucid_partition::Bdf;

use crate::error::{PlugError, UnplugError};
use crate::server::LogicalServer;

/// A device goes by its address on the host, one that another process serves by that in the guest. All functions in one slot come and go
/// together.
impl LogicalServer {
    /// Asks the guest to let go of a device, as by the button at its slot. [`ServerEvent::SlotOff`](crate::ServerEvent::SlotOff) tells that
    /// it has, which may be at once, or never.
    pub fn ask_to_unplug(&self, device: Bdf) -> Result<(), UnplugError> {
        let (_, bay) = self.lent.bay_of(device)?;
        bay.asks(device);
        Ok(())
    }

    /// Asks no longer: a guest that has not begun to let go keeps the device.
    pub fn keep(&self, device: Bdf) {
        if let Ok((_, bay)) = self.lent.bay_of(device) {
            bay.withdraws();
        }
    }

    /// Takes a device that the guest has let go of: resets it, proves that it is well and gives it back to the host, as at the end of the
    /// server. A failure to give it back leaves it with neither: the guest does not have it any more.
    pub fn unplug(&mut self, device: Bdf) -> Result<(), UnplugError> {
        let (bus, bay) = self.lent.bay_of(device)?;
        if !bay.is_off() {
            return Err(UnplugError::InUse { device });
        }
        Ok(self.lent.empty(bus, &self.events)?)
    }

    /// The same at once, whatever the guest does with it: the guest is told that the device has gone.
    pub fn unplug_by_force(&mut self, device: Bdf) -> Result<(), UnplugError> {
        let (bus, _) = self.lent.bay_of(device)?;
        Ok(self.lent.empty(bus, &self.events)?)
    }

    /// Asks the guest, waits until it has let go, and takes the device. A guest that has not done so within `limit` keeps it.
    pub fn unplug_within(&mut self, device: Bdf, limit: Duration) -> Result<(), UnplugError> {
        let (_, bay) = self.lent.bay_of(device)?;
        bay.asks(device);
        if !bay.off_within(limit) {
            bay.withdraws();
            return Err(UnplugError::Unanswered { device, limit });
        }
        self.unplug(device)
    }

    /// Takes a device that was unplugged off its host driver again and tells the guest, which finds it where it was. Everything is as when
    /// the server started: admission, claim with its way back on record, reset and proof, guest memory mapped for its DMA before the guest
    /// can see it. Whatever fails, the device is back on its driver and the slot stays empty.
    ///
    /// A guest that is not done with the slot yet is [`PlugError::SlotInUse`]; then `ServerEvent::SlotOff` tells when it is.
    pub fn plug(&mut self, device: Bdf) -> Result<(), PlugError> {
        let guest = (&self.populated, &self.board);
        self.lent.plug(device, &self.state, guest, &self.events)
    }

    /// The devices that the host has at the moment and that can be plugged.
    pub fn unplugged(&self) -> impl Iterator<Item = Bdf> {
        self.lent.absent()
    }
}
