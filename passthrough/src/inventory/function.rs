//! One PCI function as sysfs describes it.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

use super::attribute::{bytes, count, functions_above, hex, text};
use super::condition::Condition;
use super::group::Group;
use super::place::Place;
use super::resources::{Bar, bars};
use super::sriov::Sriov;
use super::uses::Use;
use crate::capabilities::{Capabilities, ID_EXPRESS};

/// A PCI function of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its address.
    pub bdf: Bdf,
    /// What it is.
    pub ids: Ids,
    /// Who drives it.
    pub driver: DriverState,
    /// Its IOMMU group; None: no IOMMU is in use for it.
    pub group: Option<Group>,
    /// Its base address registers, those in use only.
    pub bars: Vec<Bar>,
    /// What is between the root bus and it, outermost first: bridges, or a controller that has a domain of its own. The last is the
    /// port that it is behind.
    pub upstream: Vec<Bdf>,
    /// The buses behind it, if it is a bridge.
    pub bridge: Option<Bridge>,
    /// Where it sits in the machine.
    pub place: Place,
    /// Its part in SR-IOV.
    pub sriov: Sriov,
    /// How the kernel can reset it, in the order it tries (`flr`, `pm`, `bus`, ...).
    pub reset_methods: Vec<String>,
    /// Its power state and the errors it has reported.
    pub condition: Condition,
    /// What the host uses it for.
    pub uses: Vec<Use>,
}

/// What a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// Who made it.
    pub vendor: u16,
    /// Which of theirs it is.
    pub device: u16,
    /// Base class, sub-class and interface, as 24 bits.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// Who made the board, with its number: `[vendor, device]`.
    pub subsystem: [u16; 2],
}

/// Who drives a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct DriverState {
    /// The driver bound now.
    pub bound: Option<String>,
    /// The only driver that may bind, if one was set.
    pub only: Option<String>,
}

/// The bus numbers of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// The bus right behind it.
    pub secondary: u8,
    /// The highest bus behind it.
    pub subordinate: u8,
    /// What kind of PCI Express port it is (base 5.0, 7.5.3.2); None: conventional, or its capabilities cannot be read without root.
    pub express: Option<u8>,
}

impl Function {
    /// A function of which nothing is known but where and what it is.
    #[must_use]
    pub fn bare(bdf: Bdf, ids: Ids) -> Function {
        Function {
            bdf,
            ids,
            driver: DriverState::default(),
            group: None,
            bars: Vec::new(),
            upstream: Vec::new(),
            bridge: None,
            place: Place::default(),
            sriov: Sriov::default(),
            reset_methods: Vec::new(),
            condition: Condition::default(),
            uses: Vec::new(),
        }
    }

    /// Reads the function whose sysfs directory is `path`, but for its group, slot and uses. None: it has just gone, or it
    /// does not say what it is, and then nothing can be decided about it.
    pub(super) fn read(bdf: Bdf, path: &Path) -> Option<Function> {
        let ids = Ids::read(path)?;
        let reset_methods = text(path, "reset_method").unwrap_or_default();
        let mut upstream = functions_above(path);
        upstream.retain(|above| *above != bdf);
        Some(Function {
            driver: DriverState::read(path),
            bars: bars(&text(path, "resource").unwrap_or_default()),
            upstream,
            bridge: Bridge::read(path, ids),
            place: Place::read(path),
            sriov: Sriov::read(path),
            reset_methods: reset_methods.split_whitespace().map(str::to_owned).collect(),
            condition: Condition::read(path),
            ..Function::bare(bdf, ids)
        })
    }

    /// Whether it is a bridge of any kind.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.ids.class >> 16 == 0x06 || self.bridge.is_some()
    }

    /// Whether it is a PCI-to-PCI bridge that no driver makes do anything of its own.
    #[must_use]
    pub fn is_transparent_bridge(&self) -> bool {
        let harmless = match self.driver.bound.as_deref() {
            None | Some("pcieport") => true,
            Some(driver) => DriverState::parks(driver),
        };
        self.ids.class >> 8 == 0x0604 && self.bridge.is_some() && harmless
    }

    /// The port right above it; None: it is on a root bus.
    #[must_use]
    pub fn port(&self) -> Option<Bdf> {
        self.upstream.last().copied()
    }
}

impl Ids {
    fn read(path: &Path) -> Option<Ids> {
        let field = |name| hex(path, name).unwrap_or(0) as u16;
        Some(Ids {
            vendor: u16::try_from(hex(path, "vendor")?).ok()?,
            device: u16::try_from(hex(path, "device")?).ok()?,
            class: u32::try_from(hex(path, "class")?).ok()?,
            revision: hex(path, "revision").unwrap_or(0) as u8,
            subsystem: [field("subsystem_vendor"), field("subsystem_device")],
        })
    }
}

impl DriverState {
    fn read(path: &Path) -> DriverState {
        let bound = match fs::read_link(path.join("driver")) {
            Ok(driver) => driver.file_name().map(|name| name.to_string_lossy().into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // Whoever it is, it is not nobody.
            Err(_) => Some("unknown".to_owned()),
        };
        let only = text(path, "driver_override").filter(|only| !only.is_empty() && only != "(null)");
        DriverState { bound, only }
    }

    /// Whether a driver of this name only keeps others away: it does no DMA of its own, and the kernel gives the group to VFIO
    /// all the same (`driver_managed_dma` of drivers/pci/pci-stub.c and of the vfio-pci family).
    #[must_use]
    pub fn parks(driver: &str) -> bool {
        driver == "pci-stub" || driver.replace('_', "-").ends_with("vfio-pci")
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:04x} class {:06x} revision {:02x}",
            self.vendor, self.device, self.class, self.revision
        )
    }
}

impl Bridge {
    /// The kernel's own attributes for the bus numbers, else the header of a PCI-to-PCI bridge (offsets 0x19 and 0x1a). Only
    /// bridges are asked: reading the configuration space of a sleeping device wakes it.
    fn read(path: &Path, ids: Ids) -> Option<Bridge> {
        let told = (
            count(path, "secondary_bus_number"),
            count(path, "subordinate_bus_number"),
        );
        if told.0.is_none() && ids.class >> 16 != 0x06 {
            return None;
        }
        let space = bytes(path, "config", CONFIG_SIZE).unwrap_or_default();
        let byte = |at: usize| space.get(at).copied();
        let header = byte(0x0e)
            .filter(|kind| kind & 0x7f == 1)
            .and(byte(0x19).zip(byte(0x1a)));
        let (secondary, subordinate) = told.0.zip(told.1).or(header)?;
        let express = Capabilities::walk(&space).find(ID_EXPRESS);
        let flags = express.and_then(|at| byte(usize::from(at) + 2));
        Some(Bridge {
            secondary,
            subordinate,
            express: flags.map(|flags| flags >> 4),
        })
    }
}

/// A configuration space.
const CONFIG_SIZE: u64 = 4096;
