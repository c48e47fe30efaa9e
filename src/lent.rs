//! Lent devices between the facade's stages: taken off the host, placed in the guest, wired, given back.

use std::ops::Range;
use std::sync::Arc;

use pellucid_chipset::{Board, Placed, Placeholder, PortAt, PortIdentity, RootPort, Windows};
use pellucid_image::{RootPort as DescribedPort, intx_gsi};
use pellucid_partition::{Bdf, Layout, Populated, StateDir};
use pellucid_passthrough::{
    Admitted, Assigned, Bar, BarShape, Bound, Claimant, DeviceEvent, Function, Guest, IoSpace, IrqKind,
    Placement, PlacementWindows, PortWindows, RegionIndex, ReleaseError, Served, View,
};

use crate::error::LendError;
use crate::event::ServerEvent;
use crate::offer::Offer;
use crate::server::EventSink;
use crate::spec::DeviceSource;
use crate::topology::Topology;

/// Functions off their host drivers and opened. None can do DMA yet.
pub(crate) struct Taken {
    functions: Vec<(Bdf, Bound)>,
}

/// Where the functions are in the guest, and the ports before them.
pub(crate) struct Tree {
    topology: Topology,
    placement: Placement,
    windows: PlacementWindows,
}

/// Functions that the guest drives. Dropping it gives them back.
#[derive(Default)]
pub(crate) struct Lent {
    // Teardown order: first nobody finds them, then they are stopped and given back.
    placed: Vec<Placed>,
    assigned: Vec<Assigned>,
}

impl Taken {
    /// Takes every function for its place in the guest, or none: those already taken go back when one is refused.
    pub(crate) fn take(
        offers: Vec<Offer>,
        places: &[Bdf],
        state: &StateDir,
        partition: &str,
    ) -> Result<Self, LendError> {
        let mut functions = Vec::new();
        let admitted: Vec<Admitted> = offers.iter().filter_map(Offer::admitted).cloned().collect();
        let mut claimed = Claimant::new(state, partition).claim_all(admitted)?.into_iter();
        let mut space = None;
        for (offer, at) in offers.into_iter().zip(places) {
            let bound = match &offer.spec().from {
                DeviceSource::Served(socket) => Served::claim(socket, *at, state, partition)?.bind()?,
                DeviceSource::Host(_) => {
                    let Some(claimed) = claimed.next() else {
                        unreachable!("a function of the host is offered as it was admitted")
                    };
                    let space = match &space {
                        Some(space) => space,
                        None => space.insert(IoSpace::open()?),
                    };
                    claimed.bind(space)?
                }
            };
            functions.push((*at, bound));
        }
        Ok(Self { functions })
    }

    /// Finds a place for every BAR and port window.
    pub(crate) fn place(&self, topology: Topology, layout: &Layout) -> Result<Tree, LendError> {
        let windows = PlacementWindows::of(layout);
        let seen = |(guest, bound): &(Bdf, Bound)| as_seen(bound, *guest, &topology);
        let functions: Vec<Function> = self.functions.iter().map(seen).collect();
        let placement = Placement::fit(&windows, &functions.iter().collect::<Vec<_>>())?;
        Ok(Tree {
            topology,
            placement,
            windows,
        })
    }

    /// Wires every function to the guest and shows it on the board's PCI bus.
    pub(crate) fn assign(
        self,
        populated: &Populated,
        board: &Board,
        tree: &Tree,
        events: &EventSink,
    ) -> Result<Lent, LendError> {
        let guest = Guest::of(populated);
        let mut lent = Lent::default();
        for at in tree.topology.stand_ins() {
            let placed = board
                .pci()
                .place(at, Arc::new(Placeholder::new(STAND_IN, HOST_BRIDGE_CLASS)));
            lent.placed
                .push(placed.map_err(|source| LendError::Place { device: at, source })?);
        }
        for (at, bound) in self.functions {
            let view = tree.view(at, &bound, populated, events)?;
            let assigned = bound.assign(&guest, view)?;
            let placed = board.pci().place(at, assigned.config());
            lent.assigned.push(assigned);
            lent.placed
                .push(placed.map_err(|source| LendError::Place { device: at, source })?);
        }
        Ok(lent)
    }
}

