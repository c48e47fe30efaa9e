//! Disks, with what `/dev/disk/by-id` and licences name them by.

use std::collections::BTreeMap;

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

use crate::files::Files;

/// A disk that has a device: an NVMe namespace, a SCSI or SATA disk, a virtio disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Disk {
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World-wide name: EUI-64, NGUID, NAA.
    pub wwid: Option<String>,
    /// Revision of its firmware.
    pub firmware: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Bytes of a logical block.
    pub block: u32,
    /// The PCI function that it is behind.
    pub pci: Option<Bdf>,
}

pub(crate) fn read(files: &Files<'_>) -> BTreeMap<String, Disk> {
    let names = files.names("sys/block").into_iter();
    let real = names.filter(|name| files.exists(&format!("sys/block/{name}/device")));
    real.take(MOST_DISKS)
        .map(|name| (name.clone(), Disk::read(files, &name)))
        .collect()
}

impl Disk {
    fn read(files: &Files<'_>, name: &str) -> Disk {
        let folder = format!("sys/block/{name}");
        let first = |fields: &[&str]| {
            fields
                .iter()
                .find_map(|field| files.text(&format!("{folder}/{field}")))
        };
        let sectors: u64 = files.number(&format!("{folder}/size")).unwrap_or(0);
        Disk {
            model: first(&["device/model"]),
            serial: first(&["device/serial", "serial"]).or_else(|| scsi_serial(files, &folder)),
            wwid: first(&["wwid", "device/wwid"]),
            firmware: first(&["device/firmware_rev", "device/rev"]),
            size: sectors.saturating_mul(512),
            block: files
                .number(&format!("{folder}/queue/logical_block_size"))
                .unwrap_or(0),
            pci: files.function_above(&format!("{folder}/device")),
        }
    }
}

/// The unit serial number page (SPC-5, 7.7.15): four bytes of header, then the text.
fn scsi_serial(files: &Files<'_>, folder: &str) -> Option<String> {
    let page = files.bytes(&format!("{folder}/device/vpd_pg80"), 4096)?;
    let text = String::from_utf8_lossy(page.get(4..)?)
        .trim_matches(['\0', ' '])
        .to_owned();
    (!text.is_empty()).then_some(text)
}

pub(crate) const MOST_DISKS: usize = 4096;
