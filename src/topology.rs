//! The guest's PCI tree: each lent function at its place, behind the ports that it has on the host. Pure.

use std::collections::BTreeMap;

use pellucid_chipset::{BusNumbers, Link, PortIdentity, RootPortSpec, Windows};
use pellucid_partition::{Bdf, Gsi};
use pellucid_passthrough::{Function, Inventory};

use crate::error::TopologyError;
use crate::offer::Offer;

/// Ports of a guest's PCI tree, and the check that every function has a place in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Topology {
    ports: BTreeMap<Bdf, RootPortSpec>,
    places: Vec<Bdf>,
}

impl Topology {
    /// The tree for `offers`: the host's own ports where a device keeps its address, new ones elsewhere.
    pub(crate) fn of(offers: &[Offer], host: &Inventory) -> Result<Self, TopologyError> {
        let mut topology = Self::default();
        for offer in offers {
            let at_home = |bdf: &Bdf| offer.spec().wanted() == Some(*bdf);
            if let (Some(own), Some(admitted)) = (offer.spec().host().filter(at_home), offer.admitted()) {
                for port in &admitted.function().upstream {
                    topology.mirror(own, *port, host)?;
                }
            }
        }
        let mut places: Vec<Bdf> = offers.iter().filter_map(|offer| offer.spec().wanted()).collect();
        for (index, device) in places.iter().enumerate() {
            topology.admit(*device, &places[..index], &places)?;
        }
        // What may be anywhere comes last, so that it stands in nobody's way.
        for offer in offers {
            let place = match offer.spec().wanted() {
                Some(wanted) => wanted,
                None => topology.first_free(&places).ok_or_else(|| TopologyError::Full {
                    device: offer.spec().from.to_string(),
                })?,
            };
            places.push(place);
            topology.places.push(place);
        }
        Ok(topology)
    }

    /// Where each offered device is in the guest, in their order.
    pub(crate) fn places(&self) -> &[Bdf] {
        &self.places
    }

    /// The ports, those nearer to the root first.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (Bdf, &RootPortSpec)> {
        self.ports.iter().map(|(bdf, port)| (*bdf, port))
    }

    /// The port right above `bus`; `None` for the root bus.
    pub(crate) fn port_above(&self, bus: u8) -> Option<Bdf> {
        self.ports
            .iter()
            .find(|(_, port)| port.buses.secondary == bus)
            .map(|(bdf, _)| *bdf)
    }

    /// Whether `port` is somewhere above `other`.
    pub(crate) fn leads_to(&self, port: Bdf, other: Bdf) -> bool {
        let above = |bdf: &Bdf| self.port_above(bdf.bus()).filter(|above| above.bus() < bdf.bus());
        std::iter::successors(above(&other), above).any(|above| above == port)
    }

    /// The interrupt of a function's INTx pin, swizzled at every port on the way to the root bus; `route` knows the root bus.
    pub(crate) fn root_pin(&self, function: Bdf, pin: u8, route: fn(u8, u8) -> Gsi) -> Gsi {
        let (mut at, mut pin) = (function, pin);
        while let Some(above) = self.port_above(at.bus()).filter(|above| above.bus() < at.bus()) {
            pin = (pin + at.device()) % 4;
            at = above;
        }
        route(at.device(), pin)
    }

    /// Adds the host's port at `bdf` as it is there.
    fn mirror(&mut self, device: Bdf, bdf: Bdf, host: &Inventory) -> Result<(), TopologyError> {
        if bdf.domain() != 0 {
            return Err(TopologyError::Domain { device });
        }
        let Some((function, bridge)) = host.function(bdf).and_then(|f| Some((f, f.bridge?))) else {
            return Ok(());
        };
        let (primary, secondary, subordinate) = (bdf.bus(), bridge.secondary, bridge.subordinate);
        let slot = slot_behind(host, secondary);
        let buses = BusNumbers {
            primary,
            secondary,
            subordinate,
        };
        self.ports.insert(bdf, port(identity(function), buses, slot));
        Ok(())
    }

    /// Sees that `device` has a place that nobody else has, and a port that leads there.
    fn admit(&mut self, device: Bdf, before: &[Bdf], all: &[Bdf]) -> Result<(), TopologyError> {
        if device.domain() != 0 {
            return Err(TopologyError::Domain { device });
        }
        let by = match device {
            HOST_BRIDGE => Some("the host bridge"),
            LPC => Some("the LPC bridge"),
            other if before.contains(&other) => Some("another device"),
            other if self.ports.contains_key(&other) => Some("a root port"),
            _ => None,
        };
        if let Some(by) = by {
            return Err(TopologyError::Taken {
                device,
                by: by.to_owned(),
                free: self.free_text(all),
            });
        }
        let first = Bdf::of_devfn(0, device.bus(), device.devfn() & !7);
        if device != first && !all.contains(&first) && !self.ports.contains_key(&first) {
            return Err(TopologyError::Function { device });
        }
        if device.bus() == 0 || self.port_above(device.bus()).is_some() {
            return Ok(());
        }
        let place = self.free(all).next().ok_or(TopologyError::NoPort { device })?;
        let buses = BusNumbers {
            primary: 0,
            secondary: device.bus(),
            subordinate: device.bus(),
        };
        self.ports
            .insert(Bdf::of_devfn(0, 0, place << 3), port(PLAIN_PORT, buses, None));
        Ok(())
    }

    /// Device numbers of the root bus that nothing has.
    fn free<'t>(&'t self, wanted: &'t [Bdf]) -> impl Iterator<Item = u8> + 't {
        let taken = |number: u8| {
            let here = |bdf: &Bdf| bdf.bus() == 0 && bdf.device() == number;
            self.ports.keys().any(here) || wanted.iter().any(here)
        };
        (1..0x1f).filter(move |number| !taken(*number))
    }

    fn first_free(&self, wanted: &[Bdf]) -> Option<Bdf> {
        self.free(wanted)
            .next()
            .map(|number| Bdf::of_devfn(0, 0, number << 3))
    }

    fn free_text(&self, wanted: &[Bdf]) -> String {
        let free: Vec<_> = self.free(wanted).map(|number| format!("{number:02x}")).collect();
        free.join(" ")
    }
}

