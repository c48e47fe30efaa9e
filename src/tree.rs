//! Where lent functions are in a guest: their addresses, their BARs, the ports before them with their windows and hot-plug slots.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use pellucid_chipset::{PortAt, RootPort, Windows};
use pellucid_image::{RootBus, RootPort as DescribedPort, intx_gsi};
use pellucid_partition::{Bdf, Interrupts, Layout, Populated};
use pellucid_passthrough::{BarKind, BarShape, Bound, Placement, PlacementWindows, PortWindows, View};

use crate::bay::Bay;
use crate::error::LendError;
use crate::event::ServerEvent;
use crate::policy::DevicePolicy;
use crate::seen::interrupt_pin;
use crate::server::EventSink;
use crate::topology::Topology;

/// The hot-plug slots, by the bus behind their port.
pub(crate) type Bays = BTreeMap<u8, Bay>;

/// Where the functions are in the guest, and the ports before them.
pub(crate) struct Tree {
    pub(crate) topology: Topology,
    pub(crate) placement: Placement,
    pub(crate) windows: PlacementWindows,
}

impl Tree {
    /// The ports as the board builds them, with the windows that lead to what is behind them, and the hot-plug slots among them.
    pub(crate) fn root_ports(
        &self,
        interrupts: &Arc<Interrupts>,
        events: &EventSink,
    ) -> Result<(Vec<PortAt>, Bays), LendError> {
        let (mut ports, mut bays) = (Vec::new(), Bays::new());
        for (bdf, spec) in self.topology.ports() {
            let failed = |source| LendError::Place { device: bdf, source };
            let mut spec = spec.clone();
            spec.windows = self.windows_of(bdf);
            let port = if spec.hot_plug {
                let bay = Bay::build(&spec, interrupts, events).map_err(failed)?;
                let port = Arc::clone(bay.port());
                bays.insert(spec.buses.secondary, bay);
                port
            } else {
                Arc::new(RootPort::new(&spec).map_err(failed)?)
            };
            ports.push(PortAt { bdf, port });
        }
        Ok((ports, bays))
    }

    /// The root buses besides 00 as ACPI describes them: what is placed below each, and nothing else, leads there.
    pub(crate) fn described_roots(&self) -> Vec<RootBus> {
        let described = |bus| RootBus {
            bus,
            memory: Vec::new(),
            io: Vec::new(),
            node: None,
        };
        let mut roots: Vec<RootBus> = self.topology.roots().map(described).collect();
        for root in &mut roots {
            let here = |at: &Bdf| at.bus() == root.bus;
            for (_, port) in self.placement.ports().iter().filter(|(at, _)| here(at)) {
                root.memory
                    .extend([port.memory.clone(), port.prefetchable.clone()]);
                root.io.push(port.io.clone());
            }
            let bars = self
                .topology
                .places()
                .iter()
                .filter(|at| here(at))
                .flat_map(|at| self.bars(*at));
            // An expansion ROM without an address is in no window.
            for bar in bars.filter(|bar| bar.address != 0) {
                // Whole pages, as they were placed.
                match bar.kind {
                    BarKind::Io => root.io.push(bar.address..bar.address + bar.size),
                    _ => root.memory.push(bar.address..bar.address + bar.size.max(PAGE)),
                }
            }
            for ranges in [&mut root.memory, &mut root.io] {
                ranges.retain(|range| !range.is_empty());
                ranges.sort_by_key(|range| range.start);
            }
        }
        roots
    }

    /// The ports of root buses as ACPI describes them.
    pub(crate) fn described_ports(&self) -> Vec<DescribedPort> {
        let ports = self.topology.ports();
        let on_root_bus = ports.filter(|(bdf, _)| self.topology.is_root(bdf.bus()));
        on_root_bus
            .map(|(address, port)| DescribedPort {
                address,
                slot: port.slot.map(u32::from),
                node: None,
            })
            .collect()
    }

    /// Whether some port has a hot-plug slot.
    pub(crate) fn has_hot_plug(&self) -> bool {
        self.topology.ports().any(|(_, port)| port.hot_plug)
    }

    /// The configuration window for the buses in use. Linux looks at every device number of every bus in it, two exits each.
    pub(crate) fn ecam(&self) -> Range<u64> {
        let last = self
            .topology
            .ports()
            .map(|(_, port)| port.buses.subordinate)
            .chain(self.topology.roots())
            .max()
            .unwrap_or(0);
        Layout::ECAM.start..Layout::ECAM.start + ((u64::from(last) + 1) << 20)
    }

    /// The BARs of the function at `at`, as the guest finds them.
    pub(crate) fn bars(&self, at: Bdf) -> &[BarShape] {
        self.placement.bars(at)
    }

    /// What a port forwards: what is behind it.
    fn windows_of(&self, port: Bdf) -> Windows {
        let PortWindows {
            memory,
            prefetchable,
            io,
        } = self.placement.ports().get(&port).cloned().unwrap_or_default();
        Windows {
            io: io.start as u32..io.end as u32,
            memory,
            prefetchable,
        }
    }

