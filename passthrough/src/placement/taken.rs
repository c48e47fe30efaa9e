//! What of the guest's windows is taken, and the next one's place in what is left.

use std::ops::Range;

use super::pool::{Pool, apart, granule};
use super::tree::{Hulls, hulls_as_is, pack};
use super::{PlacementWindows, Wanted};
use crate::error::PlacementError;

/// What is placed already: whether it is I/O, and where.
pub(super) struct Taken<'w> {
    windows: &'w PlacementWindows,
    ranges: Vec<(bool, Range<u64>)>,
}

impl<'w> Taken<'w> {
    pub(super) fn new(windows: &'w PlacementWindows) -> Taken<'w> {
        let ranges = Vec::new();
        Taken { windows, ranges }
    }

    fn window(&self, pool: Pool) -> (&'static str, &Range<u64>) {
        match pool {
            Pool::Memory | Pool::Prefetchable32 => ("32-bit memory", &self.windows.memory32),
            Pool::Prefetchable64 => ("64-bit memory", &self.windows.memory64),
            Pool::Io => ("I/O", &self.windows.io),
        }
    }

    /// Takes the addresses that the host has for all pools, or none of them.
    pub(super) fn keep_all(&mut self, wanted: &[Wanted]) -> Option<Vec<(Pool, Hulls)>> {
        let before = self.ranges.len();
        let mut kept = Vec::new();
        for pool in Pool::ALL {
            let Some((whole, hulls)) = self.keep(pool, wanted) else {
                self.ranges.truncate(before);
                return None;
            };
            self.ranges.push((pool.is_io(), whole));
            kept.push((pool, hulls));
        }
        Some(kept)
    }

    /// What a pool's BARs take at the host's addresses, and the ports' windows, if that may be.
    fn keep(&self, pool: Pool, wanted: &[Wanted]) -> Option<(Range<u64>, Hulls)> {
        let members: Vec<&Wanted> = wanted.iter().filter(|want| want.pool == pool).collect();
        let ranges: Vec<Range<u64>> = members
            .iter()
            .map(|want| want.bar.address..want.bar.address.saturating_add(want.bar.size))
            .collect();
        let (Some(start), Some(end)) = (
            ranges.iter().map(|range| range.start).min(),
            ranges.iter().map(|range| range.end).max(),
        ) else {
            return Some((0..0, Hulls::new()));
        };
        let behind_port = wanted.iter().any(|want| !want.path.is_empty());
        let unit = granule(pool, behind_port);
        let whole = start / unit * unit..end.checked_next_multiple_of(unit)?;
        let window = self.window(pool).1;
        let inside = window.start <= whole.start && whole.end <= window.end;
        let aligned = members.iter().all(|want| want.bar.address % want.bar.size == 0);
        let free = self
            .ranges
            .iter()
            .all(|(io, range)| *io != pool.is_io() || apart(range, &whole));
        let own_apart = ranges
            .iter()
            .enumerate()
            .all(|(at, one)| ranges[..at].iter().all(|other| apart(one, other)));
        let hulls = hulls_as_is(pool, wanted)?;
        (inside && aligned && free && own_apart).then_some((whole, hulls))
    }

    /// Packs a pool's BARs, and the windows of their ports, into the first gap that takes them all.
    pub(super) fn pack(&mut self, pool: Pool, wanted: &mut [Wanted]) -> Result<Hulls, PlacementError> {
        let largest = wanted
            .iter()
            .filter(|want| want.pool == pool)
            .max_by_key(|want| want.bar.size);
        let Some(largest) = largest.map(|want| (want.function, want.bar)) else {
            return Ok(Hulls::new());
        };
        let packed = pack(pool, wanted);
        let unit = granule(pool, wanted.iter().any(|want| !want.path.is_empty()));
        let align = packed.align().max(unit);
        let (name, window) = self.window(pool);
        let no_room = || PlacementError::NoRoom {
            device: largest.0,
            bar: largest.1.index,
            size: largest.1.size,
            window: name,
            start: window.start,
            end: window.end,
        };
        let size = packed.size().checked_next_multiple_of(unit).ok_or_else(no_room)?;
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
        self.ranges.push((pool.is_io(), start..start + size));
        Ok(packed.at(start, wanted))
    }
}
