//! PCI trees of kinds of machines that exist, made of files: ids, classes, drivers and IOMMU groups as such machines have them. Written down by
//! hand and shortened to what decides who can be lent; none is a capture.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part; a tree that cannot be written ends it"
)]

use pellucid_partition::Bdf;
use pellucid_passthrough::{Inventory, Wanted};

use crate::fixture::Host;

/// One function: its place below `sys/devices`, maker and device as one number, class, driver, IOMMU group.
#[derive(Clone, Copy)]
pub(crate) struct Part(
    pub(crate) &'static str,
    pub(crate) u32,
    pub(crate) u32,
    pub(crate) Option<&'static str>,
    pub(crate) Option<u32>,
);

impl Part {
    pub(crate) fn bdf(&self) -> &'static str {
        self.0.rsplit('/').next().unwrap()
    }

    /// Its directory below the root.
    pub(crate) fn place(&self) -> String {
        format!("sys/devices/{}", self.0)
    }

    pub(crate) fn add(&self, host: &Host) {
        let (place, Part(_, ids, class, driver, group)) = (self.place(), self);
        let secondary = matches!(class >> 8, 0x0604).then_some("1\n");
        for (name, text) in [
            ("vendor", format!("{:#06x}\n", ids >> 16)),
            ("device", format!("{:#06x}\n", ids & 0xffff)),
            ("class", format!("{class:#08x}\n")),
            ("driver_override", "(null)\n".to_owned()),
            ("resource", String::new()),
        ] {
            host.write(&format!("{place}/{name}"), &text);
        }
        for name in ["secondary_bus_number", "subordinate_bus_number"] {
            if let Some(number) = secondary {
                host.write(&format!("{place}/{name}"), number);
            }
        }
        if let Some(driver) = driver {
            self.bind(host, driver);
        }
        let absolute = host.root().join(&place);
        if let Some(group) = group {
            let group = format!("sys/kernel/iommu_groups/{group}");
            host.link(&format!("{group}/devices/{}", self.bdf()), &absolute);
            host.link(&format!("{place}/iommu_group"), &host.root().join(group));
        }
        host.link(&format!("sys/bus/pci/devices/{}", self.bdf()), &absolute);
    }

    /// Another driver than the one it had.
    pub(crate) fn bind(&self, host: &Host, driver: &str) {
        host.driver(driver);
        let link = format!("{}/driver", self.place());
        let _ = std::fs::remove_file(host.root().join(&link));
        host.link(&link, &host.root().join("sys/bus/pci/drivers").join(driver));
    }
}

pub(crate) fn machine(parts: &[Part]) -> Host {
    let host = Host::new();
    parts.iter().for_each(|part| part.add(&host));
    host
}

pub(crate) fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

pub(crate) fn find(parts: &[Part], address: &str) -> Part {
    *parts.iter().find(|part| part.bdf() == address).unwrap()
}

pub(crate) fn words<T: ToString>(list: &[T]) -> String {
    let words: Vec<String> = list.iter().map(ToString::to_string).collect();
    words.join(", ")
}

pub(crate) fn wanted(devices: &[&str]) -> Vec<Wanted> {
    devices.iter().map(|device| Wanted::new(bdf(device))).collect()
}

pub(crate) fn refusals(inventory: &Inventory, devices: &[&str]) -> Vec<String> {
    let refused = inventory.admit_together(&wanted(devices)).unwrap_err();
    refused.refusals.iter().map(ToString::to_string).collect()
}

/// A network interface of a function.
pub(crate) fn interface(host: &Host, part: &Part, name: &str) {
    let place = format!("{}/net/{name}", part.place());
    host.write(&format!("{place}/operstate"), "up\n");
    host.link(&format!("sys/class/net/{name}"), &host.root().join(place));
}

/// An interface of no function.
pub(crate) fn virtual_interface(host: &Host, name: &str) {
    let place = format!("sys/devices/virtual/net/{name}");
    host.write(&format!("{place}/operstate"), "up\n");
    host.link(&format!("sys/class/net/{name}"), &host.root().join(place));
}

pub(crate) fn default_route(host: &Host, interface: &str) {
    let routes = format!(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
         {interface}\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
         {interface}\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
    );
    host.write("proc/net/route", &routes);
}

const PORT: u32 = 0x06_0400;
const HOST: u32 = 0x06_0000;
const ISA: u32 = 0x06_0100;
const NVME: u32 = 0x01_0802;
const SATA: u32 = 0x01_0601;
const NIC: u32 = 0x02_0000;
const VGA: u32 = 0x03_0000;
const AUDIO: u32 = 0x04_0300;
const XHCI: u32 = 0x0c_0330;
const SMBUS: u32 = 0x0c_0500;

