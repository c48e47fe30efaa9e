//! Memory nodes: what they have, what is free of it, how far they are from each other.

use super::Node;
use super::files::{Files, kilobytes_in};
use crate::error::SurveyError;

/// Every node that is online; one node 0 where the kernel has no NUMA.
pub(super) fn survey(files: &Files<'_>) -> Result<Vec<Node>, SurveyError> {
    let numbers = files.set("sys/devices/system/node/online");
    if numbers.is_empty() {
        let mut node = node(files, 0, "proc/meminfo", "sys/kernel/mm/hugepages")?;
        node.available = files.kilobytes("proc/meminfo", "MemAvailable:")?;
        return Ok(vec![node]);
    }
    let of = |number: usize| {
        let base = format!("sys/devices/system/node/node{number}");
        let mut node = node(
            files,
            number as u32,
            &format!("{base}/meminfo"),
            &format!("{base}/hugepages"),
        )?;
        let distances = files.words(&format!("{base}/distance"));
        node.distances = distances.iter().filter_map(|word| word.parse().ok()).collect();
        Ok(node)
    };
    numbers.into_iter().map(of).collect()
}

fn node(files: &Files<'_>, id: u32, meminfo: &str, pool: &str) -> Result<Node, SurveyError> {
    let (total, free) = (
        files.kilobytes(meminfo, "MemTotal:")?,
        files.kilobytes(meminfo, "MemFree:")?,
    );
    let text = files.optional(meminfo);
    // What `MemAvailable` is made of (mm/show_mem.c); a node has no such line of its own.
    let available = ["Active(file):", "Inactive(file):", "SReclaimable:"]
        .iter()
        .filter_map(|key| kilobytes_in(&text, key))
        .fold(free, u64::saturating_add);
    let pages = |kib: u32| {
        files
            .number(&format!("{pool}/hugepages-{kib}kB/free_hugepages"))
            .unwrap_or(0)
    };
    Ok(Node {
        id,
        total,
        free,
        available: available.min(total.max(free)),
        free_2m: pages(2048),
        free_1g: pages(1_048_576),
        distances: Vec::new(),
    })
}
