//! Network interfaces, with everything that systemd names them by.

use std::collections::BTreeMap;

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

use crate::files::Files;

/// A network interface that has a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Nic {
    /// Its hardware address as the kernel writes it; empty: none.
    pub mac: String,
    /// Where that address came from: 0 is the device itself (`NET_ADDR_PERM`).
    pub mac_origin: Option<u32>,
    /// Where its present name came from: 1 enumeration, 2 the kernel for good, 3 and 4 user space (`NET_NAME_*`).
    pub name_origin: Option<u32>,
    /// Its hardware type: 1 Ethernet, 32 InfiniBand (`ARPHRD_*`).
    pub kind: u32,
    /// `wlan`, `wwan` and so on.
    pub devtype: Option<String>,
    /// The name of its port on the card.
    pub port_name: Option<String>,
    /// The number of its port on a function with several.
    pub dev_port: u32,
    /// The same for older InfiniBand drivers.
    pub dev_id: u32,
    /// Its driver.
    pub driver: Option<String>,
    /// Its PCI function, if it is directly on one or through virtio.
    pub pci: Option<Bdf>,
    /// Whether it is built on another interface, as a VLAN is.
    pub stacked: bool,
}

pub(crate) fn read(files: &Files<'_>) -> BTreeMap<String, Nic> {
    let names = files.names("sys/class/net").into_iter();
    let real = names.filter(|name| files.exists(&format!("sys/class/net/{name}/device")));
    real.take(MOST_NICS)
        .map(|name| (name.clone(), Nic::read(files, &name)))
        .collect()
}

impl Nic {
    fn read(files: &Files<'_>, name: &str) -> Nic {
        let folder = format!("sys/class/net/{name}");
        let text = |field: &str| files.text(&format!("{folder}/{field}"));
        let number = |field: &str| files.number::<u32>(&format!("{folder}/{field}"));
        let hexadecimal = |text: String| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let uevent = text("uevent").unwrap_or_default();
        let devtype = uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
        Nic {
            mac: text("address").unwrap_or_default(),
            mac_origin: number("addr_assign_type"),
            name_origin: number("name_assign_type"),
            kind: number("type").unwrap_or(0),
            devtype: devtype.map(str::to_owned),
            port_name: text("phys_port_name"),
            dev_port: number("dev_port").unwrap_or(0),
            dev_id: text("dev_id").and_then(hexadecimal).unwrap_or(0),
            driver: files.link(&format!("{folder}/device/driver")),
            pci: files.function_of(&format!("{folder}/device")),
            stacked: number("ifindex") != number("iflink"),
        }
    }
}

pub(crate) const MOST_NICS: usize = 4096;
