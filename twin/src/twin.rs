//! A machine's identity as one value: what its operating system recognizes it by. Plain data, ordered, so that two
//! captures of one machine are equal; kept as JSON with the version of its format.

use std::collections::BTreeMap;

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::cpus::{self, Cpus};
use crate::disks::{self, Disk};
use crate::efi::Firmware;
use crate::error::TwinError;
use crate::files;
use crate::memory::Memory;
use crate::network::{self, Nic};
use crate::pci::{self, Pci};
use crate::tables::{AcpiTable, Smbios};

/// The version of the format that is written and read.
pub const FORMAT: u32 = 1;
/// The most bytes of JSON that are read: a server with 4,000 functions has about 8 MiB.
pub const MOST_BYTES: usize = 64 << 20;

/// What an operating system recognizes its machine by, as one capture found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Twin {
    /// [`FORMAT`].
    pub format: u32,
    /// Which system looked.
    pub origin: Origin,
    /// PCI functions and slots.
    pub pci: Pci,
    /// Processors.
    pub cpus: Cpus,
    /// Memory and its map.
    pub memory: Memory,
    /// SMBIOS tables and the ids that the kernel shows of them.
    pub smbios: Smbios,
    /// ACPI tables by name, as `SSDT2`.
    pub acpi: BTreeMap<String, AcpiTable>,
    /// Network interfaces that have a device, by name.
    pub nics: BTreeMap<String, Nic>,
    /// Disks that have a device, by name.
    pub disks: BTreeMap<String, Disk>,
    /// Clocks.
    pub clock: Clock,
    /// How it was started.
    pub firmware: Firmware,
    /// What could not be read, or not whole.
    pub notes: Vec<Note>,
}

/// Which system looked at the machine. Not part of the identity, but what it sees depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Origin {
    /// The kernel's release; empty: not known.
    pub kernel: String,
    /// The version of systemd, which fixes how it names network interfaces.
    pub systemd: Option<u32>,
    /// `net.naming_scheme=` of the kernel's command line.
    pub naming_scheme: Option<String>,
    /// Whether names were switched off, by `net.ifnames=0`.
    pub kernel_names: bool,
    /// Whether it ran under a hypervisor that shows itself.
    pub guest: bool,
    /// Functions that were left out on purpose, where this is a prediction.
    pub withheld: Vec<Bdf>,
}

/// Something that could not be read, and what is missing because of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Note {
    /// The part of the twin: `pci`, `cpus`, `memory`, `smbios`, `acpi`, `nics`, `disks`, `clock`, `firmware`.
    pub part: String,
    /// What is missing and why.
    pub what: String,
}

impl Twin {
    /// A machine of which nothing is known.
    #[must_use]
    pub fn empty() -> Twin {
        Twin {
            format: FORMAT,
            origin: Origin::default(),
            pci: Pci::default(),
            cpus: Cpus::default(),
            memory: Memory::default(),
            smbios: Smbios::default(),
            acpi: BTreeMap::new(),
            nics: BTreeMap::new(),
            disks: BTreeMap::new(),
            clock: Clock::default(),
            firmware: Firmware::default(),
            notes: Vec::new(),
        }
    }

    /// Reads a twin from JSON.
    ///
    /// # Errors
    /// It is too large or has too many parts, is of another format, or no twin.
    pub fn from_json(bytes: &[u8]) -> Result<Twin, TwinError> {
        if bytes.len() > MOST_BYTES {
            return Err(TwinError::TooLarge {
                size: bytes.len(),
                limit: MOST_BYTES,
            });
        }
        // Another format has other fields, so its number is looked at first.
        let Format { format } = serde_json::from_slice(bytes)?;
        if format != u64::from(FORMAT) {
            return Err(TwinError::Format {
                found: format,
                known: FORMAT,
            });
        }
        let twin: Twin = serde_json::from_slice(bytes)?;
        for (part, count, limit) in [
            ("PCI functions", twin.pci.functions.len(), pci::MOST_FUNCTIONS),
            ("slots", twin.pci.slots.len(), files::MOST_NAMES),
            ("network interfaces", twin.nics.len(), network::MOST_NICS),
            ("disks", twin.disks.len(), disks::MOST_DISKS),
            ("answers of CPUID", twin.cpus.leaves.len(), cpus::MOST_ANSWERS),
        ] {
            if count > limit {
                return Err(TwinError::Crowded { part, count, limit });
            }
        }
        Ok(twin)
    }

    /// The twin as JSON, one field a line.
    ///
    /// # Errors
    /// None that is known: every field has a form in JSON.
    pub fn to_json(&self) -> Result<String, TwinError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Whether something of `part` could not be read.
    #[must_use]
    pub fn is_partial(&self, part: &str) -> bool {
        self.notes.iter().any(|note| note.part == part)
    }
}

/// The field that every format has.
#[derive(Deserialize)]
struct Format {
    format: u64,
}
