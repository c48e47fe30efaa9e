//! The guest's PCI tree: each lent function at its place, behind the ports that it has on the host. Pure.

mod home;
mod port;
mod roots;

use std::collections::{BTreeMap, BTreeSet};

use pellucid_chipset::{Board, BusNumbers, PortKind, RootPortSpec};
use pellucid_partition::{Bdf, Gsi};
use pellucid_passthrough::{Admitted, Inventory};

use crate::error::TopologyError;
use crate::identity::CheckWarning;
use crate::machine::Machine;
use crate::offer::Offer;
use crate::spec::DeviceSource;
use home::{Home, HomePort};
use port::{PLAIN_PORT, kind, port};
pub(crate) use roots::RootBuses;

/// Ports of a guest's PCI tree, and the check that every function has a place in it.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    ports: BTreeMap<Bdf, RootPortSpec>,
    /// Root buses besides 00.
    roots: BTreeSet<u8>,
    /// Host ports of other root buses than firmware knows, which have places of their own in the guest.
    moved: Vec<CheckWarning>,
    places: Vec<Bdf>,
    /// Functions 0 that are not lent, of slots that others are lent of.
    stand_ins: BTreeSet<Bdf>,
}

impl Topology {
    /// The tree for `offers`: where a device keeps its address, the ports of the host, or of the machine that it is to be; new ones elsewhere.
    pub(crate) fn of(
        offers: &[Offer],
        host: &Inventory,
        machine: Option<&Machine>,
        roots: RootBuses,
    ) -> Result<Self, TopologyError> {
        let (mut topology, mut at_home) = (Self::default(), Vec::new());
        for offer in offers {
            if let Some(home) = Home::of(offer.spec(), host, machine)? {
                for (depth, port) in home.ports.iter().enumerate() {
                    topology.mirror(home.at, port, depth)?;
                }
                at_home.extend(home.ports.is_empty().then_some(home.at));
            }
        }
        let mut places: Vec<Bdf> = offers.iter().filter_map(|offer| offer.spec().wanted()).collect();
        match roots {
            RootBuses::Own => topology.take_roots(&at_home, &places)?,
            RootBuses::First => topology.gather_on_root_bus(&places)?,
        }
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
        if machine.is_some() {
            home::apart(&topology.ports)?;
        }
        topology.stand_in(&places);
        for (offer, place) in offers.iter().zip(topology.places.clone()) {
            if offer.spec().hot_plug {
                topology.hot_plug(&offer.spec().from, place)?;
                topology.holds_whole_groups(offers, place)?;
            }
        }
        Ok(topology)
    }

    /// Refuses a slot whose functions could not go back to the host without others: those of their IOMMU groups.
    fn holds_whole_groups(&self, offers: &[Offer], place: Bdf) -> Result<(), TopologyError> {
        let inside = || {
            let placed = offers.iter().zip(&self.places);
            placed
                .filter(|(_, at)| at.bus() == place.bus())
                .map(|(offer, _)| offer)
        };
        let hosts: Vec<Bdf> = inside().filter_map(|offer| offer.spec().host()).collect();
        let others = |offer: &&Offer| {
            let companions = offer.admitted().map(Admitted::companions).unwrap_or_default();
            companions.iter().any(|companion| !hosts.contains(companion))
        };
        match inside().find(others) {
            None => Ok(()),
            Some(offer) => Err(TopologyError::HotPlug {
                device: offer.spec().from.to_string(),
                why: "its IOMMU group, which comes and goes as a whole, has functions outside of its slot; place them in one slot or leave hotplug out",
            }),
        }
    }

    /// Makes what is behind the port above `place` a hot-plug slot.
    fn hot_plug(&mut self, from: &DeviceSource, place: Bdf) -> Result<(), TopologyError> {
        let refuse = |why| {
            let device = from.to_string();
            Err(TopologyError::HotPlug { device, why })
        };
        if matches!(from, DeviceSource::Virtual(_)) {
            return refuse("a virtual function comes and goes with its card; leave hotplug out");
        }
        let taken: BTreeSet<u16> = self.ports.values().filter_map(|port| port.slot).collect();
        let above = self
            .port_above(place.bus())
            .filter(|_| !self.is_root(place.bus()));
        let Some(port) = above.and_then(|above| self.ports.get_mut(&above)) else {
            return refuse("there is no port above its root bus; place it on another bus with at=BDF");
        };
        if port.kind == PortKind::Upstream {
            return refuse("it is inside of a switch; place it on another bus with at=BDF");
        }
        // A slot must have a number, also where the host has none for it.
        let own = u16::from(port.buses.secondary);
        let free = std::iter::once(own).chain(1..0x2000);
        port.slot = port
            .slot
            .or_else(|| free.into_iter().find(|number| !taken.contains(number)));
        port.hot_plug = true;
        Ok(())
    }

