//! Where BARs lie in a guest, and the windows of the ports before them. Pure.
//!
//! The host's own addresses are kept for everything behind one port if they fit the guest's windows and collide with nothing;
//! otherwise what is behind that port is packed anew, largest first, at natural alignment.

mod pool;

use std::collections::BTreeMap;
use std::ops::Range;

use pellucid_partition::{Bdf, Layout};

use crate::bars::BarShape;
use crate::error::PlacementError;
use crate::inventory::{Bar, Function};
use pool::{Pool, granule, own, pool};

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
        let mut groups: BTreeMap<Option<Bdf>, Vec<&Function>> = BTreeMap::new();
        for function in functions {
            groups.entry(function.port()).or_default().push(function);
        }
        let mut units = Vec::new();
        for (port, members) in groups {
            let wanted = wanted(windows, port.is_some(), &members);
            match port {
                Some(_) => units.push((port, wanted)),
                // On a root bus no window binds BARs together: each is for itself.
                None => units.extend(wanted.into_iter().map(|want| (None, vec![want]))),
            }
        }
        let mut taken = Taken {
            windows,
            ranges: Vec::new(),
        };
        let mut placement = Placement::default();
        for function in functions {
            let unplaced = function.bars.iter().filter(|bar| is_unplaced(bar));
            let shapes = unplaced.map(|bar| BarShape::of(bar, 0));
            placement.bars.entry(function.bdf).or_default().extend(shapes);
        }
        let mut moved = Vec::new();
        // Those that keep the host's addresses come first, so that the others fill the gaps.
        for (port, wanted) in units {
            match taken.keep_all(port.is_some(), &wanted) {
                Some(hulls) => placement.add(port, &wanted, hulls),
                None => moved.push((port, wanted)),
            }
        }
        for (port, mut wanted) in moved {
            let mut hulls = Vec::new();
            for pool in Pool::ALL {
                let hull = taken.pack(pool, port.is_some(), &mut wanted)?;
                taken.ranges.push((pool.is_io(), hull.clone()));
                hulls.push((pool, hull));
            }
            placement.add(port, &wanted, hulls);
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

    fn add(&mut self, port: Option<Bdf>, wanted: &[Wanted], hulls: Vec<(Pool, Range<u64>)>) {
        for want in wanted {
            let shape = BarShape::of(&want.bar, want.address);
            self.bars.entry(want.function).or_default().push(shape);
        }
        for shapes in self.bars.values_mut() {
            shapes.sort_by_key(|shape| shape.index);
        }
        let Some(port) = port else { return };
        let windows = self.ports.entry(port).or_default();
        for (pool, hull) in hulls {
            match pool {
                Pool::Memory => windows.memory = hull,
                Pool::Prefetchable32 | Pool::Prefetchable64 if hull.is_empty() => {}
                Pool::Prefetchable32 | Pool::Prefetchable64 => windows.prefetchable = hull,
                Pool::Io => windows.io = hull,
            }
        }
    }
}

/// One BAR to place.
struct Wanted {
    function: Bdf,
    bar: Bar,
    pool: Pool,
    address: u64,
}

/// What is placed already: whether it is I/O, and where.
struct Taken<'w> {
    windows: &'w PlacementWindows,
    ranges: Vec<(bool, Range<u64>)>,
}

