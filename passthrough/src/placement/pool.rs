//! Which BARs share a window of a bridge, and in what units.

use std::ops::Range;

use super::PlacementWindows;
use crate::inventory::{Bar, BarKind};

/// BARs that share a window of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pool {
    Memory,
    Prefetchable32,
    Prefetchable64,
    Io,
}

impl Pool {
    pub(super) const ALL: [Pool; 4] = [Pool::Memory, Pool::Prefetchable32, Pool::Prefetchable64, Pool::Io];

    pub(super) fn is_io(self) -> bool {
        self == Pool::Io
    }
}

pub(super) fn pool(windows: &PlacementWindows, behind_port: bool, bar: &Bar) -> Pool {
    match bar.kind {
        BarKind::Io => Pool::Io,
        // Behind a bridge only prefetchable memory may be above 4 GiB (PCI-to-PCI Bridge 1.2, 3.2.5.8).
        BarKind::Memory64 { prefetchable } if prefetchable || !behind_port => {
            let at_home = windows.memory32.contains(&bar.address);
            let small = !prefetchable && bar.size <= SMALL;
            if at_home || small {
                Pool::below(prefetchable)
            } else {
                Pool::Prefetchable64
            }
        }
        kind => Pool::below(kind.prefetchable()),
    }
}

impl Pool {
    fn below(prefetchable: bool) -> Pool {
        if prefetchable {
            Pool::Prefetchable32
        } else {
            Pool::Memory
        }
    }
}

pub(super) fn granule(pool: Pool, behind_port: bool) -> u64 {
    match (pool.is_io(), behind_port) {
        (false, true) => 1 << 20,
        (true, true) => 1 << 12,
        (false, false) => 1 << 12,
        (true, false) => 4,
    }
}

/// The least that a BAR has to itself: a page, so that no two devices share one.
pub(super) fn own(pool: Pool) -> u64 {
    if pool.is_io() { 4 } else { 1 << 12 }
}

/// Whether no address is in both.
pub(super) fn apart(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.is_empty() || other.is_empty() || one.end <= other.start || other.end <= one.start
}

/// Not worth an address above 4 GiB.
const SMALL: u64 = 16 << 20;
