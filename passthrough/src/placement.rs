//! Where BARs lie in a guest, and the windows of the ports before them. Pure.
//!
//! The host's own addresses are kept for everything behind one port of the root bus if they fit the guest's windows and collide with
//! nothing; otherwise what is behind that port is packed anew, port by port, largest first, at natural alignment.

mod pool;
mod taken;
mod tree;

use std::collections::BTreeMap;
use std::ops::Range;

use pellucid_partition::{Bdf, Layout};

use crate::bars::BarShape;
use crate::error::PlacementError;
use crate::inventory::{Bar, Function};
use pool::{Pool, pool};
use taken::Taken;
use tree::Hulls;

/// The guest's device windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacementWindows {
    /// Memory below 4 GiB.
    pub memory32: Range<u64>,
    /// Memory above.
    pub memory64: Range<u64>,
    /// I/O ports.
    pub io: Range<u64>,
}

/// What a port forwards: the memory, prefetchable and I/O windows of a PCI bridge. Empty ranges are closed windows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortWindows {
    /// Below 4 GiB, in units of 1 MiB.
    pub memory: Range<u64>,
    /// Prefetchable, in units of 1 MiB.
    pub prefetchable: Range<u64>,
    /// I/O, in units of 4 KiB.
    pub io: Range<u64>,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    bars: BTreeMap<Bdf, Vec<BarShape>>,
    ports: BTreeMap<Bdf, PortWindows>,
}

impl PlacementWindows {
    /// Those of a partition's guest-physical map.
    #[must_use]
    pub fn of(layout: &Layout) -> PlacementWindows {
        PlacementWindows {
            memory32: layout.mmio32(),
            memory64: layout.mmio64(),
            io: IO,
        }
    }
}

impl Placement {
    /// Places the BARs of `functions`, each behind its own port of the host or on a root bus.
    pub fn fit(windows: &PlacementWindows, functions: &[&Function]) -> Result<Placement, PlacementError> {
        // What is behind one port of the root bus, nested ports and all, is placed as one: its window holds theirs.
        let mut groups: BTreeMap<Option<Bdf>, Vec<&Function>> = BTreeMap::new();
        for function in functions {
            let top = function.upstream.first().copied();
            groups.entry(top).or_default().push(function);
        }
        let mut units = Vec::new();
        for (port, members) in groups {
            let wanted = wanted(windows, port.is_some(), &members);
            match port {
                Some(_) => units.push(wanted),
                // On a root bus no window binds BARs together: each is for itself.
                None => units.extend(wanted.into_iter().map(|want| vec![want])),
            }
        }
        let mut taken = Taken::new(windows);
        let mut placement = Placement::default();
        for function in functions {
            let unplaced = function.bars.iter().filter(|bar| is_unplaced(bar));
            let shapes = unplaced.map(|bar| BarShape::of(bar, 0));
            placement.bars.entry(function.bdf).or_default().extend(shapes);
        }
        let mut moved = Vec::new();
        // Those that keep the host's addresses come first, so that the others fill the gaps.
        for wanted in units {
            match taken.keep_all(&wanted) {
                Some(hulls) => placement.add(&wanted, hulls),
                None => moved.push(wanted),
            }
        }
        for mut wanted in moved {
            let mut hulls = Vec::new();
            for pool in Pool::ALL {
                hulls.push((pool, taken.pack(pool, &mut wanted)?));
            }
            placement.add(&wanted, hulls);
        }
        Ok(placement)
    }

    /// The BARs of a function as the guest finds them.
    #[must_use]
    pub fn bars(&self, function: Bdf) -> &[BarShape] {
        self.bars.get(&function).map(Vec::as_slice).unwrap_or_default()
    }

    /// The windows of each port.
    #[must_use]
    pub fn ports(&self) -> &BTreeMap<Bdf, PortWindows> {
        &self.ports
    }

    fn add(&mut self, wanted: &[Wanted], hulls: Vec<(Pool, Hulls)>) {
        for want in wanted {
            let shape = BarShape::of(&want.bar, want.address);
            self.bars.entry(want.function).or_default().push(shape);
            for port in &want.path {
                self.ports.entry(*port).or_default();
            }
        }
        for shapes in self.bars.values_mut() {
            shapes.sort_by_key(|shape| shape.index);
        }
        for (pool, port, hull) in hulls
            .into_iter()
            .flat_map(|(pool, hulls)| hulls.into_iter().map(move |(port, hull)| (pool, port, hull)))
        {
            let windows = self.ports.entry(port).or_default();
            match pool {
                Pool::Memory => windows.memory = hull,
                Pool::Prefetchable32 | Pool::Prefetchable64 => windows.prefetchable = hull,
                Pool::Io => windows.io = hull,
            }
        }
    }
}

/// One BAR to place.
struct Wanted {
    function: Bdf,
    /// The ports before it, outermost first.
    path: Vec<Bdf>,
    bar: Bar,
    pool: Pool,
    address: u64,
}

fn wanted(windows: &PlacementWindows, behind_port: bool, members: &[&Function]) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for function in members {
        for bar in function.bars.iter().filter(|bar| !is_unplaced(bar)) {
            let pool = pool(windows, behind_port, bar);
            wanted.push(Wanted {
                function: function.bdf,
                path: function.upstream.clone(),
                bar: *bar,
                pool,
                address: bar.address,
            });
        }
    }
    // A bridge has one prefetchable window: if one of its BARs must be below 4 GiB, all are.
    if behind_port && wanted.iter().any(|want| want.pool == Pool::Prefetchable32) {
        for want in wanted.iter_mut().filter(|want| want.pool == Pool::Prefetchable64) {
            want.pool = Pool::Prefetchable32;
        }
    }
    wanted
}

/// An expansion ROM that the host has not placed: the guest's operating system does, if it wants to read it, as on the host.
fn is_unplaced(bar: &Bar) -> bool {
    bar.index == BarShape::ROM && bar.address == 0
}

/// I/O ports that no board device uses.
const IO: Range<u64> = 0x1000..0x1_0000;
