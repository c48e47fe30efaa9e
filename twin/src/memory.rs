//! Memory: how much, on which nodes, and where it is in the physical address space.

use pellucid_partition::Inventory;
use serde::{Deserialize, Serialize};

use crate::files::Files;

/// The memory of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Memory {
    /// Nodes by number.
    pub nodes: Vec<MemoryNode>,
    /// What the kernel has where (`/proc/iomem`); without addresses for others than root, and then empty.
    pub map: Vec<Range>,
    /// What the firmware said (`/sys/firmware/memmap`).
    pub firmware: Vec<Range>,
}

/// A memory node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryNode {
    /// Its number.
    pub id: u32,
    /// Bytes that the kernel manages.
    pub total: u64,
    /// Relative cost of access to each node, 10 to itself; empty: not said.
    pub distances: Vec<u32>,
}

/// A range of physical addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    /// The first address.
    pub start: u64,
    /// The last address.
    pub end: u64,
    /// In how many other ranges it is.
    pub depth: u8,
    /// What it is.
    pub name: String,
}

impl Memory {
    pub(crate) fn read(files: &Files<'_>, host: Option<&Inventory>) -> Memory {
        let nodes = host.into_iter().flat_map(|host| &host.nodes);
        Memory {
            nodes: nodes
                .map(|node| MemoryNode {
                    id: node.id,
                    total: node.total,
                    distances: node.distances.clone(),
                })
                .collect(),
            map: kernel_map(files),
            firmware: firmware_map(files),
        }
    }

    /// Bytes that the kernel manages on all nodes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.nodes
            .iter()
            .fold(0, |sum, node| sum.saturating_add(node.total))
    }

    /// Ranges of RAM as the firmware told them, or as the kernel has them; adjacent ones are one.
    #[must_use]
    pub fn ram(&self) -> Vec<[u64; 2]> {
        let told = if self.firmware.is_empty() {
            &self.map
        } else {
            &self.firmware
        };
        let of_ram = told
            .iter()
            .filter(|range| range.depth == 0 && range.name == "System RAM");
        let mut ranges: Vec<[u64; 2]> = of_ram.map(|range| [range.start, range.end]).collect();
        ranges.sort_unstable();
        let mut merged: Vec<[u64; 2]> = Vec::new();
        for [start, end] in ranges {
            match merged.last_mut() {
                Some(last) if start <= last[1].saturating_add(1) => last[1] = last[1].max(end),
                _ => merged.push([start, end]),
            }
        }
        merged
    }
}

/// Lines such as `  000f0000-000fffff : System ROM`, two spaces for each range around.
fn kernel_map(files: &Files<'_>) -> Vec<Range> {
    let text = files.bytes("proc/iomem", MAP_LIMIT).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let range = |line: &str| {
        let (addresses, name) = line.split_once(" : ")?;
        let depth = (line.len() - line.trim_start_matches(' ').len()) / 2;
        let (start, end) = addresses.trim().split_once('-')?;
        Some(Range {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            depth: u8::try_from(depth).ok()?,
            name: name.trim().to_owned(),
        })
    };
    let map: Vec<Range> = text.lines().take(MOST_RANGES).filter_map(range).collect();
    if !map.is_empty() && map.iter().all(|range| range.end == 0) {
        files.note("/proc/iomem shows its addresses to root only".to_owned());
        return Vec::new();
    }
    map
}

fn firmware_map(files: &Files<'_>) -> Vec<Range> {
    let folder = "sys/firmware/memmap";
    let range = |name: String| {
        let field = |field: &str| files.text(&format!("{folder}/{name}/{field}"));
        let address = |text: String| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        Some(Range {
            start: address(field("start")?)?,
            end: address(field("end")?)?,
            depth: 0,
            name: field("type")?,
        })
    };
    let mut ranges: Vec<Range> = files.names(folder).into_iter().filter_map(range).collect();
    ranges.sort();
    ranges
}

const MAP_LIMIT: u64 = 4 << 20;
const MOST_RANGES: usize = 16384;
