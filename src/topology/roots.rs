//! The root buses of a guest's tree: which there are, what leads where from them, and what is free on them. Pure.

use std::collections::BTreeSet;

use pellucid_chipset::{PortKind, RootPortSpec};
use pellucid_partition::Bdf;

use super::Topology;
use crate::error::TopologyError;
use crate::identity::CheckWarning;

/// Which root buses a guest can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RootBuses {
    /// Those that its devices have at home.
    Own,
    /// Bus 00, the only one that firmware looks at.
    First,
}

impl Topology {
    /// Root buses besides 00, in ascending order.
    pub(crate) fn roots(&self) -> impl Iterator<Item = u8> {
        self.roots.iter().copied()
    }

    /// The root bus that a bus is on or below: each has the numbers up to the next.
    pub(crate) fn root_of(&self, bus: u8) -> u8 {
        self.roots.range(..=bus).next_back().copied().unwrap_or(0)
    }

    pub(crate) fn is_root(&self, bus: u8) -> bool {
        self.root_of(bus) == bus
    }

    /// Makes root buses of those that ports are on at home and no port leads to; then of those that `at_home` are on, or where a device
    /// number above 0 is `wanted`, if no port leads past them.
    pub(super) fn take_roots(&mut self, at_home: &[Bdf], wanted: &[Bdf]) -> Result<(), TopologyError> {
        self.roots = self.root_buses();
        if let Some((bdf, port)) = self.ports.iter().find(|(bdf, port)| !self.holds(**bdf, port)) {
            return Err(TopologyError::Bridge {
                device: Bdf::of_devfn(0, port.buses.secondary, 0),
                bridge: *bdf,
                why: "buses behind it are those of another root bus",
            });
        }
        let numbered = wanted.iter().filter(|bdf| bdf.device() != 0);
        for bus in at_home.iter().chain(numbered).filter(|bdf| bdf.domain() == 0) {
            let bus = bus.bus();
            if bus != 0 && self.port_above(bus).is_none() && self.roots.insert(bus) {
                let fits = self.ports.iter().all(|(bdf, port)| self.holds(*bdf, port));
                if !fits {
                    self.roots.remove(&bus);
                }
            }
        }
        Ok(())
    }

    /// Whether a port and all buses behind it are below one root bus.
    fn holds(&self, bdf: Bdf, port: &RootPortSpec) -> bool {
        let root = self.root_of(bdf.bus());
        let buses = [port.buses.secondary, port.buses.subordinate];
        buses
            .into_iter()
            .all(|bus| self.root_of(bus) == root && bus != root)
    }

    /// Buses besides 00 that ports are on and none leads to.
    fn root_buses(&self) -> BTreeSet<u8> {
        let led_to: BTreeSet<u8> = self.ports.values().map(|port| port.buses.secondary).collect();
        let on = self.ports.keys().map(|bdf| bdf.bus());
        on.filter(|bus| *bus != 0 && !led_to.contains(bus)).collect()
    }

    /// Has the ports of the host's other root buses on bus 00. What is behind them keeps its bus: a bus has one number in a domain,
    /// whatever leads there.
    pub(super) fn gather_on_root_bus(&mut self, wanted: &[Bdf]) -> Result<(), TopologyError> {
        let others = self.root_buses();
        let strays = self.ports.extract_if(.., |bdf, _| others.contains(&bdf.bus()));
        for (host, mut port) in strays.collect::<Vec<_>>() {
            let device = Bdf::of_devfn(0, port.buses.secondary, 0);
            let guest = self.first_free(wanted).ok_or(TopologyError::NoPort { device })?;
            port.buses.primary = guest.bus();
            port.kind = PortKind::Root;
            self.ports.insert(guest, port);
            self.moved.push(CheckWarning::Port { host, guest });
        }
        Ok(())
    }

    /// Device numbers of a root bus that nothing has.
    fn free<'t>(&'t self, root: u8, wanted: &'t [Bdf]) -> impl Iterator<Item = u8> + 't {
        let taken = move |number: u8| {
            let here = |bdf: &Bdf| bdf.bus() == root && bdf.device() == number;
            self.ports.keys().any(here) || wanted.iter().any(here)
        };
        (1..0x1f).filter(move |number| !taken(*number))
    }

    pub(super) fn first_free(&self, wanted: &[Bdf]) -> Option<Bdf> {
        self.first_free_on(0, wanted)
    }

    pub(super) fn first_free_on(&self, root: u8, wanted: &[Bdf]) -> Option<Bdf> {
        let mut free = self.free(root, wanted);
        free.next().map(|number| Bdf::of_devfn(0, root, number << 3))
    }

    pub(super) fn free_text(&self, wanted: &[Bdf]) -> String {
        let free: Vec<_> = self
            .free(0, wanted)
            .map(|number| format!("{number:02x}"))
            .collect();
        free.join(" ")
    }
}
