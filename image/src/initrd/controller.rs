//! Storage controllers that a root file system may be on, and the drivers that find it there.

use std::fmt;

use super::{InitrdModules, Presence};

/// A PCI storage controller, by its ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageController {
    /// Base class, subclass and programming interface.
    pub class: u32,
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
}

impl StorageController {
    /// The modules that must all be there for a disk behind it to appear, by Linux's names; none where that is not known.
    #[must_use]
    pub fn drivers(self) -> &'static [&'static str] {
        match (self.vendor, self.device, self.class >> 8) {
            (0x1af4, 0x1001 | 0x1042, _) => &["virtio_pci", "virtio_blk"],
            (0x1af4, 0x1004 | 0x1048, _) => &["virtio_pci", "virtio_scsi", "sd_mod"],
            (0x15ad, 0x07c0, _) => &["vmw_pvscsi", "sd_mod"],
            (_, _, 0x0108) => &["nvme"],
            (_, _, 0x0106) => &["ahci", "sd_mod"],
            (0x8086, _, 0x0101) => &["ata_piix", "sd_mod"],
            (
                0x1000,
                0x0064
                | 0x0065
                | 0x006e
                | 0x0070
                | 0x0072
                | 0x0074
                | 0x0076
                | 0x0077
                | 0x007e
                | 0x0080..=0x0087
                | 0x0090..=0x0097
                | 0x00ac..=0x00ae
                | 0x00e0..=0x00ef,
                0x0107 | 0x0104 | 0x0100,
            ) => &["mpt3sas", "sd_mod"],
            // Older RAID controllers have another driver.
            (0x1000, 0x0407..=0x0409 | 0x1960, 0x0104) => &[],
            (0x1000, _, 0x0104) => &["megaraid_sas", "sd_mod"],
            (0x9005, 0x028f, 0x0104 | 0x0107) => &["smartpqi", "sd_mod"],
            (0x9005, 0x0285..=0x028d, 0x0104 | 0x0107) => &["aacraid", "sd_mod"],
            (0x103c, _, 0x0104) => &["hpsa", "sd_mod"],
            _ => &[],
        }
    }

    /// Which of its drivers neither the initrds nor the kernel have.
    #[must_use]
    pub fn missing(self, modules: &InitrdModules) -> Vec<&'static str> {
        let lacks = |name: &&&str| modules.presence(name) == Presence::Missing;
        self.drivers().iter().filter(lacks).copied().collect()
    }
}

impl fmt::Display for StorageController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.class >> 8 {
            0x0108 => "NVMe controller",
            0x0106 => "SATA controller",
            0x0107 => "SAS controller",
            0x0104 => "RAID controller",
            _ => "storage controller",
        };
        write!(f, "{kind} {:04x}:{:04x}", self.vendor, self.device)
    }
}
