//! The words of a refusal: the resource, who holds it, and what would fit.

use std::collections::BTreeMap;

use super::memory::Demand;
use super::rooms::Rooms;
use crate::error::{PlanError, in_words};
use crate::inventory::{Holder, Inventory, list_text};
use crate::spec::{PageSize, PartitionSpec};

/// A listed CPU that could not be had even if nobody held it.
pub(super) fn no_such_cpu(
    rooms: &Rooms,
    inventory: &Inventory,
    spec: &PartitionSpec,
    cpu: usize,
) -> PlanError {
    let why = match inventory.cpus.iter().find(|known| known.id == cpu) {
        None => "does not exist".to_owned(),
        Some(known) if !known.online => "is offline".to_owned(),
        Some(known) if !known.allowed => "is outside this process's cpuset".to_owned(),
        Some(known) => format!("is on node {}, which was not asked for", known.node),
    };
    PlanError::NoSuchCpu {
        cpu,
        why,
        free: free_text(rooms, spec),
    }
}

/// A listed CPU that somebody holds.
pub(super) fn held_cpu(rooms: &Rooms, spec: &PartitionSpec, cpu: usize, holder: Holder) -> PlanError {
    PlanError::CpuHeld {
        cpu,
        holder,
        free: free_text(rooms, spec),
    }
}

/// A listed CPU whose core somebody else is on.
pub(super) fn held_sibling(
    rooms: &Rooms,
    spec: &PartitionSpec,
    (cpu, sibling): (usize, usize),
    holder: Holder,
) -> PlanError {
    PlanError::SiblingHeld {
        cpu,
        sibling,
        holder,
        free: free_text(rooms, spec),
    }
}

/// Fewer CPUs than were counted, on the admitted nodes together.
pub(super) fn too_few_cpus(rooms: &Rooms, demand: &Demand<'_>, admitted: &[usize]) -> PlanError {
    let most = demand.supply(rooms, admitted).most;
    few(rooms, demand, admitted, most)
}

/// Neither on one node nor allowed on several.
pub(super) fn no_single_node(rooms: &Rooms, demand: &Demand<'_>, admitted: &[usize]) -> PlanError {
    let spec = demand.spec;
    let cpus = |node: usize| demand.supply(rooms, &[node]).most;
    let listed: usize = demand.listed.iter().sum();
    let on_it = |node: usize| demand.listed.get(node).copied().unwrap_or(0) == listed;
    let carries: Vec<usize> = admitted
        .iter()
        .copied()
        .filter(|node| cpus(*node) >= demand.cpus && on_it(*node))
        .collect();
    let room = |node: &usize| rooms.nodes[*node].room(spec.pages());
    let has_room = admitted.iter().any(|node| room(node) >= spec.memory());
    if carries.is_empty() && listed == 0 {
        let most = admitted.iter().map(|node| cpus(*node)).max().unwrap_or(0);
        return few(rooms, demand, admitted, most);
    }
    if !has_room || admitted.len() == 1 {
        let most = carries.iter().map(room).max().unwrap_or(0);
        return memory(rooms, demand, admitted, most);
    }
    let node = |node: &usize| {
        let count = match listed {
            0 => format!("{} free CPUs", cpus(*node)),
            _ => format!("{} of the CPUs", demand.listed[*node]),
        };
        let room = in_words(room(node));
        format!("node {} has {count} and {room}", rooms.nodes[*node].id)
    };
    PlanError::NoSingleNode {
        vcpus: spec.cpus().vcpus(),
        memory: spec.memory(),
        pages: spec.pages(),
        nodes: some_of(admitted.iter().map(node).collect()),
    }
}

/// Less memory than was asked for, on the admitted nodes together.
pub(super) fn no_memory(rooms: &Rooms, demand: &Demand<'_>, admitted: &[usize]) -> PlanError {
    let room = admitted
        .iter()
        .map(|node| rooms.nodes[*node].room(demand.spec.pages()));
    let most = room.fold(0, u64::saturating_add);
    memory(rooms, demand, admitted, most)
}

/// Less memory than was asked for on the host as a whole.
pub(super) fn no_memory_at_all(demand: &Demand<'_>, available: u64) -> PlanError {
    let most = available / PageSize::Size2M.bytes() * PageSize::Size2M.bytes();
    PlanError::Memory {
        asked: demand.spec.memory(),
        pages: demand.spec.pages(),
        most,
        rooms: format!("this host has {} available", in_words(available)),
        remedy: format!("ask for at most {}, or free some", in_words(most)),
    }
}

fn few(rooms: &Rooms, demand: &Demand<'_>, admitted: &[usize], most: usize) -> PlanError {
    let supply = |nodes: &[usize]| demand.supply(rooms, nodes).most;
    let others = (0..rooms.nodes.len()).filter(|node| !admitted.contains(node));
    let elsewhere: Vec<_> = others
        .map(|node| (rooms.nodes[node].id, supply(&[node])))
        .filter(|(_, count)| *count > 0)
        .map(|(id, count)| format!("node {id} has {count}"))
        .collect();
    let all: Vec<usize> = (0..rooms.nodes.len()).collect();
    let together = supply(&all);
    let mut remedies = Vec::new();
    if !elsewhere.is_empty() {
        remedies.push(some_of(elsewhere));
    }
    if demand.spec.nodes().is_single() && together > most {
        remedies.push(format!("all nodes together have {together}"));
    }
    remedies.push("ask for fewer, list CPUs by number, or share them".to_owned());
    let place = match demand.spec.nodes().named() {
        Some(nodes) if nodes.len() == 1 => format!("node {}", list_of(nodes)),
        Some(nodes) => format!("nodes {}", list_of(nodes)),
        None if demand.spec.nodes().is_single() && rooms.nodes.len() > 1 => "no one node".to_owned(),
        None => "this host".to_owned(),
    };
    let has = match place.as_str() {
        "no one node" => "has more than",
        _ => "has",
    };
    PlanError::TooFewCpus {
        asked: demand.cpus,
        most,
        place: format!("{place} {has}"),
        held: held_text(rooms, admitted),
        remedy: remedies.join("; "),
    }
}