fn port(identity: PortIdentity, buses: BusNumbers, slot: Option<u16>) -> RootPortSpec {
    RootPortSpec {
        identity,
        buses,
        windows: Windows::default(),
        link: WIDE,
        slot,
        number: buses.secondary,
    }
}

fn identity(function: &Function) -> PortIdentity {
    let ids = function.ids;
    let [vendor, device] = ids.subsystem;
    let subsystem = (vendor != 0).then_some((vendor, device));
    PortIdentity {
        vendor: ids.vendor,
        device: ids.device,
        revision: ids.revision,
        subsystem,
    }
}

/// The number of the slot that the functions of a bus are in, if it is one.
fn slot_behind(host: &Inventory, bus: u8) -> Option<u16> {
    let behind = host
        .functions
        .values()
        .find(|f| f.bdf.domain() == 0 && f.bdf.bus() == bus)?;
    behind
        .slot
        .as_ref()?
        .parse()
        .ok()
        .filter(|slot| (1..0x2000).contains(slot))
}

const HOST_BRIDGE: Bdf = Bdf::of_devfn(0, 0, 0);
const LPC: Bdf = Bdf::of_devfn(0, 0, 0x1f << 3);
/// Wider than any device behind it, so that no driver believes itself throttled by a port that does not carry its traffic.
const WIDE: Link = Link { speed: 6, width: 32 };
/// A port that no host port stands for: the identity of QEMU's generic one, which every kernel takes without quirks.
const PLAIN_PORT: PortIdentity = PortIdentity {
    vendor: 0x1b36,
    device: 0x000c,
    revision: 0,
    subsystem: None,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{DeviceSource, DeviceSpec};
    use std::path::{Path, PathBuf};

    /// A host of files: a port at 00:02.0 with an NVMe controller behind it in slot 7, and a NIC on the root bus.
    fn host(root: &Path) -> Inventory {
        let devices = root.join("sys/bus/pci/devices");
        let real = root.join("sys/devices/pci0000:00");
        let add = |path: &str, vendor: &str, class: &str, config: &[u8]| {
            let place = real.join(path);
            std::fs::create_dir_all(&place).unwrap();
            let files = [
                ("vendor", vendor),
                ("device", "0x0010"),
                ("class", class),
                ("revision", "0x01"),
            ];
            for (name, text) in files {
                std::fs::write(place.join(name), text).unwrap();
            }
            std::fs::write(place.join("config"), config).unwrap();
            std::fs::create_dir_all(&devices).unwrap();
            let name = Path::new(path).file_name().unwrap();
            std::os::unix::fs::symlink(&place, devices.join(name)).unwrap();
            let group = root.join("sys/kernel/iommu_groups").join(name).join("devices");
            std::fs::create_dir_all(&group).unwrap();
            std::os::unix::fs::symlink(&place, group.join(name)).unwrap();
            let number = root.join("sys/kernel/iommu_groups").join(name.len().to_string());
            std::fs::create_dir_all(number.join("devices")).unwrap();
            std::os::unix::fs::symlink(number, place.join("iommu_group")).unwrap();
        };
        let mut bridge = [0; 64];
        (bridge[0x0e], bridge[0x19], bridge[0x1a]) = (1, 5, 6);
        add("0000:00:02.0", "0x1b36", "0x060400", &bridge);
        add("0000:00:02.0/0000:05:00.0", "0x1b36", "0x010802", &[0; 64]);
        add("0000:00:19.0", "0x8086", "0x020000", &[0; 64]);
        let slot = root.join("sys/bus/pci/slots/7");
        std::fs::create_dir_all(&slot).unwrap();
        std::fs::write(slot.join("address"), "0000:05:00\n").unwrap();
        std::fs::create_dir_all(root.join("sys/bus/pci/drivers/vfio-pci")).unwrap();
        std::fs::create_dir_all(root.join("dev/vfio")).unwrap();
        std::fs::write(root.join("dev/vfio/vfio"), "").unwrap();
        Inventory::survey_at(root).unwrap()
    }

    fn fit(devices: &[(&str, Option<&str>)]) -> Result<Topology, TopologyError> {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        let offer = |(from, at): &(&str, Option<&str>)| {
            let from = match from.strip_prefix("unix:") {
                Some(name) => DeviceSource::Served(socket(root.path(), name)),
                None => DeviceSource::Host(from.parse().unwrap()),
            };
            let at = at.map(|at| at.parse().unwrap());
            Offer::of(&DeviceSpec { from, at }, &host).unwrap()
        };
        Topology::of(&devices.iter().map(offer).collect::<Vec<_>>(), &host)
    }

    fn socket(folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        // The file stays when nobody listens any more.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        path
    }

    #[test]
    fn a_served_device_is_where_it_is_wanted_or_at_the_first_free_address() {
        let places = |devices: &[(&str, Option<&str>)]| {
            let tree = fit(devices).unwrap();
            tree.places().iter().map(Bdf::to_string).collect::<Vec<_>>()
        };
        let served = [
            ("unix:a", None),
            ("unix:b", Some("03:00.0")),
            ("unix:c", None),
            ("05:00.0", None),
        ];
        assert_eq!(
            places(&served),
            ["0000:00:03.0", "0000:03:00.0", "0000:00:04.0", "0000:05:00.0"],
            "00:01.0 is the new port to bus 3, 00:02.0 that of the host"
        );
        assert_eq!(
            places(&[("unix:a", None), ("00:19.0", Some("00:01.0"))]),
            ["0000:00:02.0", "0000:00:01.0"]
        );
        let taken = fit(&[("unix:a", Some("00:1f.0"))]).unwrap_err();
        assert!(matches!(taken, TopologyError::Taken { .. }));
    }

    #[test]
    fn a_device_at_home_has_the_port_that_it_has_on_the_host() {
        let tree = fit(&[("05:00.0", None)]).unwrap();
        let (bdf, port) = tree.ports().next().unwrap();
        assert_eq!(bdf.to_string(), "0000:00:02.0");
        assert_eq!((port.buses.secondary, port.buses.subordinate), (5, 6));
        assert_eq!((port.identity.vendor, port.slot), (0x1b36, Some(7)));
    }

    #[test]
    fn a_device_that_moves_gets_a_port_that_leads_there() {
        let tree = fit(&[("05:00.0", Some("03:00.0"))]).unwrap();
        let port = tree.port_above(3).unwrap();
        assert_eq!(port.bus(), 0);
        assert_eq!(
            tree.root_pin("03:00.0".parse().unwrap(), 0, |device, pin| Gsi(u32::from(
                device * 4 + pin
            )))
            .0,
            4
        );
    }

    #[test]
    fn an_address_that_is_taken_is_refused_with_the_free_ones() {
        for at in ["00:00.0", "00:1f.0"] {
            let refusal = fit(&[("00:19.0", Some(at))]).unwrap_err().to_string();
            assert!(
                refusal.contains("bridge") && refusal.contains("01 02 03"),
                "{refusal}"
            );
        }
        let refusal = fit(&[("05:00.0", None), ("00:19.0", Some("00:02.0"))]).unwrap_err();
        assert!(matches!(refusal, TopologyError::Taken { by, .. } if by == "a root port"));
        let twice = fit(&[("05:00.0", Some("00:04.0")), ("00:19.0", Some("00:04.0"))]).unwrap_err();
        assert!(matches!(twice, TopologyError::Taken { by, .. } if by == "another device"));
    }

    #[test]
    fn what_no_operating_system_would_find_is_refused() {
        assert!(matches!(
            fit(&[("00:19.0", Some("00:04.1"))]),
            Err(TopologyError::Function { .. })
        ));
        assert!(matches!(
            fit(&[("00:19.0", Some("0001:00:04.0"))]),
            Err(TopologyError::Domain { .. })
        ));
    }
}
