//! Which nodes: one if one has enough, else the nearest to each other; CPUs and memory side by side.

use super::cpus::Supply;
use super::refusal;
use super::rooms::Rooms;
use crate::error::PlanError;
use crate::spec::{PageSize, PartitionSpec};

/// What a partition gets from one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// The node's place in [`Rooms::nodes`].
    pub(super) node: usize,
    pub(super) cpus: usize,
    pub(super) memory: u64,
}

/// What is to be placed.
#[derive(Debug, Clone)]
pub(super) struct Demand<'s> {
    pub(super) spec: &'s PartitionSpec,
    /// CPUs that the plan chooses; none if they are listed or float.
    pub(super) cpus: usize,
    /// Listed CPUs on each node, in the order of [`Rooms::nodes`]; empty without a list.
    pub(super) listed: Vec<usize>,
}

impl Demand<'_> {
    /// The nodes to take from, ascending, with what each gives; and the core that stays with the host.
    pub(super) fn place(&self, rooms: &Rooms) -> Result<(Vec<Share>, Option<usize>), PlanError> {
        let admitted: Vec<usize> = (0..rooms.nodes.len())
            .filter(|node| self.spec.nodes().admits(rooms.nodes[*node].id))
            .collect();
        if let Some(node) = self.best_single(rooms, &admitted) {
            let share = Share {
                node,
                cpus: self.cpus.max(self.listed_on(node)),
                memory: self.spec.memory(),
            };
            return Ok((vec![share], self.supply(rooms, &[node]).kept));
        }
        let supply = self.supply(rooms, &admitted);
        if self.spec.nodes().is_single() {
            return Err(refusal::no_single_node(rooms, self, &admitted));
        }
        if self.cpus > supply.most {
            return Err(refusal::too_few_cpus(rooms, self, &admitted));
        }
        let room = admitted
            .iter()
            .map(|node| rooms.nodes[*node].room(self.spec.pages()));
        if self.spec.memory() > room.fold(0, u64::saturating_add) {
            return Err(refusal::no_memory(rooms, self, &admitted));
        }
        Ok((self.split(rooms, &admitted, supply), supply.kept))
    }

    /// The node that carries everything and wastes least: isolated CPUs first, then the tightest fit.
    fn best_single(&self, rooms: &Rooms, admitted: &[usize]) -> Option<usize> {
        let (pages, asked) = (self.spec.pages(), self.cpus);
        let carries = |node: &usize| {
            rooms.nodes[*node].room(pages) >= self.spec.memory()
                && (asked == 0 || self.supply(rooms, &[*node]).most >= asked)
                && self.listed_on(*node) == self.listed.iter().sum::<usize>()
        };
        let waste = |node: &usize| {
            let room = &rooms.nodes[*node];
            let cpus = if asked == 0 {
                0
            } else {
                room.free_cpus(self.spec.siblings())
            };
            (room.crowded_of(asked), cpus, room.room(pages), *node)
        };
        admitted.iter().copied().filter(carries).min_by_key(waste)
    }

    /// Shares over several nodes, which together have enough.
    fn split(&self, rooms: &Rooms, admitted: &[usize], supply: Supply) -> Vec<Share> {
        let nodes = self.nearest_first(rooms, admitted);
        let mut left = self.cpus;
        let mut shares: Vec<Share> = nodes
            .iter()
            .map(|&node| {
                let cpus = left.min(self.free_on(rooms, node, supply));
                left -= cpus;
                Share {
                    node,
                    cpus: cpus + self.listed_on(node),
                    memory: 0,
                }
            })
            .collect();
        self.split_memory(rooms, &mut shares);
        shares.retain(|share| share.cpus > 0 || share.memory > 0);
        shares.sort_by_key(|share| share.node);
        shares
    }

    /// Memory where the CPUs are, in proportion; what does not fit there goes to the nearest node with room.
    fn split_memory(&self, rooms: &Rooms, shares: &mut [Share]) {
        let pages = self.spec.pages();
        let unit = pages.bytes().max(PageSize::Size2M.bytes());
        let cpus: usize = shares.iter().map(|share| share.cpus).sum();
        let memory = self.spec.memory();
        let mut left = memory;
        for share in shares.iter_mut().filter(|share| share.cpus > 0) {
            let part = u128::from(memory) * share.cpus as u128 / cpus as u128;
            share.memory = (part as u64 / unit * unit).min(rooms.nodes[share.node].room(pages));
            left -= share.memory;
        }
        for share in shares {
            let more = left.min(rooms.nodes[share.node].room(pages) - share.memory);
            share.memory += more;
            left -= more;
        }
    }

    /// The nodes from the one with the most of what is wanted outwards.
    fn nearest_first(&self, rooms: &Rooms, admitted: &[usize]) -> Vec<usize> {
        let (pages, siblings) = (self.spec.pages(), self.spec.siblings());
        let wealth = |node: &usize| {
            let room = &rooms.nodes[*node];
            let cpus = if self.cpus == 0 {
                0
            } else {
                room.free_cpus(siblings)
            };
            (
                self.listed_on(*node),
                cpus,
                room.room(pages),
                std::cmp::Reverse(*node),
            )
        };
        let Some(seed) = admitted.iter().copied().max_by_key(wealth) else {
            return Vec::new();
        };
        let mut nodes = admitted.to_vec();
        nodes.sort_by_key(|node| (rooms.distance(seed, *node), *node));
        nodes
    }

    fn free_on(&self, rooms: &Rooms, node: usize, supply: Supply) -> usize {
        let kept = supply.kept.map(|core| &rooms.cores[core]);
        let kept = kept
            .filter(|core| core.node == node)
            .map_or(0, |core| core.cpus.len());
        rooms.nodes[node].free_cpus(self.spec.siblings()) - kept
    }

    pub(super) fn supply(&self, rooms: &Rooms, nodes: &[usize]) -> Supply {
        match self.cpus {
            0 => Supply { most: 0, kept: None },
            asked => rooms.supply(nodes, self.spec.siblings(), asked),
        }
    }

    fn listed_on(&self, node: usize) -> usize {
        self.listed.get(node).copied().unwrap_or(0)
    }
}

impl Rooms {
    /// The relative cost of reaching one node from another; what ACPI assumes where nothing is said.
    fn distance(&self, from: usize, to: usize) -> u32 {
        let assumed = if from == to { 10 } else { 20 };
        self.nodes[from].distances.get(to).copied().unwrap_or(assumed)
    }
}