impl Taken<'_> {
    fn window(&self, pool: Pool) -> (&'static str, &Range<u64>) {
        match pool {
            Pool::Memory | Pool::Prefetchable32 => ("32-bit memory", &self.windows.memory32),
            Pool::Prefetchable64 => ("64-bit memory", &self.windows.memory64),
            Pool::Io => ("I/O", &self.windows.io),
        }
    }

    /// Takes the hulls of all pools at the host's addresses, or none of them.
    fn keep_all(&mut self, behind_port: bool, wanted: &[Wanted]) -> Option<Vec<(Pool, Range<u64>)>> {
        let before = self.ranges.len();
        let mut hulls = Vec::new();
        for pool in Pool::ALL {
            let Some(kept) = self.keep(pool, behind_port, wanted) else {
                self.ranges.truncate(before);
                return None;
            };
            self.ranges.push((pool.is_io(), kept.1.clone()));
            hulls.push(kept);
        }
        Some(hulls)
    }

    /// The hull of a pool's BARs at the host's addresses, if that may be.
    fn keep(&self, pool: Pool, behind_port: bool, wanted: &[Wanted]) -> Option<(Pool, Range<u64>)> {
        let members: Vec<Range<u64>> = wanted
            .iter()
            .filter(|want| want.pool == pool)
            .map(|want| want.bar.address..want.bar.address.saturating_add(want.bar.size))
            .collect();
        let (Some(start), Some(end)) = (
            members.iter().map(|range| range.start).min(),
            members.iter().map(|range| range.end).max(),
        ) else {
            return Some((pool, 0..0));
        };
        let unit = granule(pool, behind_port);
        let hull = start / unit * unit..end.checked_next_multiple_of(unit)?;
        let window = self.window(pool).1;
        let inside = window.start <= hull.start && hull.end <= window.end;
        let aligned = wanted
            .iter()
            .filter(|want| want.pool == pool)
            .all(|want| want.bar.address % want.bar.size == 0);
        let free = self
            .ranges
            .iter()
            .all(|(io, range)| *io != pool.is_io() || apart(range, &hull));
        let own_apart = members
            .iter()
            .enumerate()
            .all(|(at, one)| members[..at].iter().all(|other| apart(one, other)));
        (inside && aligned && free && own_apart).then_some((pool, hull))
    }

    /// Packs a pool's BARs into the first gap that takes them all.
    fn pack(
        &self,
        pool: Pool,
        behind_port: bool,
        wanted: &mut [Wanted],
    ) -> Result<Range<u64>, PlacementError> {
        let mut members: Vec<&mut Wanted> = wanted.iter_mut().filter(|want| want.pool == pool).collect();
        members.sort_by_key(|want| (std::cmp::Reverse(want.bar.size), want.function, want.bar.index));
        let Some(largest) = members.first().map(|want| (want.function, want.bar)) else {
            return Ok(0..0);
        };
        let unit = granule(pool, behind_port);
        let align = largest.1.size.max(unit);
        // Largest first and powers of two: the sum of sizes needs no padding, but each has at least a page of its own.
        let total: u64 = members.iter().map(|want| want.bar.size.max(own(pool))).sum();
        let (name, window) = self.window(pool);
        let no_room = || PlacementError::NoRoom {
            device: largest.0,
            bar: largest.1.index,
            size: largest.1.size,
            window: name,
            start: window.start,
            end: window.end,
        };
        let size = total.checked_next_multiple_of(unit).ok_or_else(no_room)?;
        let mut start = window.start.checked_next_multiple_of(align).ok_or_else(no_room)?;
        loop {
            let end = start
                .checked_add(size)
                .filter(|end| *end <= window.end)
                .ok_or_else(no_room)?;
            let hit = self
                .ranges
                .iter()
                .find(|(io, range)| *io == pool.is_io() && !apart(range, &(start..end)));
            let Some((_, range)) = hit else { break };
            start = range.end.checked_next_multiple_of(align).ok_or_else(no_room)?;
        }
        let mut at = start;
        for want in members {
            want.address = at;
            at += want.bar.size.max(own(pool));
        }
        Ok(start..start + size)
    }
}

fn wanted(windows: &PlacementWindows, behind_port: bool, members: &[&Function]) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for function in members {
        for bar in function.bars.iter().filter(|bar| !is_unplaced(bar)) {
            let pool = pool(windows, behind_port, bar);
            wanted.push(Wanted {
                function: function.bdf,
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

fn apart(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.is_empty() || other.is_empty() || one.end <= other.start || other.end <= one.start
}

/// I/O ports that no board device uses.
const IO: Range<u64> = 0x1000..0x1_0000;
