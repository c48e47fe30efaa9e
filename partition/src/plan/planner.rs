//! Many plans on one host, each beside those before it.

use std::collections::HashMap;

use super::cpus::Chosen;
use super::memory::{Demand, Share};
use super::refusal;
use super::rooms::Rooms;
use super::{Plan, PlanNode};
use crate::claim::Resource;
use crate::error::PlanError;
use crate::inventory::{Holder, Inventory, list_text};
use crate::layout::{Layout, Reach};
use crate::spec::{CpuMode, CpuRequest, PageSize, PartitionSpec};

/// What is free on a host, and who has the rest: plans are fitted into it one beside the other.
///
/// It holds nothing on the host; [`Planner::hold`] and [`Planner::give_back`] are bookkeeping.
#[derive(Debug, Clone)]
pub struct Planner<'i> {
    inventory: &'i Inventory,
    rooms: Rooms,
    memory_available: u64,
    names: HashMap<String, Holder>,
}

impl<'i> Planner<'i> {
    /// The host as surveyed, with what others hold according to the inventory.
    #[must_use]
    pub fn new(inventory: &'i Inventory) -> Self {
        let mut planner = Self {
            inventory,
            rooms: Rooms::of(inventory),
            memory_available: inventory.memory_available,
            names: HashMap::new(),
        };
        for held in &inventory.held {
            if let Some(cpu) = held.cpu() {
                planner.rooms.take(cpu, &held.holder);
            } else if held.resource.kind == Resource::PARTITION {
                planner
                    .names
                    .insert(held.resource.name.clone(), held.holder.clone());
                planner.rooms.note(&held.holder, held.memory.as_ref());
            }
        }
        planner
    }

    /// Fits a partition beside all that is held, or says what does not fit, who has it, and what would fit.
    pub fn fit(&self, spec: &PartitionSpec) -> Result<Plan, PlanError> {
        self.check(spec)?;
        let mut chosen = Chosen::default();
        if let Some(list) = spec.cpus().listed() {
            chosen = self.rooms.listed(self.inventory, spec, list)?;
        }
        let demand = Demand {
            spec,
            cpus: match (spec.cpus().listed(), spec.mode()) {
                (None, CpuMode::Dedicated) => spec.cpus().vcpus(),
                _ => 0,
            },
            listed: self.count_by_node(&chosen.pinned),
        };
        if spec.pages() == PageSize::Size4K && spec.memory() > self.memory_available {
            return Err(refusal::no_memory_at_all(&demand, self.memory_available));
        }
        let binds = self.binds(&demand);
        let shares = match binds || demand.cpus > 0 {
            true => {
                let (shares, kept) = demand.place(&self.rooms)?;
                for share in shares.iter().filter(|_| demand.cpus > 0) {
                    let (node, cpus) = (share.node, share.cpus);
                    let more = self.rooms.choose(node, cpus, spec.siblings(), kept);
                    chosen.pinned.extend(more.pinned);
                    chosen.withheld.extend(more.withheld);
                }
                shares
            }
            false => Vec::new(),
        };
        self.finish(spec, chosen, if binds { &shares } else { &[] })
    }

    /// Remembers that a plan's resources are taken.
    pub fn hold(&mut self, plan: &Plan) {
        let holder = Holder {
            partition: plan.name().to_owned(),
            pid: 0,
            alive: true,
        };
        for cpu in plan.held_cpus() {
            self.rooms.take(cpu, &holder);
        }
        self.names.insert(holder.partition.clone(), holder);
        self.memory(plan, |room, bytes| *room = room.saturating_sub(bytes));
        for (node, bytes) in self.rooms_of(plan) {
            let key = (plan.pages(), plan.name().to_owned());
            *self.rooms.nodes[node].holders.entry(key).or_default() += bytes;
        }
    }

    /// Forgets a plan that was held.
    pub fn give_back(&mut self, plan: &Plan) {
        for cpu in plan.held_cpus() {
            self.rooms.put_back(cpu);
        }
        self.names.remove(plan.name());
        self.memory(plan, |room, bytes| *room = room.saturating_add(bytes));
        for (node, _) in self.rooms_of(plan) {
            let key = (plan.pages(), plan.name().to_owned());
            self.rooms.nodes[node].holders.remove(&key);
        }
    }

    /// What can be refused without looking for a place.
    fn check(&self, spec: &PartitionSpec) -> Result<(), PlanError> {
        let asked = spec.cpus().vcpus();
        let most = self
            .inventory
            .kvm
            .as_ref()
            .map_or(CpuRequest::MOST, |kvm| kvm.max_vcpus);
        if asked > most {
            return Err(PlanError::CpuCount { asked, most });
        }
        if let Some(holder) = self.names.get(spec.name()) {
            return Err(PlanError::NameHeld {
                name: spec.name().to_owned(),
                holder: holder.clone(),
            });
        }
        let known = |node: u32| self.inventory.nodes.iter().any(|n| n.id == node);
        let named = spec.nodes().named().into_iter().flatten();
        if let Some(&node) = named.clone().find(|node| !known(**node)) {
            let nodes = list_text(self.inventory.nodes.iter().map(|n| n.id as usize));
            return Err(PlanError::NoSuchNode { node, nodes });
        }
        match self.inventory.memlock {
            Some(limit) if spec.is_locked() && spec.memory() > limit => Err(PlanError::Memlock {
                asked: spec.memory(),
                limit,
            }),
            _ => Ok(()),
        }
    }