    /// How the guest sees `bound` at `at`.
    pub(crate) fn view(
        &self,
        (at, bound): (Bdf, &Bound),
        policy: DevicePolicy,
        populated: &Populated,
        events: &EventSink,
    ) -> Result<View, LendError> {
        let (mut line, mut line_register) = (None, 0);
        if let Some(pin) = interrupt_pin(bound) {
            let gsi = self.topology.root_pin(at, pin, intx_gsi);
            line = Some(
                populated
                    .interrupts()
                    .resample_line(gsi)
                    .map_err(LendError::Line)?,
            );
            line_register = gsi.0 as u8;
        }
        let told = Arc::clone(events);
        Ok(View {
            bars: self.bars(at).to_vec(),
            windows: self.windows.clone(),
            line,
            line_register,
            events: Arc::new(move |event| told(ServerEvent::of_device(event, &policy))),
        })
    }
}

/// The least that a BAR has to itself.
const PAGE: u64 = 1 << 12;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

    use super::*;
    use crate::offer::Offer;
    use crate::spec::{DeviceSource, DeviceSpec};
    use crate::topology::RootBuses;
    use pellucid_image::AcpiBoard;
    use pellucid_passthrough::{Bar, Function, Ids, Inventory};
    use proptest::prelude::*;

    const PLACES: [&str; 8] = [
        "00:05.0", "03:00.0", "40:02.0", "41:00.0", "80:01.0", "80:02.3", "90:00.0", "90:00.1",
    ];

    fn bar() -> impl Strategy<Value = (BarKind, u32, u64)> {
        let kind = prop_oneof![
            (Just(BarKind::Io), 2u32..8),
            (Just(BarKind::Memory32 { prefetchable: false }), 4u32..24),
            (Just(BarKind::Memory64 { prefetchable: true }), 4u32..28),
        ];
        (kind, 0u64..0x1000).prop_map(|((kind, bits), at)| (kind, bits, at))
    }

    fn functions(topology: &Topology, bars: &[(BarKind, u32, u64)]) -> Vec<Function> {
        let ids = Ids {
            vendor: 1,
            device: 2,
            class: 0x01_0802,
            revision: 0,
            subsystem: [0, 0],
        };
        let function = |(at, bars): (&Bdf, &[(BarKind, u32, u64)])| {
            let bars = bars.iter().enumerate().map(|(index, (kind, bits, at))| Bar {
                index: index as u8,
                kind: *kind,
                address: (0xc000_0000 + (at << 16)) >> bits << bits,
                size: 1 << bits,
            });
            Function {
                bars: bars.collect(),
                upstream: topology.path(at.bus()),
                ..Function::bare(*at, ids)
            }
        };
        topology
            .places()
            .iter()
            .zip(bars.chunks(2))
            .map(function)
            .collect()
    }

    proptest! {
        #[test]
        fn every_bar_is_in_the_windows_of_its_own_root_bus(
            bars in proptest::collection::vec(bar(), 16),
            places in proptest::sample::subsequence(PLACES.to_vec(), 1..=8),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let host = Inventory::survey_at(folder.path()).unwrap();
            let device = |(index, at): (usize, &&str)| {
                let path = folder.path().join(index.to_string());
                drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
                DeviceSpec { at: Some(at.parse().unwrap()), ..DeviceSpec::new(DeviceSource::Served(path)) }
            };
            let devices: Vec<_> = places.iter().enumerate().map(device).collect();
            let offers = Offer::all(&devices, &host, &mut Vec::new());
            let topology = Topology::of(&offers, &host, None, RootBuses::Own).unwrap();
            let layout = Layout::new(1 << 30, 39).unwrap();
            let windows = PlacementWindows::of(&layout);
            let functions = functions(&topology, &bars);
            let Ok(placement) = Placement::fit(&windows, &functions.iter().collect::<Vec<_>>()) else {
                return Ok(());
            };
            let tree = Tree { topology, placement, windows };
            let mut board = AcpiBoard::new(&layout, vec![0]);
            (board.ecam, board.root_ports, board.root_buses) = (tree.ecam(), tree.described_ports(), tree.described_roots());
            // Refused if anything is outside of the board's windows or twice in one.
            prop_assert!(board.tables().is_ok(), "{:?}", board.tables());
            let bridges = board.root_bridges();
            for function in &functions {
                let root = tree.topology.root_of(function.bdf.bus());
                let own = bridges.iter().find(|bridge| *bridge.buses.start() == root).unwrap();
                prop_assert!(own.buses.contains(&function.bdf.bus()));
                for bar in tree.bars(function.bdf) {
                    let ranges = if bar.kind == BarKind::Io { &own.io } else { &own.memory };
                    let inside = |range: &Range<u64>| range.start <= bar.address && bar.address + bar.size <= range.end;
                    prop_assert!(ranges.iter().any(inside), "{bar:?} of {} in {own:?}", function.bdf);
                }
            }
        }
    }
}
