//! What the host uses a function for: the file systems and swap on its disks, the default route through its network
//! interfaces, the console and the pictures that it shows.
//!
//! Only what would break if the function went away. An interface that is merely up, or an open file on a raw disk, is not seen.

mod console;
mod disks;
mod network;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::SurveyError;
use console::Consoles;
use disks::Disks;
use network::Routes;

/// Something on the host that would break if the function went away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Use {
    /// A file system on one of its disks, or a folder that it brings (9p, virtiofs), is mounted.
    Mount {
        /// The block device, for example `nvme0n1p2` or `dm-0`, or the tag of a folder that virtio brings.
        device: String,
        /// Where it is mounted.
        mount_point: String,
    },
    /// One of its disks is used for swap.
    Swap {
        /// The block device.
        device: String,
    },
    /// One of its disks is part of something active, of which nothing is mounted here: a logical volume, a RAID array, a btrfs.
    Held {
        /// The block device.
        device: String,
        /// The device built on it, or `btrfs` and the id of the file system.
        holder: String,
    },
    /// The host's default route leaves through it.
    DefaultRoute {
        /// Its own network interface.
        interface: String,
        /// The interface that the route names: the same, or one above it (a bond, bridge, team or VLAN).
        through: String,
    },
    /// The host's console is on it.
    Console {
        /// `ttyS4`, `fb0` or `vga`.
        device: String,
    },
    /// One of its connectors shows a picture.
    Display {
        /// The connector, for example `card1-DP-1`.
        connector: String,
    },
}

impl Use {
    /// What ends this use.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Use::Mount { mount_point, .. } => format!("unmount {mount_point} first"),
            Use::Swap { device } => format!("`swapoff /dev/{device}` first"),
            Use::Held { holder, .. } if holder.starts_with("md") => {
                format!("`mdadm --stop /dev/{holder}` first")
            }
            Use::Held { holder, .. } if holder.starts_with(disks::BTRFS) => format!("unmount {holder} first"),
            Use::Held { holder, .. } => {
                format!("deactivate {holder} first (vgchange -an, cryptsetup close, multipath -f)")
            }
            Use::DefaultRoute { .. } => "give the host another way out first".to_owned(),
            Use::Console { device } if device.starts_with("tty") => {
                format!("take console={device} off the kernel's command line")
            }
            Use::Console { .. } => {
                "give the host another console (boot with another graphics card)".to_owned()
            }
            Use::Display { .. } => "end what draws on it (display manager, compositor)".to_owned(),
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Mount { device, mount_point } => write!(f, "{device} is mounted at {mount_point}"),
            Use::Swap { device } => write!(f, "{device} is used as swap"),
            Use::Held { device, holder } => write!(f, "{device} is part of {holder}, which is active"),
            Use::DefaultRoute { interface, through } if interface == through => {
                write!(f, "the default route goes through {interface}")
            }
            Use::DefaultRoute { interface, through } => {
                write!(
                    f,
                    "the default route goes through {through}, which is on {interface}"
                )
            }
            Use::Console { device } => write!(f, "the host's console is on {device}"),
            Use::Display { connector } => write!(f, "{connector} shows a picture"),
        }
    }
}

/// What a host uses its devices for, read once.
pub(super) struct Usage {
    disks: Disks,
    routes: Routes,
    consoles: Consoles,
}

impl Usage {
    pub(super) fn read(root: &Path) -> Result<Usage, SurveyError> {
        Ok(Usage {
            disks: Disks::read(root)?,
            routes: Routes::read(root)?,
            consoles: Consoles::read(root)?,
        })
    }

    /// What is used of a function, and of the functions behind it, in a stable order.
    pub(super) fn of(&self, function: &Path) -> Vec<Use> {
        // What has no real path (it has gone, or is a loop of links) has nothing below it either.
        let Ok(real) = std::fs::canonicalize(function) else {
            return Vec::new();
        };
        let mut uses = BTreeSet::new();
        self.disks.of(&real, &mut uses);
        self.routes.of(&real, &mut uses);
        self.consoles.of(&real, &mut uses);
        uses.into_iter().collect()
    }
}

/// The members of a class of devices, by name, with their real places in sysfs.
fn members(class: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let class = class.to_owned();
    let names = super::attribute::names(&class);
    names
        .into_iter()
        .filter_map(move |name| Some((name.clone(), std::fs::canonicalize(class.join(name)).ok()?)))
}
