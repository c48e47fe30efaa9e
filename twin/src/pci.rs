//! PCI functions as the operating system sees them, and the slots that the platform names.

use std::collections::BTreeMap;

use pellucid_partition::Bdf;
use pellucid_passthrough::{Bar, Bridge, Capabilities, Function, Ids, Inventory, Place, Use};
use serde::{Deserialize, Serialize};

use crate::files::Files;

/// The PCI side of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Pci {
    /// Functions by address.
    pub functions: BTreeMap<Bdf, PciFunction>,
    /// Slots by name, with the address that the kernel gives them: `0000:02:00`, or `0000:02` for a whole bus.
    pub slots: BTreeMap<String, String>,
}

/// A PCI function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciFunction {
    /// What it is.
    pub ids: Ids,
    /// Its driver.
    pub driver: Option<String>,
    /// Bridges above it, outermost first.
    pub upstream: Vec<Bdf>,
    /// The buses behind it.
    pub bridge: Option<Bridge>,
    /// Base address registers in use.
    pub bars: Vec<Bar>,
    /// Slot, label, onboard index, node.
    pub place: Place,
    /// Of which physical function it is the virtual one, and its number there.
    pub virtual_of: Option<VirtualOf>,
    /// What its configuration space shows.
    pub config: ConfigSeen,
    /// Whether alternative routing ids are in use: device and function are one number.
    pub ari: bool,
    /// The slot user number that ACPI gives this very function (`_SUN`).
    pub sun: Option<u32>,
    /// What the running system has on its disks.
    pub carries: Carries,
}

/// The origin of a virtual function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualOf {
    /// The physical function.
    pub physical: Bdf,
    /// Its number, from 0.
    pub index: u32,
}

/// What configuration space shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ConfigSeen {
    /// Bytes that could be read: 0, 64 (not root), 256 or 4096.
    pub bytes: u16,
    /// Whether the header says that the device has several functions.
    pub multifunction: Option<bool>,
    /// Ids of the standard capabilities, in their order.
    pub standard: Vec<u16>,
    /// Ids of the extended capabilities, in their order.
    pub extended: Vec<u16>,
    /// The device serial number (extended capability 3).
    pub serial: Option<u64>,
}

/// What the running system has on the disks of a function, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub enum Carries {
    /// Nothing that is in use.
    #[default]
    Nothing,
    /// A mounted file system, swap, or a part of either.
    Data,
    /// The root file system.
    Root,
}

impl Pci {
    pub(crate) fn read(files: &Files<'_>) -> Pci {
        let inventory = match Inventory::survey_at(files.root) {
            Ok(inventory) => inventory,
            Err(error) => {
                files.note(format!("PCI functions are not known: {error}"));
                return Pci::default();
            }
        };
        let mut short = 0;
        let mut functions = BTreeMap::new();
        for (bdf, function) in inventory.functions.iter().take(MOST_FUNCTIONS) {
            let function = PciFunction::read(files, function, &inventory);
            short += usize::from(function.config.bytes <= HEADER);
            functions.insert(*bdf, function);
        }
        if short > 0 {
            let all = functions.len();
            files.note(format!(
                "of {short} of {all} functions no more than 64 bytes of configuration space could be read, so their capabilities are not known; root may read all"
            ));
        }
        if inventory.functions.len() > MOST_FUNCTIONS {
            files.note(format!("functions after the first {MOST_FUNCTIONS} are left out"));
        }
        let folder = "sys/bus/pci/slots";
        let address = |name: String| Some((name.clone(), files.text(&format!("{folder}/{name}/address"))?));
        Pci {
            functions,
            slots: files.names(folder).into_iter().filter_map(address).collect(),
        }
    }

    /// Whether udev sees a device of several functions: the header says so, or, where it could not be read, another function is there.
    #[must_use]
    pub fn is_multifunction(&self, bdf: Bdf) -> bool {
        let said = self
            .functions
            .get(&bdf)
            .and_then(|function| function.config.multifunction);
        said.unwrap_or_else(|| {
            let function = |number| Bdf::of_devfn(bdf.domain(), bdf.bus(), bdf.device() << 3 | number);
            self.functions.range(function(0)..=function(7)).count() > 1
        })
    }
}

