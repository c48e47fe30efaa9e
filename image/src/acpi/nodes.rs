//! SRAT and SLIT: which CPUs and memory are near to each other, and how far nodes are apart.

use pellucid_partition::RamRange;
use serde::{Deserialize, Serialize};

use super::bytes::table;

/// The NUMA nodes of a guest, which have the numbers from 0 on as proximity domains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcpiNodes {
    /// The node of each CPU, in the order of [`AcpiBoard::apic_ids`](super::AcpiBoard::apic_ids).
    pub cpus: Vec<u32>,
    /// RAM with its nodes.
    pub memory: Vec<RamRange>,
    /// Distance from each node to each: 10 to itself, more to others, 255 where there is no way (ACPI 6.5 section 5.2.17).
    pub distances: Vec<Vec<u8>>,
}

impl AcpiNodes {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.distances.len()
    }

    /// What is wrong with them on a board of `cpus` CPUs.
    pub(crate) fn fault(&self, cpus: usize) -> Option<&'static str> {
        let count = self.count();
        let is_far = |(from, row): (usize, &Vec<u8>)| {
            let wrong =
                |(to, distance): (usize, &u8)| (from == to) != (*distance == HERE) || *distance < HERE;
            row.len() != count || row.iter().enumerate().any(wrong)
        };
        let known = |node: u32| (node as usize) < count;
        if count == 0 || count > MOST {
            Some("a guest has 1 to 64 of them")
        } else if self.cpus.len() != cpus || !self.cpus.iter().all(|node| known(*node)) {
            Some("each CPU is in one of them")
        } else if !self
            .memory
            .iter()
            .all(|range| known(range.node) && range.start < range.end)
        {
            Some("each range of memory is in one of them, and is not empty")
        } else if self.distances.iter().enumerate().any(is_far) {
            Some("distances are one row per node, 10 to itself and more to each other")
        } else {
            None
        }
    }

    /// The SRAT.
    pub(crate) fn affinity(&self, apic_ids: &[u32]) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&1u32.to_le_bytes());
        body.extend_from_slice(&[0; 8]);
        for (&id, &node) in apic_ids.iter().zip(&self.cpus) {
            match u8::try_from(id) {
                Ok(short) if short < 0xff => local_apic(&mut body, short, node),
                _ => local_x2apic(&mut body, id, node),
            }
        }
        for range in &self.memory {
            memory(&mut body, range);
        }
        table(*b"SRAT", 3, &body)
    }

    /// The SLIT.
    pub(crate) fn distances(&self) -> Vec<u8> {
        let mut body = (self.count() as u64).to_le_bytes().to_vec();
        body.extend(self.distances.iter().flatten());
        table(*b"SLIT", 1, &body)
    }
}

fn local_apic(body: &mut Vec<u8>, id: u8, node: u32) {
    let [low, high @ ..] = node.to_le_bytes();
    body.extend_from_slice(&[0, 16, low, id]);
    body.extend_from_slice(&ENABLED.to_le_bytes());
    body.push(0);
    body.extend_from_slice(&high);
    body.extend_from_slice(&0u32.to_le_bytes());
}

fn local_x2apic(body: &mut Vec<u8>, id: u32, node: u32) {
    body.extend_from_slice(&[2, 24, 0, 0]);
    for word in [node, id, ENABLED, 0, 0] {
        body.extend_from_slice(&word.to_le_bytes());
    }
}

fn memory(body: &mut Vec<u8>, range: &RamRange) {
    body.extend_from_slice(&[1, 40]);
    body.extend_from_slice(&range.node.to_le_bytes());
    body.extend_from_slice(&[0; 2]);
    body.extend_from_slice(&range.start.to_le_bytes());
    body.extend_from_slice(&range.size().to_le_bytes());
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&ENABLED.to_le_bytes());
    body.extend_from_slice(&[0; 8]);
}

const ENABLED: u32 = 1;
const HERE: u8 = 10;
const MOST: usize = 64;