/// A Ryzen 1000 on a B350 board: everything behind the chipset is one group, and the graphics card has one with its bridges.
pub(crate) const DESKTOP: &[Part] = &[
    Part("pci0000:00/0000:00:00.0", 0x1022_1450, HOST, None, Some(0)),
    Part("pci0000:00/0000:00:01.0", 0x1022_1452, HOST, None, Some(1)),
    Part(
        "pci0000:00/0000:00:01.3",
        0x1022_1453,
        PORT,
        Some("pcieport"),
        Some(1),
    ),
    Part(
        "pci0000:00/0000:00:01.3/0000:03:00.0",
        0x1022_43bb,
        XHCI,
        Some("xhci_hcd"),
        Some(1),
    ),
    Part(
        "pci0000:00/0000:00:01.3/0000:03:00.1",
        0x1022_43b7,
        SATA,
        Some("ahci"),
        Some(1),
    ),
    Part(
        "pci0000:00/0000:00:01.3/0000:03:00.2",
        0x1022_43b2,
        PORT,
        Some("pcieport"),
        Some(1),
    ),
    Part(
        "pci0000:00/0000:00:01.3/0000:03:00.2/0000:1d:00.0",
        0x1022_43b4,
        PORT,
        Some("pcieport"),
        Some(1),
    ),
    Part(
        "pci0000:00/0000:00:01.3/0000:03:00.2/0000:1d:00.0/0000:22:00.0",
        0x10ec_8168,
        NIC,
        Some("r8169"),
        Some(1),
    ),
    Part("pci0000:00/0000:00:03.0", 0x1022_1452, HOST, None, Some(2)),
    Part(
        "pci0000:00/0000:00:03.1",
        0x1022_1453,
        PORT,
        Some("pcieport"),
        Some(2),
    ),
    Part(
        "pci0000:00/0000:00:03.1/0000:28:00.0",
        0x10de_1b81,
        VGA,
        Some("nouveau"),
        Some(2),
    ),
    Part(
        "pci0000:00/0000:00:03.1/0000:28:00.1",
        0x10de_10f0,
        AUDIO,
        Some("snd_hda_intel"),
        Some(2),
    ),
    Part("pci0000:00/0000:00:07.0", 0x1022_1452, HOST, None, Some(3)),
    Part(
        "pci0000:00/0000:00:07.1",
        0x1022_1454,
        PORT,
        Some("pcieport"),
        Some(3),
    ),
    Part(
        "pci0000:00/0000:00:07.1/0000:30:00.0",
        0x1022_145a,
        0x13_0000,
        None,
        Some(3),
    ),
    Part(
        "pci0000:00/0000:00:07.1/0000:30:00.2",
        0x1022_1456,
        0x10_8000,
        Some("ccp"),
        Some(3),
    ),
    Part(
        "pci0000:00/0000:00:07.1/0000:30:00.3",
        0x1022_145c,
        XHCI,
        Some("xhci_hcd"),
        Some(3),
    ),
];

/// A Xeon server with access control on every port: each function is a group.
pub(crate) const SERVER: &[Part] = &[
    Part("pci0000:00/0000:00:00.0", 0x8086_2020, HOST, None, Some(0)),
    Part("pci0000:00/0000:00:1f.0", 0x8086_a1c1, ISA, None, Some(7)),
    Part("pci0000:00/0000:00:1f.2", 0x8086_a1a1, 0x05_8000, None, Some(7)),
    Part(
        "pci0000:00/0000:00:1f.4",
        0x8086_a1a3,
        SMBUS,
        Some("i801_smbus"),
        Some(7),
    ),
    Part(
        "pci0000:3a/0000:3a:00.0",
        0x8086_2030,
        PORT,
        Some("pcieport"),
        Some(30),
    ),
    Part(
        "pci0000:3a/0000:3a:00.0/0000:3b:00.0",
        0x15b3_1017,
        NIC,
        Some("mlx5_core"),
        Some(31),
    ),
    Part(
        "pci0000:3a/0000:3a:00.0/0000:3b:00.1",
        0x15b3_1017,
        NIC,
        Some("mlx5_core"),
        Some(32),
    ),
    Part(
        "pci0000:5d/0000:5d:00.0",
        0x8086_2030,
        PORT,
        Some("pcieport"),
        Some(40),
    ),
    Part(
        "pci0000:5d/0000:5d:00.0/0000:5e:00.0",
        0x144d_a824,
        NVME,
        Some("nvme"),
        Some(41),
    ),
];

/// A GeForce RTX 2080 in a workstation: graphics, audio and the two functions of its USB-C connector are one group.
pub(crate) const WORKSTATION: &[Part] = &[
    Part(
        "pci0000:16/0000:16:00.0",
        0x8086_2030,
        PORT,
        Some("pcieport"),
        Some(20),
    ),
    Part(
        "pci0000:16/0000:16:00.0/0000:17:00.0",
        0x10de_1e87,
        VGA,
        Some("nouveau"),
        Some(21),
    ),
    Part(
        "pci0000:16/0000:16:00.0/0000:17:00.1",
        0x10de_10f8,
        AUDIO,
        Some("snd_hda_intel"),
        Some(21),
    ),
    Part(
        "pci0000:16/0000:16:00.0/0000:17:00.2",
        0x10de_1ad8,
        XHCI,
        Some("xhci_hcd"),
        Some(21),
    ),
    Part(
        "pci0000:16/0000:16:00.0/0000:17:00.3",
        0x10de_1ad9,
        0x0c_8000,
        Some("nvidia-gpu"),
        Some(21),
    ),
];