impl Tree {
    /// The ports as the board builds them, with the windows that lead to what is behind them.
    pub(crate) fn root_ports(&self) -> Result<Vec<PortAt>, LendError> {
        let build = |(bdf, spec): (Bdf, &pellucid_chipset::RootPortSpec)| {
            let mut spec = spec.clone();
            spec.windows = self.windows_of(bdf);
            let port = RootPort::new(&spec).map_err(|source| LendError::Place { device: bdf, source })?;
            Ok(PortAt { bdf, port })
        };
        self.topology.ports().map(build).collect()
    }

    /// The ports of the root bus as ACPI describes them.
    pub(crate) fn described_ports(&self) -> Vec<DescribedPort> {
        let on_root_bus = self.topology.ports().filter(|(bdf, _)| bdf.bus() == 0);
        on_root_bus
            .map(|(address, port)| DescribedPort {
                address,
                slot: port.slot.map(u32::from),
            })
            .collect()
    }

    /// The configuration window for the buses in use. Linux looks at every device number of every bus in it, two exits each.
    pub(crate) fn ecam(&self) -> Range<u64> {
        let last = self
            .topology
            .ports()
            .map(|(_, port)| port.buses.subordinate)
            .max()
            .unwrap_or(0);
        Layout::ECAM.start..Layout::ECAM.start + ((u64::from(last) + 1) << 20)
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

    fn view(
        &self,
        at: Bdf,
        bound: &Bound,
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
            bars: self.placement.bars(at).to_vec(),
            windows: self.windows.clone(),
            line,
            line_register,
            events: Arc::new(move |event| {
                told(match event {
                    DeviceEvent::Error { device } => ServerEvent::DeviceError { device },
                    DeviceEvent::Wanted { device } => ServerEvent::DeviceWanted { device },
                    DeviceEvent::Lost { device } => ServerEvent::DeviceLost { device },
                });
            }),
        })
    }
}

impl Lent {
    /// Gives every function back; a failure does not keep the others, and the first one is returned.
    pub(crate) fn release(self, events: &EventSink) -> Result<(), ReleaseError> {
        drop(self.placed);
        let stopped = self.assigned.into_iter().map(Assigned::unassign).collect();
        let mut outcome = Ok(());
        for released in Bound::release_all(stopped) {
            let report = match &released {
                Ok(released) => Some(&released.reset),
                Err(error) => error.report(),
            };
            if let Some(report) = report {
                events(ServerEvent::DeviceReset {
                    report: Box::new(report.clone()),
                });
            }
            outcome = outcome.and(released.map(|_| ()));
        }
        outcome
    }
}

/// The function as placement must see it: at its address in the guest, behind the guest's port, with its expansion ROM.
fn as_seen(bound: &Bound, guest: Bdf, topology: &Topology) -> Function {
    let mut function = bound.function().clone();
    function.bdf = guest;
    function.upstream = topology.path(guest.bus());
    let rom = BarShape::rom_of(bound.transport())
        .filter(|_| function.bars.iter().all(|bar| bar.index < BarShape::ROM));
    function.bars.extend(rom.map(|rom| Bar {
        index: rom.index,
        kind: rom.kind,
        address: rom.address,
        size: rom.size,
    }));
    function
}

/// The INTx pin that the function uses, from 0; `None` without INTx.
fn interrupt_pin(bound: &Bound) -> Option<u8> {
    let transport = bound.transport();
    let mut register = [0];
    let read = transport.read(RegionIndex::Config, INTERRUPT_PIN, &mut register);
    let wired = transport.irq(IrqKind::Intx).count > 0 && read.is_ok();
    (wired && (1..=4).contains(&register[0])).then(|| register[0] - 1)
}

/// PCI 3.0, 6.2.4.
const INTERRUPT_PIN: u64 = 0x3d;
/// Who stands at a function 0 that is not lent: a host bridge of QEMU's, which no driver takes.
const STAND_IN: PortIdentity = PortIdentity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    subsystem: None,
};
const HOST_BRIDGE_CLASS: u32 = 0x06_0000;