impl PciFunction {
    /// A function of which nothing is known but what it is.
    #[must_use]
    pub fn bare(ids: Ids) -> PciFunction {
        PciFunction {
            ids,
            driver: None,
            upstream: Vec::new(),
            bridge: None,
            bars: Vec::new(),
            place: Place::default(),
            virtual_of: None,
            config: ConfigSeen::default(),
            ari: false,
            sun: None,
            carries: Carries::default(),
        }
    }

    fn read(files: &Files<'_>, function: &Function, all: &Inventory) -> PciFunction {
        let folder = format!("sys/bus/pci/devices/{}", function.bdf);
        let physical = function.sriov.physical;
        let number = |physical: Bdf| {
            let siblings = &all.function(physical)?.sriov.virtuals;
            let index = siblings
                .iter()
                .position(|virtual_function| *virtual_function == function.bdf)?;
            Some(VirtualOf {
                physical,
                index: u32::try_from(index).ok()?,
            })
        };
        PciFunction {
            driver: function.driver.bound.clone(),
            upstream: function.upstream.clone(),
            bridge: function.bridge,
            bars: function.bars.clone(),
            place: function.place.clone(),
            virtual_of: physical.and_then(number),
            config: ConfigSeen::read(files, &folder),
            ari: files.text(&format!("{folder}/ari_enabled")).as_deref() == Some("1"),
            sun: files
                .number(&format!("{folder}/firmware_node/sun"))
                .filter(|number| *number > 0),
            carries: function.uses.iter().map(Carries::of).max().unwrap_or_default(),
            ..PciFunction::bare(function.ids)
        }
    }

    /// Whether it is a bridge to another bus.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.ids.class >> 8 == 0x0604
    }

    /// What the class says in words.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match self.ids.class >> 8 {
            0x0108 => "NVMe controller",
            0x0106 => "SATA controller",
            0x0200 => "network card",
            0x0600 => "host bridge",
            0x0601 => "ISA bridge",
            0x0604 => "PCI bridge",
            0x0c03 => "USB controller",
            0x0c05 => "SMBus",
            class => match class >> 8 {
                0x01 => "storage controller",
                0x02 => "network controller",
                0x03 => "display",
                0x04 => "multimedia device",
                0x06 => "bridge",
                0x0b | 0x12 => "processor",
                _ => "device",
            },
        }
    }
}

impl ConfigSeen {
    /// A device that sleeps is not woken for it.
    fn read(files: &Files<'_>, folder: &str) -> ConfigSeen {
        if files.text(&format!("{folder}/power/runtime_status")).as_deref() == Some("suspended") {
            files.note(format!(
                "/{folder}/config was not read: the function sleeps, and reading would wake it"
            ));
            return ConfigSeen::default();
        }
        let space = files.bytes(&format!("{folder}/config"), 4096).unwrap_or_default();
        let capabilities = Capabilities::walk(&space);
        let serial = capabilities
            .extended
            .iter()
            .find(|capability| capability.id == SERIAL_NUMBER);
        let serial = serial.and_then(|capability| {
            let at = usize::from(capability.offset) + 4;
            Some(u64::from_le_bytes(space.get(at..at + 8)?.try_into().ok()?))
        });
        ConfigSeen {
            bytes: u16::try_from(space.len()).unwrap_or_default(),
            multifunction: space.get(HEADER_TYPE).map(|header| header & 0x80 != 0),
            standard: capabilities
                .standard
                .iter()
                .map(|capability| capability.id)
                .collect(),
            extended: capabilities
                .extended
                .iter()
                .map(|capability| capability.id)
                .collect(),
            serial,
        }
    }
}

impl Carries {
    fn of(use_: &Use) -> Carries {
        match use_ {
            Use::Mount { mount_point, .. } if mount_point == "/" => Carries::Root,
            Use::Mount { .. } | Use::Swap { .. } | Use::Held { .. } => Carries::Data,
            _ => Carries::Nothing,
        }
    }
}

pub(crate) const MOST_FUNCTIONS: usize = 4096;
/// What the kernel lets everybody read of configuration space.
const HEADER: u16 = 64;
const HEADER_TYPE: usize = 0x0e;
/// PCI Express base 7.9.3.
const SERIAL_NUMBER: u16 = 3;
