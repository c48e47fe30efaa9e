//! Fitting RAM and windows around what must stay unused.

use std::ops::Range;

use super::{FOUR_GIB, GRANULE, Layout, MIN_MEMORY, RamRange, Reach};
use crate::error::LayoutError;

impl Layout {
    /// A map for RAM of several guest nodes (bytes of each, whole pages of `page` bytes) within `reach`.
    pub(crate) fn fit(nodes: &[u64], page: u64, reach: &Reach) -> Result<Self, LayoutError> {
        let memory = nodes.iter().fold(0, |sum: u64, node| sum.saturating_add(*node));
        let bits = reach.address_bits();
        let unit = page.max(GRANULE);
        let (below, above) = (0..Self::MMIO32.start, FOUR_GIB..1 << (bits - 1));
        let pieces: Vec<_> = [&below, &above]
            .into_iter()
            .flat_map(|half| reach.pieces(half.clone(), unit))
            .collect();
        first_is_enough(&pieces, memory, unit, reach)?;
        let most = pieces.iter().map(|piece| piece.end - piece.start).sum();
        if memory > most {
            return Err(LayoutError::TooLarge { memory, most, bits });
        }
        Ok(Self {
            ram: fill(nodes, pieces),
            mmio32: window("32-bit BAR window", Self::MMIO32, LEAST_MMIO32, reach)?,
            mmio64: window(
                "64-bit BAR window",
                1 << (bits - 1)..1 << bits,
                LEAST_MMIO64,
                reach,
            )?,
            address_bits: bits,
        })
    }

    /// Refuses sizes that no kernel boots in, and sizes that are not whole 2 MiB pages.
    pub(crate) fn check_size(memory: u64) -> Result<(), LayoutError> {
        if memory < MIN_MEMORY {
            return Err(LayoutError::TooSmall {
                memory,
                least: MIN_MEMORY,
            });
        }
        if !memory.is_multiple_of(GRANULE) {
            let lower = memory / GRANULE * GRANULE;
            return Err(LayoutError::Uneven {
                memory,
                lower,
                upper: lower.saturating_add(GRANULE),
            });
        }
        Ok(())
    }
}

/// Firmware, kernel and initial RAM disk need RAM at the bottom: a hole there cannot be worked around.
fn first_is_enough(pieces: &[Range<u64>], memory: u64, unit: u64, reach: &Reach) -> Result<(), LayoutError> {
    let needed = memory.min(LEAST_BOTTOM.max(unit));
    match pieces.first() {
        Some(first) if first.start == 0 && first.end >= needed => Ok(()),
        _ => Err(refusal("RAM at the bottom", &(0..needed), reach)),
    }
}

/// Gives the pieces to the nodes in order. There is enough.
fn fill(nodes: &[u64], pieces: Vec<Range<u64>>) -> Vec<RamRange> {
    let mut ram = Vec::new();
    let mut pieces = pieces.into_iter();
    let mut piece = 0..0;
    for (node, &size) in (0..).zip(nodes) {
        let mut left = size;
        while left > 0 {
            if piece.is_empty() {
                let Some(next) = pieces.next() else { return ram };
                piece = next;
            }
            let end = piece.start + left.min(piece.end - piece.start);
            left -= end - piece.start;
            ram.push(RamRange {
                start: piece.start,
                end,
                node,
            });
            piece.start = end;
        }
    }
    ram
}

/// The largest free piece of a window.
fn window(
    name: &'static str,
    range: Range<u64>,
    least: u64,
    reach: &Reach,
) -> Result<Range<u64>, LayoutError> {
    let pieces = reach.pieces(range.clone(), WINDOW_UNIT);
    // The last of equals: what is reserved tends to lie low.
    let largest = pieces.into_iter().max_by_key(|piece| piece.end - piece.start);
    largest
        .filter(|piece| piece.end - piece.start >= least)
        .ok_or_else(|| refusal(name, &range, reach))
}

fn refusal(what: &'static str, range: &Range<u64>, reach: &Reach) -> LayoutError {
    let hole = reach.hole_in(range);
    let (start, end) = hole.map_or((range.start, range.end), |hole| (hole.start, hole.end));
    LayoutError::Reserved {
        what,
        by: hole.map_or_else(|| "what is out of reach".to_owned(), |hole| hole.name.clone()),
        start,
        end,
    }
}

/// Bridges forward memory in units of 1 MiB.
const WINDOW_UNIT: u64 = 1 << 20;
const LEAST_MMIO32: u64 = 64 << 20;
const LEAST_MMIO64: u64 = 1 << 30;
const LEAST_BOTTOM: u64 = 256 << 20;
