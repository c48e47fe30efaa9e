//! The windows of nested ports: each holds those of the ports behind it, and no two side by side meet.

use std::collections::BTreeMap;
use std::ops::Range;

use pellucid_partition::Bdf;

use super::Wanted;
use super::pool::{Pool, apart, granule, own};

/// What each port of a tree forwards of one pool.
pub(super) type Hulls = BTreeMap<Bdf, Range<u64>>;

/// Members laid out from 0: how much they take, at which alignment, and where each is.
#[derive(Default)]
struct Block {
    size: u64,
    align: u64,
    places: Vec<(usize, u64)>,
    hulls: Hulls,
}

/// The hulls of the members' own addresses; `None` if two ports side by side would forward the same.
pub(super) fn hulls_as_is(pool: Pool, wanted: &[Wanted]) -> Option<Hulls> {
    let mut hulls = Hulls::new();
    let unit = granule(pool, true);
    for want in wanted.iter().filter(|want| want.pool == pool) {
        let (start, end) = (want.bar.address, want.bar.address.checked_add(want.bar.size)?);
        let (start, end) = (start / unit * unit, end.checked_next_multiple_of(unit)?);
        for port in &want.path {
            let hull = hulls.entry(*port).or_insert(start..end);
            *hull = hull.start.min(start)..hull.end.max(end);
        }
    }
    let paths: Vec<&[Bdf]> = wanted.iter().map(|want| want.path.as_slice()).collect();
    let nested = |one: &Bdf, other: &Bdf| {
        paths
            .iter()
            .any(|path| path.contains(one) && path.contains(other))
    };
    let sound = hulls.iter().all(|(one, hull)| {
        let mut others = hulls
            .iter()
            .filter(|(other, _)| *other != one && !nested(one, other));
        others.all(|(_, other)| apart(hull, other))
    });
    sound.then_some(hulls)
}

/// Packs a pool's members as tightly as their ports' windows allow: size, alignment, and what to do with the start that is found.
pub(super) fn pack(pool: Pool, wanted: &[Wanted]) -> Packed {
    let members: Vec<usize> = (0..wanted.len())
        .filter(|index| wanted[*index].pool == pool)
        .collect();
    Packed(block(pool, wanted, &members, 0))
}

/// Members of one pool, packed and not yet anywhere.
pub(super) struct Packed(Block);

impl Packed {
    pub(super) fn size(&self) -> u64 {
        self.0.size
    }

    pub(super) fn align(&self) -> u64 {
        self.0.align
    }

    /// Gives the members their addresses, and each port its window.
    pub(super) fn at(self, start: u64, wanted: &mut [Wanted]) -> Hulls {
        for (index, offset) in self.0.places {
            wanted[index].address = start + offset;
        }
        let moved = |(port, hull): (Bdf, Range<u64>)| (port, start + hull.start..start + hull.end);
        self.0.hulls.into_iter().map(moved).collect()
    }
}

/// Lays out the members whose paths agree up to `depth`: those behind no further port, and the blocks of those behind each.
fn block(pool: Pool, wanted: &[Wanted], members: &[usize], depth: usize) -> Block {
    let mut behind: BTreeMap<Bdf, Vec<usize>> = BTreeMap::new();
    let mut parts = Vec::new();
    for index in members {
        let want = &wanted[*index];
        match want.path.get(depth) {
            Some(port) => behind.entry(*port).or_default().push(*index),
            None => parts.push(Block {
                size: want.bar.size.max(own(pool)),
                align: want.bar.size.max(own(pool)),
                places: vec![(*index, 0)],
                hulls: Hulls::new(),
            }),
        }
    }
    for (port, members) in behind {
        let mut part = block(pool, wanted, &members, depth + 1);
        let unit = granule(pool, true);
        (part.size, part.align) = (part.size.next_multiple_of(unit), part.align.max(unit));
        part.hulls.insert(port, 0..part.size);
        parts.push(part);
    }
    // The most aligned first: powers of two then need no padding.
    parts.sort_by_key(|part| std::cmp::Reverse((part.align, part.size)));
    let mut whole = Block {
        align: 1,
        ..Block::default()
    };
    for part in parts {
        let start = whole.size.next_multiple_of(part.align);
        whole.align = whole.align.max(part.align);
        whole
            .places
            .extend(part.places.iter().map(|(index, offset)| (*index, start + offset)));
        let moved = part
            .hulls
            .into_iter()
            .map(|(port, hull)| (port, start + hull.start..start + hull.end));
        whole.hulls.extend(moved);
        whole.size = start + part.size;
    }
    whole
}
