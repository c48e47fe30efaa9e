//! IOMMU groups, and the I/O addresses that will be translated for devices, as far as sysfs tells before anything is bound.

use std::fs;
use std::ops::Range;
use std::path::Path;

use pellucid_partition::{Bdf, LayoutError, Reach};
use serde::{Deserialize, Serialize};

use super::Inventory;
use super::function::link;

/// An IOMMU group: functions that the IOMMU cannot tell apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its number, which is the name of its node below `/dev/vfio`.
    pub id: u32,
    /// All its functions.
    pub members: Vec<Bdf>,
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

/// The group of the function whose sysfs directory is `path`.
pub(super) fn group(path: &Path) -> Option<Group> {
    let id = link(path, "iommu_group")?.parse().ok()?;
    let listing = fs::read_dir(path.join("iommu_group/devices")).ok()?;
    let mut members: Vec<Bdf> = listing
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .collect();
    members.sort_unstable();
    Some(Group {
        id,
        members,
        reserved: reserved(&path.join("iommu_group")),
    })
}

/// The lines of `reserved_regions`: first address, last address, kind. VFIO maps over what is `direct-relaxable`.
fn reserved(group: &Path) -> Vec<ReservedRegion> {
    let text = fs::read_to_string(group.join("reserved_regions")).unwrap_or_default();
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
