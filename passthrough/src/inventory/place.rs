//! Where a function is: in which slot, under which label of the board, on which node.

use std::collections::BTreeMap;
use std::path::Path;

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

use super::attribute::{count, names, text};

/// Where a function sits in the machine, as far as firmware and platform tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Place {
    /// The physical slot's name, where the platform names it. Thunderbolt and other hotplug ports have one too.
    pub slot: Option<String>,
    /// The label printed on the board (`NIC1`), from ACPI or else SMBIOS type 41.
    pub label: Option<String>,
    /// The instance of its onboard device record (SMBIOS type 41); systemd makes `eno1` of it.
    pub index: Option<u32>,
    /// The same from ACPI (`_DSM` function 7), which systemd prefers.
    pub acpi_index: Option<u32>,
    /// The NUMA node that it is attached to.
    pub numa_node: Option<u32>,
    /// Whether a person can pull it out: true behind an external port (Thunderbolt, ExpressCard). None: not known.
    pub removable: Option<bool>,
}

impl Place {
    /// All but the slot, which the platform lists elsewhere.
    pub(super) fn read(path: &Path) -> Place {
        let removable = match text(path, "removable").as_deref() {
            Some("removable") => Some(true),
            Some("fixed") => Some(false),
            _ => None,
        };
        Place {
            slot: None,
            label: text(path, "label").filter(|label| !label.is_empty()),
            index: count(path, "index"),
            acpi_index: count(path, "acpi_index"),
            numa_node: count(path, "numa_node"),
            removable,
        }
    }

    /// The number by which the operating system calls it an onboard device.
    #[must_use]
    pub fn onboard(&self) -> Option<u32> {
        self.acpi_index.or(self.index)
    }
}

/// Slot names by domain, bus and device.
pub(super) fn slots(root: &Path) -> BTreeMap<(u32, u8, u8), String> {
    let directory = root.join("sys/bus/pci/slots");
    let slot = |name: String| {
        let address = text(&directory.join(&name), "address")?;
        let bdf: Bdf = format!("{address}.0").parse().ok()?;
        Some(((bdf.domain(), bdf.bus(), bdf.device()), name))
    };
    names(&directory).into_iter().filter_map(slot).collect()
}
