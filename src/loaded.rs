//! What the first vCPU begins with, and how the guest learns of its machine: from tables in memory, or from what firmware asks.

use std::sync::Arc;

use pellucid_chipset::{BoardSpec, ConfigPorts, Firmware, clock_memory};
use pellucid_image::{AcpiBoard, SmbiosTables};
use pellucid_partition::{Entry, Populated};
use pellucid_passthrough::Function;

use crate::error::StartError;
use crate::firmware::{FirmwareHeld, Told};
use crate::server::EventSink;
use crate::tree::Tree;

/// What was loaded.
pub(crate) enum Loaded {
    /// A kernel in memory.
    Kernel(Entry),
    /// Firmware, not yet before the guest.
    Firmware(Box<FirmwareHeld>),
}

/// Firmware before the guest, and what it is told.
pub(crate) type Shown = (Firmware, Arc<Told>);

impl Loaded {
    /// Puts it before the guest with its tables, and makes the board and the places of functions what it needs. `functions` are the lent ones
    /// as the host has them.
    pub(crate) fn show(
        self,
        (populated, events): (&Populated, &EventSink),
        (tables, smbios): (AcpiBoard, Option<&SmbiosTables>),
        (tree, functions): (&mut Tree, Vec<Function>),
        spec: &mut BoardSpec,
    ) -> Result<(Entry, Option<Shown>), StartError> {
        match self {
            Self::Kernel(entry) => {
                tables.tables()?.write(populated.memory())?;
                if let Some(smbios) = smbios {
                    smbios.write(populated.memory())?;
                }
                spec.config_ports = config_ports(&entry);
                Ok((entry, None))
            }
            Self::Firmware(held) => {
                let layout = populated.plan().layout();
                let told = Told::of(tables, layout, (tree, functions), events);
                tree.windows = told.reach();
                spec.ecam = told.follows_ecam();
                spec.clock_memory = clock_memory(layout);
                let fw_cfg = told.fw_cfg(populated, smbios)?;
                let firmware = Firmware::attach(populated, held.spec(fw_cfg))?;
                Ok((Entry::Reset, Some((firmware, told))))
            }
        }
    }
}

/// A Linux kernel that is loaded directly finds ECAM in the ACPI tables and needs no other way; what else may come in by
/// another entry is not known to.
fn config_ports(entry: &Entry) -> ConfigPorts {
    match entry {
        Entry::Linux64 { .. } => ConfigPorts::Absent,
        _ => ConfigPorts::Present,
    }
}
