//! Lent devices between the facade's stages: taken off the host, placed in the guest, wired, given back.

use std::ops::Range;
use std::sync::Arc;

use pellucid_chipset::{Board, Placed, Placeholder, PortAt, PortIdentity, RootPort, Windows};
use pellucid_image::{RootPort as DescribedPort, intx_gsi};
use pellucid_partition::{Bdf, Layout, Populated, StateDir};
use pellucid_passthrough::{
    Assigned, Bound, Claimant, ErrorWatch, Function, Guest, IoSpace, Placement, PlacementWindows,
    PortWindows, ReleaseError, Served, View, VirtualFunctions, Watched,
};

use crate::cards::{admit, provide};
use crate::error::LendError;
use crate::event::ServerEvent;
use crate::offer::Offer;
use crate::policy::DevicePolicy;
use crate::seen::{as_seen, interrupt_pin};
use crate::server::EventSink;
use crate::spec::DeviceSource;
use crate::topology::Topology;

/// Functions off their host drivers and opened. None can do DMA yet.
pub(crate) struct Taken {
    // Teardown order: the functions, then those of them that were made for this.
    functions: Vec<Opened>,
    cards: Vec<VirtualFunctions>,
}

/// One of them.
struct Opened {
    /// Its address in the guest.
    at: Bdf,
    /// Its address on the host, if it is the host's.
    host: Option<Bdf>,
    policy: DevicePolicy,
    bound: Bound,
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
    // Teardown order: what happens to them now is told to nobody, nobody finds them, then they are stopped and given back.
    watch: Option<ErrorWatch>,
    stand_ins: Vec<Placed>,
    /// Of each assigned function, in their order.
    placed: Vec<Placed>,
    assigned: Vec<Assigned>,
    cards: Vec<VirtualFunctions>,
}

impl Taken {
    /// Takes every function for its place in the guest, or none: those already taken go back when one is refused.
    pub(crate) fn take(
        offers: Vec<Offer>,
        places: &[Bdf],
        state: &StateDir,
        partition: &str,
    ) -> Result<Self, LendError> {
        let claimant = Claimant::new(state, partition);
        let cards = provide(&offers, &claimant)?;
        let mut claimed = claimant.claim_all(admit(&offers, &cards)?)?.into_iter();
        let mut taken = Self {
            functions: Vec::new(),
            cards,
        };
        let mut space = None;
        for (offer, at) in offers.into_iter().zip(places) {
            let policy = offer.spec().policy;
            let bound = match &offer.spec().from {
                DeviceSource::Served(socket) => Served::claim(socket, *at, state, partition)?.bind()?,
                from => {
                    let Some(mut claimed) = claimed.next() else {
                        unreachable!("what is not served was claimed")
                    };
                    if let DeviceSource::Virtual(function) = from {
                        claimed.configure(&function.settings)?;
                    }
                    let space = match &space {
                        Some(space) => space,
                        None => space.insert(IoSpace::open()?),
                    };
                    claimed.bind(space)?
                }
            };
            let served = matches!(offer.spec().from, DeviceSource::Served(_));
            taken.functions.push(Opened {
                at: *at,
                host: (!served).then(|| bound.bdf()),
                policy,
                bound,
            });
        }
        Ok(taken)
    }

    /// Finds a place for every BAR and port window.
    pub(crate) fn place(&self, topology: Topology, layout: &Layout) -> Result<Tree, LendError> {
        let windows = PlacementWindows::of(layout);
        let seen = |opened: &Opened| as_seen(&opened.bound, opened.at, &topology);
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
        let mut lent = Lent {
            watch: self.watch(events)?,
            cards: self.cards,
            ..Lent::default()
        };
        for at in tree.topology.stand_ins() {
            let placed = board
                .pci()
                .place(at, Arc::new(Placeholder::new(STAND_IN, HOST_BRIDGE_CLASS)));
            lent.stand_ins
                .push(placed.map_err(|source| LendError::Place { device: at, source })?);
        }
        for opened in self.functions {
            let at = opened.at;
            let view = tree.view(&opened, populated, events)?;
            let assigned = opened.bound.assign(&guest, view)?;
            let placed = board.pci().place(at, assigned.config());
            lent.assigned.push(assigned);
            lent.placed
                .push(placed.map_err(|source| LendError::Place { device: at, source })?);
        }
        Ok(lent)
    }

    /// Watches for what no device of its own tells.
    fn watch(&self, events: &EventSink) -> Result<Option<ErrorWatch>, LendError> {
        let watched = |opened: &Opened| {
            Some(Watched {
                device: opened.host?,
                corrected: opened.policy.corrected,
            })
        };
        let watched: Vec<_> = self.functions.iter().filter_map(watched).collect();
        if watched.is_empty() {
            return Ok(None);
        }
        let told = Arc::clone(events);
        let sink = move |event| told(ServerEvent::of_device(event, &DevicePolicy::default()));
        ErrorWatch::start(&watched, Arc::new(sink))
            .map(Some)
            .map_err(|source| LendError::Watch { source })
    }
}

impl Tree {
    /// The ports as the board builds them, with the windows that lead to what is behind them.
    pub(crate) fn root_ports(&self) -> Result<Vec<PortAt>, LendError> {
        let build = |(bdf, spec): (Bdf, &pellucid_chipset::RootPortSpec)| {
            let mut spec = spec.clone();
            spec.windows = self.windows_of(bdf);
            let port = RootPort::new(&spec).map_err(|source| LendError::Place { device: bdf, source })?;
            let port = Arc::new(port);
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

    fn view(&self, opened: &Opened, populated: &Populated, events: &EventSink) -> Result<View, LendError> {
        let Opened {
            at, policy, bound, ..
        } = opened;
        let (at, policy) = (*at, *policy);
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
            events: Arc::new(move |event| told(ServerEvent::of_device(event, &policy))),
        })
    }
}

impl Lent {
    /// Takes one function from the guest and gives it back, if the guest still has it.
    pub(crate) fn unplug(&mut self, device: Bdf, events: &EventSink) -> Result<(), ReleaseError> {
        let Some(index) = self.assigned.iter().position(|assigned| assigned.bdf() == device) else {
            return Ok(());
        };
        drop(self.placed.remove(index));
        give_back(vec![self.assigned.remove(index).unassign()], events)
    }

    /// Gives every function back; a failure does not keep the others, and the first one is returned.
    pub(crate) fn release(self, events: &EventSink) -> Result<(), ReleaseError> {
        drop((self.watch, self.stand_ins));
        drop(self.placed);
        let stopped = self.assigned.into_iter().map(Assigned::unassign).collect();
        let mut outcome = give_back(stopped, events);
        for card in self.cards {
            outcome = outcome.and(card.release().map(|_| ()).map_err(ReleaseError::from));
        }
        outcome
    }
}

/// Resets and gives back, tells how, and returns the first failure.
fn give_back(stopped: Vec<Bound>, events: &EventSink) -> Result<(), ReleaseError> {
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

/// Who stands at a function 0 that is not lent: a host bridge of QEMU's, which no driver takes.
const STAND_IN: PortIdentity = PortIdentity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    subsystem: None,
};
const HOST_BRIDGE_CLASS: u32 = 0x06_0000;