fn memory(rooms: &Rooms, demand: &Demand<'_>, admitted: &[usize], most: u64) -> PlanError {
    let (spec, pages) = (demand.spec, demand.spec.pages());
    let room = |node: usize| rooms.nodes[node].room(pages);
    let (mine, others): (Vec<_>, Vec<_>) = (0..rooms.nodes.len()).partition(|node| admitted.contains(node));
    let mine = mine.iter().map(|node| has(rooms, *node, spec));
    let others: Vec<usize> = others.into_iter().filter(|node| room(*node) > 0).collect();
    let more = others.iter().map(|node| {
        let amount = match pages {
            PageSize::Size4K => in_words(room(*node)),
            pages => (room(*node) / pages.bytes()).to_string(),
        };
        format!("node {} has {amount}", rooms.nodes[*node].id)
    });
    let all = (0..rooms.nodes.len()).map(room).fold(0, u64::saturating_add);
    let mut remedies = Vec::new();
    if let Some(node) = others.iter().find(|node| room(**node) >= spec.memory()) {
        remedies.push(format!("take node {}", rooms.nodes[*node].id));
    } else if all >= spec.memory() {
        remedies.push("allow several nodes".to_owned());
    }
    if most > 0 {
        remedies.push(format!("ask for at most {}", in_words(most)));
    }
    remedies.push(match pages {
        PageSize::Size4K => "free some".to_owned(),
        pages => format!(
            "reserve more in /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages",
            pages.bytes() >> 10
        ),
    });
    PlanError::Memory {
        asked: spec.memory(),
        pages,
        most,
        rooms: some_of(mine.chain(more).collect()),
        remedy: remedies.join(", or "),
    }
}

/// `node 0 has 1 of 2 free 1G pages (1 held by logical server "db1")`.
fn has(rooms: &Rooms, node: usize, spec: &PartitionSpec) -> String {
    let (room, pages) = (&rooms.nodes[node], spec.pages());
    let amount = match pages {
        PageSize::Size4K => {
            let (there, asked) = (in_words(room.room(pages)), in_words(spec.memory()));
            format!("{there} of {asked} available")
        }
        pages => {
            let (there, asked) = (room.room(pages) / pages.bytes(), spec.memory() / pages.bytes());
            let size = pages.to_string().to_uppercase();
            format!("{there} of {asked} free {size} pages")
        }
    };
    let held = room.holders.iter().filter(|((size, _), _)| *size == pages);
    let held: Vec<_> = held
        .map(|((_, name), bytes)| match pages {
            PageSize::Size4K => format!("{} held by logical server {name:?}", in_words(*bytes)),
            pages => format!("{} held by logical server {name:?}", bytes / pages.bytes()),
        })
        .collect();
    let held = match held.is_empty() {
        true => String::new(),
        false => format!(" ({})", some_of(held).replace("; ", ", ")),
    };
    format!("node {} has {amount}{held}", room.id)
}

/// Who holds which CPUs of the nodes; empty if nobody holds any.
fn held_text(rooms: &Rooms, nodes: &[usize]) -> String {
    let mut held: BTreeMap<&Holder, Vec<usize>> = BTreeMap::new();
    let mine = rooms.cores.iter().filter(|core| nodes.contains(&core.node));
    for cpu in mine.flat_map(|core| &core.cpus) {
        if let Some(holder) = rooms.holder(*cpu) {
            held.entry(holder).or_default().push(*cpu);
        }
    }
    let text = |(holder, mut cpus): (&Holder, Vec<usize>)| {
        cpus.sort_unstable();
        format!("{} held by {holder}", list_text(cpus))
    };
    some_of(held.into_iter().map(text).collect())
}

/// What could be listed: CPUs that nobody holds on nodes that were asked for.
fn free_text(rooms: &Rooms, spec: &PartitionSpec) -> String {
    let cores = rooms.cores.iter();
    let admitted = cores.filter(|core| spec.nodes().admits(rooms.nodes[core.node].id));
    let mut free: Vec<usize> = admitted.flat_map(|core| core.free.iter().copied()).collect();
    free.sort_unstable();
    match free.is_empty() {
        true => "none".to_owned(),
        false => list_text(free),
    }
}

/// The first of many, and how many more there are: a refusal is one line.
fn some_of(mut parts: Vec<String>) -> String {
    let more = parts.len().saturating_sub(MOST_PARTS);
    parts.truncate(MOST_PARTS);
    if more > 0 {
        parts.push(format!("and {more} more"));
    }
    parts.join("; ")
}

fn list_of(nodes: &std::collections::BTreeSet<u32>) -> String {
    list_text(nodes.iter().map(|node| *node as usize))
}

const MOST_PARTS: usize = 6;
