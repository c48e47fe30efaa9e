//! What PCI functions a host has, who uses them, and whether VFIO is there. Reads sysfs and /proc, changes nothing.
//!
//! A tree of fixture files stands in for a host: every path is below one root.

mod attribute;
mod class;
mod condition;
mod function;
mod group;
mod names;
mod place;
mod resources;
mod sriov;
mod uses;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

use crate::error::SurveyError;

pub use condition::{Condition, Counts, ErrorCounts, PowerState};
pub use function::{Bridge, DriverState, Function, Ids};
pub use group::{Group, ReservedRegion};
pub use names::{Name, Names};
pub use place::Place;
pub use resources::{Bar, BarKind};
pub use sriov::Sriov;
pub use uses::Use;

/// The PCI side of a host at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Inventory {
    /// Every function, by address.
    pub functions: BTreeMap<Bdf, Function>,
    /// Whether VFIO can be used.
    pub vfio: VfioState,
    /// The narrowest address width of the host's IOMMUs in bits, where the kernel says it (Intel: `MGAW` of the capability
    /// register, VT-d specification 11.4.2).
    pub iommu_bits: Option<u8>,
}

/// The state of VFIO on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct VfioState {
    /// Whether the driver vfio-pci is loaded.
    pub driver: bool,
    /// Whether `/dev/vfio/vfio` can be opened.
    pub container: NodeState,
}

/// Whether a device node can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum NodeState {
    /// It is there and this process may open it.
    Usable,
    /// It is there, but not for this process.
    Denied,
    /// It is not there.
    #[default]
    Missing,
}

impl Inventory {
    /// Reads this host.
    pub fn survey() -> Result<Inventory, SurveyError> {
        Inventory::survey_at(Path::new("/"))
    }

    /// Reads the host whose `sys`, `proc` and `dev` are below `root`.
    pub fn survey_at(root: &Path) -> Result<Inventory, SurveyError> {
        let devices = root.join("sys/bus/pci/devices");
        let listing = match fs::read_dir(&devices) {
            Ok(listing) => listing,
            // A machine without PCI has no such directory, and nothing to lend.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Inventory::default()),
            Err(source) => {
                return Err(SurveyError {
                    path: devices,
                    source,
                });
            }
        };
        let usage = uses::Usage::read(root)?;
        let (slots, mut groups) = (place::slots(root), group::Groups::default());
        let mut functions = BTreeMap::new();
        for entry in listing {
            let path = entry
                .map_err(|source| SurveyError {
                    path: devices.clone(),
                    source,
                })?
                .path();
            let Some(bdf) = path
                .file_name()
                .and_then(|name| name.to_str()?.parse::<Bdf>().ok())
            else {
                continue;
            };
            // A function that is unplugged while we read, or does not say what it is, is a function less.
            let Some(mut function) = Function::read(bdf, &path) else {
                continue;
            };
            function.group = groups.of(&path);
            function.place.slot = slots.get(&(bdf.domain(), bdf.bus(), bdf.device())).cloned();
            // What is behind a bridge is not the bridge's.
            if !function.is_bridge() {
                function.uses = usage.of(&path);
            }
            functions.insert(bdf, function);
        }
        Ok(Inventory {
            functions,
            vfio: vfio_state(root),
            iommu_bits: iommu_bits(root),
        })
    }

    /// One function.
    #[must_use]
    pub fn function(&self, bdf: Bdf) -> Option<&Function> {
        self.functions.get(&bdf)
    }
}

/// What the host uses one function for at this moment.
pub(crate) fn uses_now(root: &Path, device: Bdf) -> Result<Vec<Use>, SurveyError> {
    let usage = uses::Usage::read(root)?;
    Ok(usage.of(&root.join("sys/bus/pci/devices").join(device.to_string())))
}

fn vfio_state(root: &Path) -> VfioState {
    let node = root.join("dev/vfio/vfio");
    let container = match fs::OpenOptions::new().read(true).write(true).open(node) {
        Ok(_) => NodeState::Usable,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => NodeState::Denied,
        Err(_) => NodeState::Missing,
    };
    VfioState {
        driver: root.join("sys/bus/pci/drivers/vfio-pci").is_dir(),
        container,
    }
}

fn iommu_bits(root: &Path) -> Option<u8> {
    let units = fs::read_dir(root.join("sys/class/iommu")).ok()?;
    let width = |unit: PathBuf| {
        let text = fs::read_to_string(unit.join("intel-iommu/cap")).ok()?;
        let capability = u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()?;
        Some((capability >> 16 & 0x3f) as u8 + 1)
    };
    units.flatten().filter_map(|unit| width(unit.path())).min()
}
