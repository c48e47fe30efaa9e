//! Whether a host carries what is asked of it: each question answered with a place in it or with what would fit.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{CpuMode, CpuRequest, PageSize, PartitionSpec};
use crate::error::PlanError;
use crate::inventory::{Cpu, Inventory, Node, list_text};

/// Whether the name can name a partition: it becomes a file name of the ledger.
pub(super) fn name(spec: &PartitionSpec) -> Result<(), PlanError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name = &spec.name;
    let good = (1..=64).contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    match good {
        true => Ok(()),
        false => Err(PlanError::Name { name: name.clone() }),
    }
}

/// How many vCPUs, and the host CPU of each where they are pinned.
pub(super) fn cpus(inventory: &Inventory, spec: &PartitionSpec) -> Result<(usize, Vec<usize>), PlanError> {
    if let Some(node) = spec.node
        && !inventory.nodes.iter().any(|n| n.id == node)
    {
        let nodes = list_text(inventory.nodes.iter().map(|n| n.id as usize));
        return Err(PlanError::NoSuchNode { node, nodes });
    }
    let on_node = |node| spec.node.is_none_or(|wanted| wanted == node);
    let usable: Vec<_> = inventory.usable_cpus().filter(|cpu| on_node(cpu.node)).collect();
    let asked = match &spec.cpus {
        CpuRequest::Count(count) => *count,
        CpuRequest::List(list) => list.len(),
    };
    let most = inventory
        .kvm
        .as_ref()
        .map_or(MOST_VCPUS, |kvm| kvm.max_vcpus.min(MOST_VCPUS));
    if asked == 0 || asked > most {
        return Err(PlanError::CpuCount { asked, most });
    }
    match (&spec.cpus, spec.mode) {
        (CpuRequest::List(list), _) => named(list, &usable).map(|()| (asked, list.clone())),
        (CpuRequest::Count(_), CpuMode::Shared) => Ok((asked, Vec::new())),
        (CpuRequest::Count(_), CpuMode::Dedicated) => {
            let most = usable
                .len()
                .min(inventory.usable_cpus().count().saturating_sub(1));
            match asked <= most {
                true => Ok((asked, chosen(usable, asked))),
                false => Err(PlanError::TooFewCpus { asked, most }),
            }
        }
    }
}

/// Whether each of `list` is usable, and in it once.
fn named(list: &[usize], usable: &[&Cpu]) -> Result<(), PlanError> {
    let ids: BTreeSet<_> = usable.iter().map(|cpu| cpu.id).collect();
    let mut seen = BTreeSet::new();
    for &cpu in list {
        if !ids.contains(&cpu) {
            let usable = list_text(ids);
            return Err(PlanError::NoSuchCpu { cpu, usable });
        }
        if !seen.insert(cpu) {
            return Err(PlanError::CpuTwice { cpu });
        }
    }
    Ok(())
}

/// The highest CPUs, isolated ones before others: interrupts and housekeeping tend to live on CPU 0.
fn chosen(mut usable: Vec<&Cpu>, count: usize) -> Vec<usize> {
    usable.sort_by_key(|cpu| (!cpu.isolated, Reverse(cpu.id)));
    let mut chosen: Vec<_> = usable.iter().take(count).map(|cpu| cpu.id).collect();
    chosen.sort_unstable();
    chosen
}

/// Whether the memory is there, in the pages and on the node that were asked for.
pub(super) fn memory(inventory: &Inventory, spec: &PartitionSpec) -> Result<(), PlanError> {
    if let Some(limit) = inventory.memlock
        && spec.locked
        && spec.memory > limit
    {
        return Err(PlanError::Memlock {
            asked: spec.memory,
            limit,
        });
    }
    let nodes = || {
        inventory
            .nodes
            .iter()
            .filter(|n| spec.node.is_none_or(|wanted| wanted == n.id))
    };
    let sum = |of: fn(&Node) -> u64| nodes().map(of).fold(0, u64::saturating_add);
    let available = match (spec.pages, spec.node) {
        (PageSize::Size4K, None) => inventory.memory_available,
        (PageSize::Size4K, Some(_)) => sum(|n| n.free),
        (PageSize::Size2M, _) => sum(|n| n.free_2m).saturating_mul(PageSize::Size2M.bytes()),
        (PageSize::Size1G, _) => sum(|n| n.free_1g).saturating_mul(PageSize::Size1G.bytes()),
    };
    let whole = spec.memory.is_multiple_of(spec.pages.bytes());
    if whole && spec.memory <= available {
        return Ok(());
    }
    let remedy = match spec.pages {
        PageSize::Size4K => "ask for less, or free some".to_owned(),
        pages if !whole => format!("ask for whole {pages} pages"),
        pages => format!(
            "reserve more in /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages",
            pages.bytes() >> 10
        ),
    };
    Err(PlanError::Memory {
        asked: spec.memory,
        pages: spec.pages,
        place: spec
            .node
            .map_or_else(|| "this host".to_owned(), |node| format!("node {node}")),
        available,
        remedy,
    })
}

/// xAPIC ids are one byte, and 255 means all.
const MOST_VCPUS: usize = 255;
