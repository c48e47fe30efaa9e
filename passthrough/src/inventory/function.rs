//! One PCI function as sysfs describes it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

use super::Use;
use super::group::{Group, group};
use crate::capabilities::{Capabilities, ID_EXPRESS};
use crate::error::SurveyError;

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
    /// The bridges between the root bus and it, outermost first. The last is the port that it is behind.
    pub upstream: Vec<Bdf>,
    /// The buses behind it, if it is a bridge.
    pub bridge: Option<Bridge>,
    /// The physical slot's name, where the platform names it.
    pub slot: Option<String>,
    /// How the kernel can reset it, in the order it tries (`flr`, `pm`, `bus`, ...).
    pub reset_methods: Vec<String>,
    /// The NUMA node that it is attached to.
    pub numa_node: Option<u32>,
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

/// A base address register in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// 0 to 5; a 64-bit register also takes the next number.
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Where the host has it.
    pub address: u64,
    /// Bytes, a power of two.
    pub size: u64,
}

/// What a base address register decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory, with a 32-bit address.
    Memory32 {
        /// Reads have no side effect.
        prefetchable: bool,
    },
    /// Memory, with a 64-bit address.
    Memory64 {
        /// Reads have no side effect.
        prefetchable: bool,
    },
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
    /// Reads the function whose sysfs directory is `path`; None if it has just gone.
    pub(super) fn read(bdf: Bdf, path: &Path) -> Result<Option<Function>, SurveyError> {
        let Some(vendor) = number(path, "vendor")? else {
            return Ok(None);
        };
        let field = |name| number(path, name).map(|value| value.unwrap_or(0));
        let ids = Ids {
            vendor: vendor as u16,
            device: field("device")? as u16,
            class: field("class")? as u32,
            revision: field("revision")? as u8,
            subsystem: [
                field("subsystem_vendor")? as u16,
                field("subsystem_device")? as u16,
            ],
        };
        let only = text(path, "driver_override")?.filter(|only| !only.is_empty() && only != "(null)");
        let driver = DriverState {
            bound: link(path, "driver"),
            only,
        };
        let reset_methods = text(path, "reset_method")?.unwrap_or_default();
        let numa_node = text(path, "numa_node")?.and_then(|node| node.parse().ok());
        Ok(Some(Function {
            bdf,
            ids,
            driver,
            group: group(path),
            bars: bars(&text(path, "resource")?.unwrap_or_default()),
            upstream: upstream(bdf, path),
            bridge: bridge(path),
            slot: None,
            reset_methods: reset_methods.split_whitespace().map(str::to_owned).collect(),
            numa_node,
            uses: Vec::new(),
        }))
    }

    /// Whether it is a bridge of any kind.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.ids.class >> 16 == 0x06
    }

    /// Whether it is a PCI-to-PCI bridge that no driver makes do anything of its own.
    #[must_use]
    pub fn is_transparent_bridge(&self) -> bool {
        let harmless = matches!(self.driver.bound.as_deref(), None | Some("pcieport"));
        self.ids.class >> 8 == 0x0604 && self.bridge.is_some() && harmless
    }

    /// The port right above it; None: it is on a root bus.
    #[must_use]
    pub fn port(&self) -> Option<Bdf> {
        self.upstream.last().copied()
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

impl BarKind {
    /// Whether reads have no side effect.
    #[must_use]
    pub fn prefetchable(self) -> bool {
        matches!(
            self,
            BarKind::Memory32 { prefetchable: true } | BarKind::Memory64 { prefetchable: true }
        )
    }
}

/// Slot names by domain, bus and device.
pub(super) fn slots(root: &Path) -> BTreeMap<(u16, u8, u8), String> {
    let listing = fs::read_dir(root.join("sys/bus/pci/slots"))
        .into_iter()
        .flatten()
        .flatten();
    let slot = |entry: fs::DirEntry| {
        let address = fs::read_to_string(entry.path().join("address")).ok()?;
        let bdf: Bdf = format!("{}.0", address.trim()).parse().ok()?;
        Some((
            (bdf.domain(), bdf.bus(), bdf.device()),
            entry.file_name().to_string_lossy().into_owned(),
        ))
    };
    listing.filter_map(slot).collect()
}

fn text(path: &Path, name: &str) -> Result<Option<String>, SurveyError> {
    match fs::read_to_string(path.join(name)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(source) => Err(SurveyError {
            path: path.join(name),
            source,
        }),
    }
}

fn number(path: &Path, name: &str) -> Result<Option<u64>, SurveyError> {
    let value = text(path, name)?;
    Ok(value.and_then(|value| u64::from_str_radix(value.trim_start_matches("0x"), 16).ok()))
}

pub(super) fn link(path: &Path, name: &str) -> Option<String> {
    let target = fs::read_link(path.join(name)).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// The lines of `resource`: start, end and flags of BAR 0 to 5, then of the ROM and more.
fn bars(resource: &str) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (index, line) in resource.lines().take(6).enumerate() {
        let mut fields = line
            .split_whitespace()
            .map(|field| u64::from_str_radix(field.trim_start_matches("0x"), 16));
        let (Some(Ok(start)), Some(Ok(end)), Some(Ok(flags))) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let size = end.wrapping_sub(start).wrapping_add(1);
        let prefetchable = flags & IORESOURCE_PREFETCH != 0;
        let kind = match flags {
            flags if flags & IORESOURCE_IO != 0 => BarKind::Io,
            flags if flags & IORESOURCE_MEM == 0 => continue,
            flags if flags & IORESOURCE_MEM_64 != 0 => BarKind::Memory64 { prefetchable },
            _ => BarKind::Memory32 { prefetchable },
        };
        if end > start && size.is_power_of_two() {
            bars.push(Bar {
                index: index as u8,
                kind,
                address: start,
                size,
            });
        }
    }
    bars
}

/// The addresses in the real sysfs path above the function itself.
fn upstream(bdf: Bdf, path: &Path) -> Vec<Bdf> {
    let Ok(real) = fs::canonicalize(path) else {
        return Vec::new();
    };
    let parents = real
        .components()
        .filter_map(|part| part.as_os_str().to_str()?.parse::<Bdf>().ok());
    parents.filter(|parent| *parent != bdf).collect()
}

/// Bus numbers from the header of a PCI-to-PCI bridge (offsets 0x19 and 0x1a).
fn bridge(path: &Path) -> Option<Bridge> {
    let space = fs::read(path.join("config")).ok()?;
    let kind = space.get(0x0e)? & 0x7f;
    let flags = Capabilities::walk(&space)
        .find(ID_EXPRESS)
        .and_then(|at| space.get(usize::from(at) + 2));
    (kind == 1).then_some(Bridge {
        secondary: *space.get(0x19)?,
        subordinate: *space.get(0x1a)?,
        express: flags.map(|flags| flags >> 4),
    })
}

// include/linux/ioport.h
const IORESOURCE_IO: u64 = 0x100;
const IORESOURCE_MEM: u64 = 0x200;
const IORESOURCE_PREFETCH: u64 = 0x2000;
const IORESOURCE_MEM_64: u64 = 0x10_0000;