    /// Whether memory is bound to nodes: where nodes or pools were asked for, or CPUs are fixed. A scheduler that moves vCPUs between
    /// nodes is not helped by it.
    fn binds(&self, demand: &Demand<'_>) -> bool {
        let spec = demand.spec;
        let placed = demand.cpus > 0 || !demand.listed.is_empty();
        let several = self.inventory.nodes.len() > 1;
        spec.nodes().named().is_some()
            || spec.pages() != PageSize::Size4K
            || several && (placed || spec.nodes().is_single())
    }

    fn count_by_node(&self, cpus: &[usize]) -> Vec<usize> {
        let mut counts = vec![
            0;
            if cpus.is_empty() {
                0
            } else {
                self.rooms.nodes.len()
            }
        ];
        for core in cpus.iter().filter_map(|cpu| self.rooms.core(*cpu)) {
            counts[core.node] += 1;
        }
        counts
    }

    fn finish(&self, spec: &PartitionSpec, chosen: Chosen, shares: &[Share]) -> Result<Plan, PlanError> {
        let nodes = self.nodes(spec, &chosen, shares);
        let memory: Vec<u64> = nodes.iter().map(|node| node.memory).collect();
        let layout = Layout::fit(&memory, spec.pages().bytes(), &self.reach(spec)?)?;
        let mut plan = Plan {
            name: spec.name().to_owned(),
            vcpus: spec.cpus().vcpus(),
            pinned: chosen.pinned,
            withheld: chosen.withheld,
            mode: spec.mode(),
            isolation: None,
            pages: spec.pages(),
            nodes,
            locked: spec.is_locked(),
            layout,
        };
        plan.withheld.sort_unstable();
        if spec.mode() == CpuMode::Dedicated {
            plan.isolation = Some(self.inventory.isolation(&plan.held_cpus()));
        }
        Ok(plan)
    }

    /// The guest's nodes: a vCPU is on the node of its CPU; those that float are dealt out evenly.
    fn nodes(&self, spec: &PartitionSpec, chosen: &Chosen, shares: &[Share]) -> Vec<PlanNode> {
        let vcpus = spec.cpus().vcpus();
        if shares.is_empty() {
            return vec![PlanNode {
                host: None,
                memory: spec.memory(),
                vcpus: (0..vcpus).collect(),
            }];
        }
        // A host of one node binds only for who names it: a kernel without NUMA refuses to.
        let binds = self.inventory.nodes.len() > 1 || spec.nodes().named().is_some();
        let place = |vcpu: usize| match chosen.pinned.get(vcpu) {
            Some(cpu) => self.rooms.core(*cpu).map_or(0, |core| core.node),
            None => shares[vcpu * shares.len() / vcpus].node,
        };
        let node = |share: &Share| PlanNode {
            host: binds.then_some(self.rooms.nodes[share.node].id),
            memory: share.memory,
            vcpus: (0..vcpus).filter(|vcpu| place(*vcpu) == share.node).collect(),
        };
        shares.iter().map(node).collect()
    }

    /// What CPU and IOMMU both reach.
    fn reach(&self, spec: &PartitionSpec) -> Result<Reach, PlanError> {
        let wanted = spec.reach().cloned().unwrap_or_default();
        match self.inventory.address_bits {
            Some(bits) if bits < wanted.address_bits() => Ok(Reach::bits(bits)?.and(&wanted)),
            _ => Ok(wanted),
        }
    }

    /// The places of the nodes that a plan takes memory from, as far as that is known.
    fn rooms_of(&self, plan: &Plan) -> Vec<(usize, u64)> {
        let nodes = &self.rooms.nodes;
        let place = |node: &PlanNode| match node.host {
            Some(id) => nodes.iter().position(|room| room.id == id),
            None => (nodes.len() == 1).then_some(0),
        };
        let taken = plan.nodes().iter();
        taken
            .filter_map(|node| Some((place(node)?, node.memory)))
            .collect()
    }

    /// Applies a change to everything that a plan takes memory from.
    fn memory(&mut self, plan: &Plan, change: impl Fn(&mut u64, u64)) {
        for (node, bytes) in self.rooms_of(plan) {
            change(&mut self.rooms.nodes[node].memory[plan.pages() as usize], bytes);
        }
        if plan.pages() == PageSize::Size4K {
            change(&mut self.memory_available, plan.layout().memory());
        }
    }
}
