//! Functions that were taken for a guest and that it does not have yet.

use std::sync::Arc;

use pellucid_chipset::Board;
use pellucid_partition::{Bdf, Layout, Populated, StateDir};
use pellucid_passthrough::{
    Bound, Claimant, Function, Guest, IoSpace, Placement, PlacementWindows, Served, VirtualFunctions,
};

use crate::cards::{admit, provide};
use crate::error::LendError;
use crate::lent::Given;
use crate::offer::Offer;
use crate::seen::as_seen;
use crate::server::{EventSink, MemoryStep, ProgressSink};
use crate::spec::{DeviceSource, DeviceSpec};
use crate::topology::Topology;
use crate::tree::Tree;

/// Functions off their host drivers and opened. None can do DMA yet.
pub(crate) struct Taken {
    // Teardown order: the functions, then those of them that were made for this.
    functions: Vec<Opened>,
    cards: Vec<VirtualFunctions>,
    space: Option<Arc<IoSpace>>,
}

/// One of them.
struct Opened {
    /// Its address in the guest.
    at: Bdf,
    spec: DeviceSpec,
    bound: Bound,
}

/// What a server holds of functions beside the functions themselves.
pub(crate) type Held = (Vec<VirtualFunctions>, Option<Arc<IoSpace>>);

impl Taken {
    /// Takes every function for its place in the guest, or none: those already taken go back when one is refused. `space` is that of the
    /// guest's other devices, if there is one.
    pub(crate) fn take(
        offers: Vec<Offer>,
        places: &[Bdf],
        claimant: &Claimant<'_>,
        (state, partition): (&StateDir, &str),
        space: Option<Arc<IoSpace>>,
    ) -> Result<Self, LendError> {
        let cards = provide(&offers, claimant)?;
        let mut claimed = claimant.claim_all(admit(&offers, &cards)?)?.into_iter();
        let mut taken = Self {
            functions: Vec::new(),
            cards,
            space,
        };
        for (offer, at) in offers.into_iter().zip(places) {
            let bound = match &offer.spec().from {
                DeviceSource::Served(socket) => Served::claim(socket, *at, state, partition)?.bind()?,
                from => {
                    let mut claimed = claimed.next().ok_or(LendError::Unclaimed { device: *at })?;
                    if let DeviceSource::Virtual(function) = from {
                        claimed.configure(&function.settings)?;
                    }
                    let space = match &taken.space {
                        Some(space) => space,
                        None => taken.space.insert(IoSpace::open()?),
                    };
                    claimed.bind(space)?
                }
            };
            taken.functions.push(Opened {
                at: *at,
                spec: offer.spec().clone(),
                bound,
            });
        }
        Ok(taken)
    }

    /// Has `progress` told how mapping the guest's memory for them comes on.
    pub(crate) fn report_to(&self, progress: &ProgressSink) {
        if let Some(space) = &self.space {
            let told = Arc::clone(progress);
            space.report_to(Arc::new(move |at| told(MemoryStep::Map, at)));
        }
    }

    /// Finds a place for every BAR and port window.
    pub(crate) fn place(&self, topology: Topology, layout: &Layout) -> Result<Tree, LendError> {
        let windows = PlacementWindows::of(layout);
        let functions = self.seen(&topology);
        let placement = Placement::fit(&windows, &functions.iter().collect::<Vec<_>>())?;
        Ok(Tree {
            topology,
            placement,
            windows,
        })
    }

    /// The functions as the guest is to find them: at their addresses there, with their expansion ROMs.
    pub(crate) fn seen(&self, topology: &Topology) -> Vec<Function> {
        let seen = |opened: &Opened| as_seen(&opened.bound, opened.at, topology);
        self.functions.iter().map(seen).collect()
    }

    /// Wires every function to the guest and places it on the board's PCI bus, or none of them.
    pub(crate) fn give(
        self,
        populated: &Populated,
        board: &Board,
        tree: &Tree,
        events: &EventSink,
    ) -> Result<(Vec<Given>, Held), LendError> {
        let guest = Guest::of(populated);
        let mut given = Vec::new();
        for Opened { at, spec, bound } in self.functions {
            let view = tree.view((at, &bound), spec.policy, populated, events)?;
            let assigned = bound.assign(&guest, view)?;
            let placed = board.pci().place(at, assigned.config());
            given.push(Given {
                placed: placed.map_err(|source| LendError::Place { device: at, source })?,
                assigned,
                spec,
            });
        }
        Ok((given, (self.cards, self.space)))
    }
}