    /// Where each offered device is in the guest, in their order.
    pub(crate) fn places(&self) -> &[Bdf] {
        &self.places
    }

    /// The places of functions 0 that only stand there for their siblings to be found.
    pub(crate) fn stand_ins(&self) -> impl Iterator<Item = Bdf> {
        self.stand_ins.iter().copied()
    }

    /// What is elsewhere than on the host although it was not asked for.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = &CheckWarning> {
        self.moved.iter()
    }

    /// The ports before `bus`, outermost first.
    pub(crate) fn path(&self, bus: u8) -> Vec<Bdf> {
        let above = |bdf: &Bdf| self.port_above(bdf.bus()).filter(|above| above.bus() < bdf.bus());
        let mut path: Vec<Bdf> = std::iter::successors(self.port_above(bus), above).collect();
        path.reverse();
        path
    }

    /// The ports, those nearer to the root first.
    pub(crate) fn ports(&self) -> impl Iterator<Item = (Bdf, &RootPortSpec)> {
        self.ports.iter().map(|(bdf, port)| (*bdf, port))
    }

    /// The port right above `bus`; `None` for a root bus.
    pub(crate) fn port_above(&self, bus: u8) -> Option<Bdf> {
        self.ports
            .iter()
            .find(|(_, port)| port.buses.secondary == bus)
            .map(|(bdf, _)| *bdf)
    }

    /// The interrupt of a function's INTx pin, swizzled at every port on the way to the root bus; `route` knows root buses.
    pub(crate) fn root_pin(&self, function: Bdf, pin: u8, route: fn(u8, u8) -> Gsi) -> Gsi {
        let (mut at, mut pin) = (function, pin);
        while let Some(above) = self.port_above(at.bus()).filter(|above| above.bus() < at.bus()) {
            pin = (pin + at.device()) % 4;
            at = above;
        }
        route(at.device(), pin)
    }

    /// Adds a port as it is at home, at this depth of the tree.
    fn mirror(&mut self, device: Bdf, home: &HomePort, depth: usize) -> Result<(), TopologyError> {
        let HomePort { bdf, bridge, .. } = *home;
        if bdf.domain() != 0 {
            return Err(TopologyError::Domain { device });
        }
        let kind = kind(bridge.express, depth);
        let slot = home.slot.filter(|_| kind != PortKind::Upstream);
        let buses = BusNumbers {
            primary: bdf.bus(),
            secondary: bridge.secondary,
            subordinate: bridge.subordinate,
        };
        self.ports.insert(bdf, port(kind, home.identity, buses, slot));
        Ok(())
    }

    /// Sees that `device` has a place that nobody else has, and a port that leads there.
    fn admit(&mut self, device: Bdf, before: &[Bdf], all: &[Bdf]) -> Result<(), TopologyError> {
        if device.domain() != 0 {
            return Err(TopologyError::Domain { device });
        }
        let by = match device {
            Board::HOST_BRIDGE => Some("the host bridge"),
            Board::LPC => Some("the LPC bridge"),
            other if before.contains(&other) => Some("another device"),
            other if self.ports.contains_key(&other) => Some("a port"),
            _ => None,
        };
        if let Some(by) = by {
            return Err(TopologyError::Taken {
                device,
                by: by.to_owned(),
                free: self.free_text(all),
            });
        }
        let above = self
            .port_above(device.bus())
            .and_then(|port| self.ports.get(&port));
        let on_root = self.is_root(device.bus());
        let one_slot = !on_root && above.is_none_or(|port| port.kind != PortKind::Upstream);
        if one_slot && device.device() != 0 {
            let free = (0..8).map(|function| Bdf::of_devfn(0, device.bus(), function));
            let free: Vec<_> = free
                .filter(|bdf| !all.contains(bdf))
                .map(|bdf| bdf.to_string())
                .collect();
            let free = free.join(" ");
            return Err(TopologyError::Device { device, free });
        }
        if on_root || above.is_some() {
            return Ok(());
        }
        let root = self.root_of(device.bus());
        let place = self
            .first_free_on(root, all)
            .ok_or(TopologyError::NoPort { device })?;
        let buses = BusNumbers {
            primary: root,
            secondary: device.bus(),
            subordinate: device.bus(),
        };
        self.ports
            .insert(place, port(PortKind::Root, PLAIN_PORT, buses, None));
        Ok(())
    }

    /// Has something answer at function 0 of every slot of which only others are there: an operating system looks no further without.
    fn stand_in(&mut self, wanted: &[Bdf]) {
        let there: BTreeSet<Bdf> = self
            .ports
            .keys()
            .chain(wanted)
            .copied()
            .chain([Board::HOST_BRIDGE, Board::LPC])
            .collect();
        let first = |bdf: &Bdf| Bdf::of_devfn(0, bdf.bus(), bdf.devfn() & !7);
        self.stand_ins = there
            .iter()
            .map(first)
            .filter(|first| !there.contains(first))
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{DeviceSource, DeviceSpec};
    use pellucid_chipset::{PciConfig, RootPort};
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    /// A host of files: a port at 00:02.0 with an NVMe controller behind it in slot 7, a NIC on the root bus, and a second root bus 5d with a
    /// port to another controller.
    fn host(root: &Path) -> Inventory {
        let devices = root.join("sys/bus/pci/devices");
        let real = root.join("sys/devices");
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
            let groups = root.join("sys/kernel/iommu_groups");
            let number = std::fs::read_dir(&groups).map_or(0, Iterator::count);
            let group = groups.join(number.to_string());
            std::fs::create_dir_all(group.join("devices")).unwrap();
            std::os::unix::fs::symlink(&place, group.join("devices").join(name)).unwrap();
            std::os::unix::fs::symlink(group, place.join("iommu_group")).unwrap();
        };
        let mut bridge = [0; 64];
        (bridge[0x0e], bridge[0x19], bridge[0x1a]) = (1, 5, 6);
        add("pci0000:00/0000:00:02.0", "0x1b36", "0x060400", &bridge);
        add(
            "pci0000:00/0000:00:02.0/0000:05:00.0",
            "0x1b36",
            "0x010802",
            &[0; 64],
        );
        // A virtual function of it.
        add(
            "pci0000:00/0000:00:02.0/0000:05:10.2",
            "0x1b36",
            "0x010802",
            &[0; 64],
        );
        add("pci0000:00/0000:00:19.0", "0x8086", "0x020000", &[0; 64]);
        (bridge[0x18], bridge[0x19], bridge[0x1a]) = (0x5d, 0x5e, 0x5e);
        add("pci0000:5d/0000:5d:00.0", "0x8086", "0x060400", &bridge);
        add(
            "pci0000:5d/0000:5d:00.0/0000:5e:00.0",
            "0x144d",
            "0x010802",
            &[0; 64],
        );
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
        fit_on((root.path(), &host), devices)
    }

    fn fit_on(
        place: (&Path, &Inventory),
        devices: &[(&str, Option<&str>)],
    ) -> Result<Topology, TopologyError> {
        fit_with(place, devices, RootBuses::Own)
    }

    fn fit_with(
        (root, host): (&Path, &Inventory),
        devices: &[(&str, Option<&str>)],
        roots: RootBuses,
    ) -> Result<Topology, TopologyError> {
        let offer = |(from, at): &(&str, Option<&str>)| {
            let (from, hot_plug) = match from.strip_suffix(",hotplug") {
                Some(from) => (from, true),
                None => (*from, false),
            };
            let from = match from.strip_prefix("unix:") {
                Some(name) => DeviceSource::Served(socket(root, name)),
                None => DeviceSource::Host(from.parse().unwrap()),
            };
            let at = at.map(|at| at.parse().unwrap());
            DeviceSpec {
                at,
                hot_plug,
                ..DeviceSpec::new(from)
            }
        };
        let wanted: Vec<_> = devices.iter().map(offer).collect();
        let mut refusals = Vec::new();
        let offers = Offer::all(&wanted, host, &mut refusals);
        assert!(refusals.is_empty(), "{refusals:?}");
        Topology::of(&offers, host, None, roots)
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
    fn a_port_of_another_root_bus_is_on_bus_00_for_firmware_which_is_told() {
        let root = tempfile::tempdir().unwrap();
        let host = host(root.path());
        let devices = [("5e:00.0", None), ("05:00.0", None), ("00:19.0", Some("00:01.0"))];
        let tree = fit_with((root.path(), &host), &devices, RootBuses::First).unwrap();
        assert_eq!(tree.roots().count(), 0);
        let place = |bdf: &str| bdf.parse::<Bdf>().unwrap();
        assert_eq!(tree.places()[0], place("5e:00.0"));
        assert_eq!(
            tree.path(0x5e),
            [place("00:03.0")],
            "00:01.0 and 00:02.0 are others'"
        );
        let (_, port) = tree.ports().find(|(bdf, _)| *bdf == place("00:03.0")).unwrap();
        assert_eq!((port.buses.primary, port.buses.secondary), (0, 0x5e));
        assert_eq!(port.identity.vendor, 0x8086, "it is the host's port");
        let told: Vec<_> = tree.warnings().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1);
        assert!(
            told[0].contains("0000:5d:00.0") && told[0].contains("0000:00:03.0"),
            "{told:?}"
        );
        // The board, which knows buses by the ports that lead to them, takes them all.
        let pci = Arc::new(PciConfig::new(0));
        let placed = tree.ports().map(|(bdf, spec)| {
            let port = Arc::new(RootPort::new(spec).unwrap());
            pci.place_port(bdf, port).unwrap()
        });
        assert_eq!(placed.collect::<Vec<_>>().len(), 2);
        assert_eq!(fit(&[("05:00.0", None)]).unwrap().warnings().count(), 0);
    }

    #[test]
    fn a_device_below_another_root_bus_has_the_port_and_the_root_bus_of_the_host() {
        let tree = fit(&[("5e:00.0", None), ("05:00.0", None), ("unix:a", Some("60:00.0"))]).unwrap();
        let place = |bdf: &str| bdf.parse::<Bdf>().unwrap();
        assert_eq!(tree.roots().collect::<Vec<_>>(), [0x5d]);
        assert_eq!(tree.path(0x5e), [place("5d:00.0")]);
        assert_eq!(
            tree.path(0x60),
            [place("5d:01.0")],
            "bus 60 is one of root bus 5d"
        );
        assert_eq!(tree.path(5), [place("00:02.0")]);
        assert_eq!(tree.warnings().count(), 0);
        let pci = Arc::new(PciConfig::with_roots(0, &tree.roots().collect::<Vec<_>>()));
        let placed = tree.ports().map(|(bdf, spec)| {
            let port = Arc::new(RootPort::new(spec).unwrap());
            pci.place_port(bdf, port).unwrap()
        });
        assert_eq!(placed.collect::<Vec<_>>().len(), 3);
    }

    #[test]
    fn a_device_number_on_a_bus_that_no_port_leads_to_makes_it_a_root_bus() {
        let tree = fit(&[("unix:a", Some("80:03.1")), ("unix:b", Some("80:00.0"))]).unwrap();
        assert_eq!(tree.roots().collect::<Vec<_>>(), [0x80]);
        assert_eq!(tree.ports().count(), 0);
        let stand_ins: Vec<_> = tree.stand_ins().map(|bdf| bdf.to_string()).collect();
        assert_eq!(stand_ins, ["0000:80:03.0"]);
        // A port of bus 00 leads past these.
        for inside in ["03:01.0", "06:01.0"] {
            let refusal = fit(&[("05:00.0", None), ("unix:a", Some(inside))]);
            assert!(matches!(refusal, Err(TopologyError::Device { .. })), "{inside}");
        }
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
    fn a_device_that_moves_on_its_bus_stays_behind_its_port() {
        let tree = fit(&[("05:00.0", Some("05:00.3"))]).unwrap();
        assert_eq!(tree.port_above(5), Some("00:02.0".parse().unwrap()));
        let stand_ins: Vec<_> = tree.stand_ins().map(|bdf| bdf.to_string()).collect();
        assert_eq!(stand_ins, ["0000:05:00.0"], "for function 3 to be found");
    }

    #[test]
    fn a_function_beside_one_that_is_lent_needs_nobody_in_its_place() {
        let tree = fit(&[("05:00.0", Some("00:04.0")), ("00:19.0", Some("00:04.1"))]).unwrap();
        assert_eq!(tree.stand_ins().count(), 0);
        assert_eq!(tree.path(0), []);
    }

    #[test]
    fn a_hot_plug_slot_is_behind_the_port_above_its_device_and_has_a_number() {
        let slots = |devices: &[(&str, Option<&str>)]| -> Result<Vec<_>, TopologyError> {
            let tree = fit(devices)?;
            let slots = tree.ports().filter(|(_, port)| port.hot_plug);
            Ok(slots.map(|(bdf, port)| (bdf.to_string(), port.slot)).collect())
        };
        let named = |at: &str, slot| (format!("0000:{at}"), Some(slot));
        assert_eq!(slots(&[("05:00.0,hotplug", None)]), Ok(vec![named("00:02.0", 7)]));
        // Numbers that the host has given are not given again.
        let new = [("unix:a,hotplug", Some("07:00.0")), ("05:00.0", None)];
        assert_eq!(slots(&new), Ok(vec![named("00:01.0", 1)]));
        let beside = [("unix:a", Some("05:00.1")), ("05:00.0,hotplug", None)];
        assert_eq!(slots(&beside), Ok(vec![named("00:02.0", 7)]));
        assert_eq!(slots(&[("05:00.0", None)]), Ok(vec![]));
        for there in [("00:19.0,hotplug", None), ("unix:a,hotplug", None)] {
            let refusal = slots(&[there]).unwrap_err().to_string();
            assert!(
                refusal.contains("root bus") && refusal.contains("at=BDF"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn a_slot_holds_whole_groups_or_is_none() {
        let root = tempfile::tempdir().unwrap();
        let mut host = host(root.path());
        let (disk, card): (Bdf, Bdf) = ("05:00.0".parse().unwrap(), "00:19.0".parse().unwrap());
        let mut group = host.functions[&disk].group.clone().unwrap();
        group.members.push(card);
        for device in [disk, card] {
            host.functions.get_mut(&device).unwrap().group = Some(group.clone());
        }
        let fit = |devices: &[_]| fit_on((root.path(), &host), devices);
        let apart = fit(&[("05:00.0,hotplug", None), ("00:19.0", None)])
            .unwrap_err()
            .to_string();
        assert!(
            apart.contains("05:00.0") && apart.contains("IOMMU group"),
            "{apart}"
        );
        assert!(fit(&[("05:00.0,hotplug", None), ("00:19.0", Some("05:00.1"))]).is_ok());
    }

    #[test]
    fn ports_of_a_switch_are_told_by_their_own_word_or_by_their_depth() {
        assert_eq!(kind(Some(6), 1), PortKind::Downstream);
        let by_depth: Vec<_> = (0..4).map(|depth| kind(None, depth)).collect();
        let (root, up, down) = (PortKind::Root, PortKind::Upstream, PortKind::Downstream);
        assert_eq!(by_depth, [root, up, down, up]);
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
        assert!(matches!(refusal, TopologyError::Taken { by, .. } if by == "a port"));
        let twice = fit(&[("05:00.0", Some("00:04.0")), ("00:19.0", Some("00:04.0"))]).unwrap_err();
        assert!(matches!(twice, TopologyError::Taken { by, .. } if by == "another device"));
    }

    #[test]
    fn what_no_operating_system_would_find_is_refused() {
        let refusal = fit(&[("05:00.0", Some("05:10.2"))]).unwrap_err().to_string();
        assert!(
            refusal.contains("device 0") && refusal.contains("0000:05:00.0 0000:05:00.1"),
            "{refusal}"
        );
        assert!(matches!(
            fit(&[("00:19.0", Some("0001:00:04.0"))]),
            Err(TopologyError::Domain { .. })
        ));
    }

    #[test]
    fn a_function_of_a_device_above_0_is_lent_at_each_address_that_its_refusal_names() {
        let refusal = fit(&[("05:00.0", None), ("05:10.2", None)]).unwrap_err();
        let TopologyError::Device { device, free } = refusal else {
            panic!("{refusal}")
        };
        assert_eq!(device.to_string(), "0000:05:10.2");
        let free: Vec<&str> = free.split(' ').collect();
        assert_eq!(
            free.len(),
            7,
            "all but that of the device that is there: {free:?}"
        );
        for at in free {
            let tree = fit(&[("05:00.0", None), ("05:10.2", Some(at))]).unwrap();
            let places: Vec<_> = tree.places().iter().map(Bdf::to_string).collect();
            assert_eq!(places, ["0000:05:00.0", at]);
        }
    }
}
