//! Root buses besides 00, and what of the board's windows leads below each.

use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};

use super::board::AcpiBoard;
use super::nodes::AcpiNodes;
use crate::error::AcpiError;

/// A root bus besides 00: a host bridge of its own. It has the bus numbers up to the next root bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootBus {
    /// Its number.
    pub bus: u8,
    /// Guest-physical addresses that lead below it, inside the board's windows.
    pub memory: Vec<Range<u64>>,
    /// I/O ports that do, from 0xd00 on.
    pub io: Vec<Range<u64>>,
    /// The NUMA node that what is below it is near to.
    pub node: Option<u32>,
}

/// What a host bridge decodes. Nothing is decoded by two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootBridge {
    /// Bus numbers, the root bus first.
    pub buses: RangeInclusive<u8>,
    /// Guest-physical addresses.
    pub memory: Vec<Range<u64>>,
    /// I/O ports; the ports of PCI configuration are in none.
    pub io: Vec<Range<u64>>,
    /// Its NUMA node.
    pub node: Option<u32>,
}

impl AcpiBoard {
    /// The host bridges by bus. That of bus 00 has what no other has.
    #[must_use]
    pub fn root_bridges(&self) -> Vec<RootBridge> {
        let before = |next: Option<&RootBus>| next.map_or(self.last_bus(), |next| next.bus.saturating_sub(1));
        let rest = |whole: Vec<Range<u64>>, parts: fn(&RootBus) -> &Vec<Range<u64>>| {
            let parts = self.root_buses.iter().flat_map(parts);
            parts.fold(whole, |whole, part| without(&whole, part))
        };
        let first = RootBridge {
            buses: 0..=before(self.root_buses.first()),
            memory: rest(vec![self.mmio32.clone(), self.mmio64.clone()], |root| {
                &root.memory
            }),
            io: rest(vec![0..CONFIG_PORTS.start, CONFIG_PORTS.end..IO_END], |root| {
                &root.io
            }),
            node: None,
        };
        let nexts = self.root_buses.iter().skip(1).map(Some).chain([None]);
        let further = self.root_buses.iter().zip(nexts).map(|(root, next)| RootBridge {
            buses: root.bus..=before(next),
            memory: root.memory.clone(),
            io: root.io.clone(),
            node: root.node,
        });
        std::iter::once(first).chain(further).collect()
    }

    /// Refuses root buses that are not in order, or that have what is not the board's, or another's.
    pub(super) fn check_roots(&self) -> Result<(), AcpiError> {
        let nodes = self.nodes.as_ref().map_or(0, AcpiNodes::count);
        let (mut memory, mut io): (Vec<&Range<u64>>, Vec<&Range<u64>>) = Default::default();
        let mut before = 0;
        for root in &self.root_buses {
            let refuse = |reason| {
                Err(AcpiError::RootBus {
                    bus: root.bus,
                    reason,
                })
            };
            if root.bus <= before || root.bus > self.last_bus() {
                return refuse(
                    "root buses are in ascending order, above 00, inside the configuration window",
                );
            }
            before = root.bus;
            for range in &root.memory {
                let windows = [&self.mmio32, &self.mmio64];
                if !windows.into_iter().any(|window| is_inside(range, window)) {
                    return refuse("its memory is outside of the board's windows");
                }
                if memory.iter().any(|other| meet(range, other)) {
                    return refuse("its memory is listed twice");
                }
                memory.push(range);
            }
            for range in &root.io {
                if !is_inside(range, &(CONFIG_PORTS.end..IO_END)) {
                    return refuse("its I/O ports are not between 0xd00 and 0xffff");
                }
                if io.iter().any(|other| meet(range, other)) {
                    return refuse("its I/O ports are listed twice");
                }
                io.push(range);
            }
            if root.node.is_some_and(|node| node as usize >= nodes) {
                return refuse("it is near to a node that is not there");
            }
        }
        Ok(())
    }
}

fn meet(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn is_inside(range: &Range<u64>, window: &Range<u64>) -> bool {
    window.start <= range.start && range.start < range.end && range.end <= window.end
}

/// What of `whole` is not in `part`.
fn without(whole: &[Range<u64>], part: &Range<u64>) -> Vec<Range<u64>> {
    let cut = |range: &Range<u64>| {
        let below = range.start..range.end.min(part.start);
        let above = range.start.max(part.end)..range.end;
        [below, above].into_iter().filter(|left| !left.is_empty())
    };
    whole.iter().flat_map(cut).collect()
}

/// The address and data registers of PCI configuration, and the reset register among them.
pub(super) const CONFIG_PORTS: Range<u64> = 0xcf8..0xd00;
const IO_END: u64 = 0x1_0000;
