//! IOMMU groups, and the I/O addresses that will be translated for devices, as far as sysfs tells before anything is bound.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use pellucid_partition::{Bdf, LayoutError, Reach};
use serde::{Deserialize, Serialize};

use super::Inventory;
use super::attribute::{link, text};

/// An IOMMU group: functions that the IOMMU cannot tell apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its number, which is the name of its node below `/dev/vfio`.
    pub id: u32,
    /// All its functions.
    pub members: Vec<Bdf>,
    /// Members that are no PCI functions, by their names. None of them can be lent.
    pub others: Vec<String>,
    /// I/O addresses that must not be mapped for it.
    pub reserved: Vec<ReservedRegion>,
}

/// Addresses that an IOMMU group must not map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedRegion {
    /// The addresses.
    pub range: Range<u64>,
    /// What the kernel says they are for (`direct`, `reserved`, `msi`).
    pub kind: String,
}

impl Inventory {
    /// The addresses at which all of `devices` can reach guest memory and each other: those of the narrowest IOMMU, 39 bits where its
    /// width is not known, less what the kernel reserves for their groups. Once a device is bound, its container says the same more
    /// surely, and memory that it does not take is refused then.
    pub fn reach(&self, devices: impl IntoIterator<Item = Bdf>) -> Result<Reach, LayoutError> {
        let mut reach = match self.iommu_bits {
            Some(bits) => Reach::bits(bits.min(MOST_BITS))?,
            None => Reach::default(),
        };
        for device in devices {
            let group = self.function(device).and_then(|function| function.group.as_ref());
            for region in group.into_iter().flat_map(|group| &group.reserved) {
                let name = format!("the {} region of device {device}", region.kind);
                reach = reach.without(&name, region.range.clone());
            }
        }
        Ok(reach)
    }
}

/// The groups of a host, each read once.
#[derive(Default)]
pub(super) struct Groups {
    read: BTreeMap<u32, Option<Group>>,
}

impl Groups {
    /// The group of the function whose sysfs directory is `path`; None: no IOMMU keeps its DMA apart, or who else is in the group
    /// cannot be known.
    pub(super) fn of(&mut self, path: &Path) -> Option<Group> {
        let id = link(path, "iommu_group")?.parse().ok()?;
        let group = self.read.entry(id);
        group
            .or_insert_with(|| read(id, &path.join("iommu_group")))
            .clone()
    }
}

fn read(id: u32, directory: &Path) -> Option<Group> {
    // VFIO makes such a group for a device that no IOMMU translates (drivers/vfio/group.c).
    if text(directory, "name").as_deref() == Some("vfio-noiommu") {
        return None;
    }
    let (mut members, mut others) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory.join("devices")).ok()? {
        let name = entry.ok()?.file_name().to_string_lossy().into_owned();
        match name.parse() {
            Ok(bdf) => members.push(bdf),
            Err(_) => others.push(name),
        }
    }
    members.sort_unstable();
    others.sort_unstable();
    Some(Group {
        id,
        members,
        others,
        reserved: reserved(directory),
    })
}

/// The lines of `reserved_regions`: first address, last address, kind. VFIO maps over what is `direct-relaxable`.
fn reserved(group: &Path) -> Vec<ReservedRegion> {
    let text = text(group, "reserved_regions").unwrap_or_default();
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let region = |line: &str| {
        let mut words = line.split_whitespace();
        let (start, last) = (number(words.next()?)?, number(words.next()?)?);
        let kind = words.next()?;
        let region = ReservedRegion {
            range: start..last.saturating_add(1),
            kind: kind.to_owned(),
        };
        (kind != "direct-relaxable" && !region.range.is_empty()).then_some(region)
    };
    text.lines().filter_map(region).collect()
}

/// Wider than any guest-physical map.
const MOST_BITS: u8 = 52;