/// A BCM5720 on a server's board: two ports that the IOMMU cannot tell apart.
pub(crate) const DUAL_PORT: &[Part] = &[
    Part(
        "pci0000:00/0000:00:1c.0",
        0x8086_a190,
        PORT,
        Some("pcieport"),
        Some(12),
    ),
    Part(
        "pci0000:00/0000:00:1c.0/0000:04:00.0",
        0x14e4_165f,
        NIC,
        Some("tg3"),
        Some(13),
    ),
    Part(
        "pci0000:00/0000:00:1c.0/0000:04:00.1",
        0x14e4_165f,
        NIC,
        Some("tg3"),
        Some(13),
    ),
];

/// An I350 with two virtual functions, one of which a driver of the host has.
pub(crate) const VIRTUAL: &[Part] = &[
    Part(
        "pci0000:00/0000:00:02.2",
        0x8086_6f06,
        PORT,
        Some("pcieport"),
        Some(25),
    ),
    Part(
        "pci0000:00/0000:00:02.2/0000:06:00.0",
        0x8086_1521,
        NIC,
        Some("igb"),
        Some(26),
    ),
    Part(
        "pci0000:00/0000:00:02.2/0000:07:10.0",
        0x8086_1520,
        NIC,
        Some("igbvf"),
        Some(70),
    ),
    Part(
        "pci0000:00/0000:00:02.2/0000:07:10.4",
        0x8086_1520,
        NIC,
        None,
        Some(71),
    ),
];

/// An Alpine Ridge Thunderbolt controller with a card in an external box: the ports behind it are hotplug slots.
pub(crate) const THUNDERBOLT: &[Part] = &[
    Part(
        "pci0000:00/0000:00:1c.0",
        0x8086_9d10,
        PORT,
        Some("pcieport"),
        Some(8),
    ),
    Part(
        "pci0000:00/0000:00:1c.0/0000:05:00.0",
        0x8086_1576,
        PORT,
        Some("pcieport"),
        Some(9),
    ),
    Part(
        "pci0000:00/0000:00:1c.0/0000:05:00.0/0000:06:00.0",
        0x8086_1576,
        PORT,
        Some("pcieport"),
        Some(10),
    ),
    Part(
        "pci0000:00/0000:00:1c.0/0000:05:00.0/0000:06:00.0/0000:07:00.0",
        0x8086_1575,
        0x08_8000,
        Some("thunderbolt"),
        Some(10),
    ),
    Part(
        "pci0000:00/0000:00:1c.0/0000:05:00.0/0000:06:01.0",
        0x8086_1576,
        PORT,
        Some("pcieport"),
        Some(11),
    ),
    Part(
        "pci0000:00/0000:00:1c.0/0000:05:00.0/0000:06:01.0/0000:08:00.0",
        0x1002_67df,
        VGA,
        Some("amdgpu"),
        Some(11),
    ),
    Part(
        "pci0000:00/0000:00:1c.0/0000:05:00.0/0000:06:01.0/0000:08:00.1",
        0x1002_aaf0,
        AUDIO,
        Some("snd_hda_intel"),
        Some(11),
    ),
];

/// A machine of several PCI segments.
pub(crate) const SEGMENTS: &[Part] = &[
    Part("pci0000:00/0000:00:1f.0", 0x8086_a1c1, ISA, None, Some(1)),
    Part(
        "pci0001:3a/0001:3a:00.0",
        0x8086_2030,
        PORT,
        Some("pcieport"),
        Some(50),
    ),
    Part(
        "pci0001:3a/0001:3a:00.0/0001:3b:00.0",
        0x15b3_1017,
        NIC,
        Some("mlx5_core"),
        Some(51),
    ),
];

/// A Tiger Lake laptop with its disk behind the volume management device, whose group they are in.
pub(crate) const VMD: &[Part] = &[
    Part("pci0000:00/0000:00:02.0", 0x8086_9a49, VGA, Some("i915"), Some(1)),
    Part(
        "pci0000:00/0000:00:0e.0",
        0x8086_9a0b,
        0x01_0400,
        Some("vmd"),
        Some(6),
    ),
    Part(
        "pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0",
        0x8086_9a09,
        PORT,
        Some("pcieport"),
        Some(6),
    ),
    Part(
        "pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0",
        0x144d_a80a,
        NVME,
        Some("nvme"),
        Some(6),
    ),
];

/// The emulated server's own LPC bridge, SATA controller and SMBus controller (ICH9).
pub(crate) const ICH9: &[Part] = &[
    Part(
        "pci0000:00/0000:00:1f.0",
        0x8086_2918,
        ISA,
        Some("lpc_ich"),
        Some(10),
    ),
    Part(
        "pci0000:00/0000:00:1f.2",
        0x8086_2922,
        SATA,
        Some("ahci"),
        Some(10),
    ),
    Part(
        "pci0000:00/0000:00:1f.3",
        0x8086_2930,
        SMBUS,
        Some("i801_smbus"),
        Some(10),
    ),
];
