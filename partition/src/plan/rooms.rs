//! What is free: sets of cores by node, kept so that a choice looks only at what it takes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::inventory::{CoreKind, Cpu, HeldMemory, Holder, Inventory};
use crate::spec::PageSize;

/// The cores and nodes of a host, with what of them is free.
#[derive(Debug, Clone)]
pub(super) struct Rooms {
    pub(super) cores: Vec<Core>,
    pub(super) nodes: Vec<Room>,
    /// The core of each usable CPU.
    core_of: HashMap<usize, usize>,
    /// Who has each CPU that is not free.
    held: HashMap<usize, Holder>,
}

/// A core: those of its threads that this process could be given.
#[derive(Debug, Clone)]
pub(super) struct Core {
    pub(super) cpus: Vec<usize>,
    /// Those that nobody holds.
    pub(super) free: Vec<usize>,
    pub(super) node: usize,
    pub(super) class: Class,
    /// Whether housekeeping could live on it: the kernel puts tasks there of itself.
    keepable: bool,
}

/// What makes a core better or worse than another: isolated before others, then fast before slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    pub(super) crowded: bool,
    pub(super) kind: CoreKind,
}

/// Cores in the order in which they are given out; the highest first, since interrupts and housekeeping tend to live on CPU 0.
type Rank = (Class, Reverse<usize>, usize);

/// A memory node with its CPUs.
#[derive(Debug, Clone, Default)]
pub(super) struct Room {
    pub(super) id: u32,
    /// Cores of which nobody holds a thread.
    pub(super) whole: BTreeSet<Rank>,
    /// Cores of which some threads are held and some are not.
    pub(super) broken: BTreeSet<Rank>,
    /// Free CPUs of whole cores by class.
    pub(super) cpus: BTreeMap<Class, usize>,
    /// Free CPUs of broken cores.
    pub(super) loose: usize,
    /// Whole cores on which housekeeping could live: by size and first CPU.
    pub(super) keepers: BTreeSet<(usize, usize, usize)>,
    /// Bytes that could be had, by page size.
    pub(super) memory: [u64; 3],
    /// Bytes by page size and holder, as far as known.
    pub(super) holders: BTreeMap<(PageSize, String), u64>,
    pub(super) distances: Vec<u32>,
}

impl Rooms {
    pub(super) fn of(inventory: &Inventory) -> Self {
        let mut rooms = Self {
            cores: Vec::new(),
            nodes: inventory.nodes.iter().map(Room::of).collect(),
            core_of: HashMap::new(),
            held: HashMap::new(),
        };
        // A host whose CPUs are all isolated cannot be; a container's cpuset can.
        let all_isolated = inventory.usable_cpus().all(|cpu| cpu.isolated);
        let mut first: HashMap<usize, usize> = HashMap::new();
        let mut at: HashMap<u32, usize> = inventory.nodes.iter().map(|node| node.id).zip(0..).collect();
        for cpu in inventory.usable_cpus() {
            let leader = cpu.siblings.first().copied().unwrap_or(cpu.id);
            let index = *first.entry(leader).or_insert_with(|| {
                let node = *at.entry(cpu.node).or_insert_with(|| rooms.add_node(cpu.node));
                rooms.add_core(cpu, node)
            });
            let core = &mut rooms.cores[index];
            core.cpus.push(cpu.id);
            core.class.crowded |= !cpu.isolated;
            core.keepable = core.class.crowded || all_isolated;
            rooms.core_of.insert(cpu.id, index);
        }
        for index in 0..rooms.cores.len() {
            rooms.cores[index].free = rooms.cores[index].cpus.clone();
            rooms.file(index, true);
        }
        rooms
    }

    /// A node that has CPUs and no memory that the survey saw.
    fn add_node(&mut self, id: u32) -> usize {
        self.nodes.push(Room {
            id,
            ..Room::default()
        });
        self.nodes.len() - 1
    }

    fn add_core(&mut self, cpu: &Cpu, node: usize) -> usize {
        self.cores.push(Core {
            cpus: Vec::new(),
            free: Vec::new(),
            node,
            class: Class {
                crowded: false,
                kind: cpu.kind,
            },
            keepable: false,
        });
        self.cores.len() - 1
    }

    /// The core of a usable CPU.
    pub(super) fn core(&self, cpu: usize) -> Option<&Core> {
        self.core_of.get(&cpu).map(|index| &self.cores[*index])
    }

    /// Who has a CPU.
    pub(super) fn holder(&self, cpu: usize) -> Option<&Holder> {
        self.held.get(&cpu)
    }

    /// Takes a CPU out of what is free.
    pub(super) fn take(&mut self, cpu: usize, holder: &Holder) {
        self.held.insert(cpu, holder.clone());
        self.change(cpu, |free| free.retain(|other| *other != cpu));
    }

    /// Remembers whose memory it is that the survey no longer found free.
    pub(super) fn note(&mut self, holder: &Holder, memory: Option<&HeldMemory>) {
        let Some(memory) = memory else { return };
        let only = self.nodes.len() == 1;
        let is_its = |room: &&mut Room| only || Some(room.id) == memory.node;
        if let Some(room) = self.nodes.iter_mut().find(is_its) {
            let key = (memory.pages, holder.partition.clone());
            room.holders.insert(key, memory.bytes);
        }
    }

    /// Puts a usable CPU back.
    pub(super) fn put_back(&mut self, cpu: usize) {
        self.held.remove(&cpu);
        self.change(cpu, |free| {
            if let Err(place) = free.binary_search(&cpu) {
                free.insert(place, cpu);
            }
        });
    }

    fn change(&mut self, cpu: usize, change: impl FnOnce(&mut Vec<usize>)) {
        let Some(&index) = self.core_of.get(&cpu) else {
            return;
        };
        self.file(index, false);
        change(&mut self.cores[index].free);
        self.file(index, true);
    }

    /// Enters a core into the sets of its node, or strikes it out, as its state is now.
    fn file(&mut self, index: usize, enter: bool) {
        let core = &self.cores[index];
        let (Some(&lead), free) = (core.cpus.first(), core.free.len()) else {
            return;
        };
        let node = &mut self.nodes[core.node];
        let (class, rank) = (core.class, (core.class, Reverse(lead), index));
        let is_whole = free == core.cpus.len();
        let (set, sum) = match is_whole {
            true => (&mut node.whole, node.cpus.entry(class).or_default()),
            false if free > 0 => (&mut node.broken, &mut node.loose),
            false => return,
        };
        let keeper = (free, lead, index);
        match enter {
            true => {
                set.insert(rank);
                *sum += free;
                if is_whole && core.keepable {
                    node.keepers.insert(keeper);
                }
            }
            false => {
                set.remove(&rank);
                *sum -= free;
                node.keepers.remove(&keeper);
            }
        }
    }
}

impl Room {
    fn of(node: &crate::inventory::Node) -> Self {
        let bytes = |pages: PageSize| node.free_pages(pages).saturating_mul(pages.bytes());
        Self {
            id: node.id,
            memory: PageSize::ALL.map(bytes),
            distances: node.distances.clone(),
            ..Self::default()
        }
    }

    /// Bytes that could be had in pages of that size, in units that a guest can be given.
    pub(super) fn room(&self, pages: PageSize) -> u64 {
        let unit = pages.bytes().max(PageSize::Size2M.bytes());
        self.memory[pages as usize] / unit * unit
    }

    /// Free CPUs of whole cores.
    pub(super) fn whole_cpus(&self) -> usize {
        self.cpus.values().sum()
    }
}
