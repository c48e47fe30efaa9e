//! A virtual function's address and VLAN, set by its physical function's driver for the guest and put back afterwards.

use std::fs;

use pellucid_partition::{Bdf, step};
use serde::{Deserialize, Serialize};

use super::DriverSeat;
use crate::error::SriovError;
use crate::link::{self, VfLink};
use crate::vf::{MacAddress, VfSettings};

/// What the physical function's driver had for it: written and synced before it is told another thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VfBefore {
    mac: [u8; 6],
    vlan: (u16, u8),
}

impl DriverSeat {
    /// What its physical function has for this virtual function now.
    pub(crate) fn vf_link(&self) -> Result<VfBefore, SriovError> {
        let (interface, index) = self.vf_place()?;
        let now = link::query(interface, index).map_err(|source| self.unset(source))?;
        let now = now.unwrap_or_default();
        Ok(VfBefore {
            mac: now.mac.map(MacAddress::octets).unwrap_or_default(),
            vlan: now.vlan.unwrap_or_default(),
        })
    }

    pub(crate) fn tell_vf_link(&self, settings: &VfSettings) -> Result<(), SriovError> {
        self.tell(&VfLink {
            mac: settings.mac,
            vlan: settings.vlan.map(|vlan| (vlan.id(), 0)),
        })
    }

    /// Puts back what has changed. The address that a driver shows before it was given one cannot be given back to every driver.
    pub(crate) fn restore_vf_link(&self, before: &VfBefore) -> Result<(), SriovError> {
        let now = self.vf_link()?;
        if now.vlan != before.vlan {
            self.tell(&VfLink {
                mac: None,
                vlan: Some(before.vlan),
            })?;
        }
        if now.mac != before.mac {
            self.tell(&VfLink {
                mac: Some(MacAddress::new(before.mac)),
                vlan: None,
            })?;
        }
        Ok(())
    }

    fn tell(&self, wanted: &VfLink) -> Result<(), SriovError> {
        let (interface, index) = self.vf_place()?;
        let told = step("set up the virtual function", || {
            link::set(interface, index, wanted)
        });
        told.map_err(|source| self.unset(source))
    }

    /// The number of its physical function's interface, and its own number among the virtual functions.
    fn vf_place(&self) -> Result<(u32, u32), SriovError> {
        let missing = || SriovError::NoInterface { device: self.device };
        let physical = fs::read_link(self.path("physfn")).map_err(|_| missing())?;
        let physical: Option<Bdf> = physical.file_name().and_then(|name| name.to_str()?.parse().ok());
        let physical = DriverSeat::new(&self.root, physical.ok_or_else(missing)?, self.patience);
        let index = physical
            .virtual_functions()
            .iter()
            .position(|function| *function == self.device);
        let interfaces = fs::read_dir(physical.path("net")).into_iter().flatten().flatten();
        let number = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("ifindex")).ok();
        let number = interfaces
            .filter_map(number)
            .find_map(|text| text.trim().parse().ok());
        Ok((number.ok_or_else(missing)?, index.ok_or_else(missing)? as u32))
    }

    fn unset(&self, source: std::io::Error) -> SriovError {
        SriovError::Settings {
            device: self.device,
            source,
        }
    }
}
