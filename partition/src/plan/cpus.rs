//! Which CPUs: whole cores first, isolated ones before others, one kind of core if it has enough, and a core left for the host.

use super::refusal;
use super::rooms::{Class, Room, Rooms};
use crate::error::PlanError;
use crate::inventory::{CoreKind, Inventory};
use crate::spec::{CpuMode, PartitionSpec, Siblings};

/// CPUs chosen for a partition.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    /// One for each vCPU, siblings side by side.
    pub(super) pinned: Vec<usize>,
    /// Their siblings that stay idle.
    pub(super) withheld: Vec<usize>,
}

/// What some nodes can give to a partition that counts its CPUs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Supply {
    pub(super) most: usize,
    /// The core among theirs that must stay with the host.
    pub(super) kept: Option<usize>,
}

impl Rooms {
    /// What the nodes can give to one that wants `asked`, with a whole core left for the host there or elsewhere.
    pub(super) fn supply(&self, nodes: &[usize], siblings: Siblings, asked: usize) -> Supply {
        let nodes = || nodes.iter().map(|node| &self.nodes[*node]);
        let all: usize = nodes().map(|node| node.free_cpus(siblings)).sum();
        let here: usize = nodes().map(|node| node.keepers.len()).sum();
        if here < self.keepers() {
            return Supply {
                most: all,
                kept: None,
            };
        }
        let keepers = || nodes().flat_map(|node| &node.keepers);
        let (Some(smallest), Some(lowest)) = (keepers().min(), keepers().min_by_key(|(_, lead, _)| *lead))
        else {
            return Supply { most: 0, kept: None };
        };
        let kept = if asked + lowest.0 <= all { lowest } else { smallest };
        Supply {
            most: all - smallest.0,
            kept: Some(kept.2),
        }
    }

    /// Chooses `count` CPUs of a node; there are that many besides the core that is kept.
    pub(super) fn choose(
        &self,
        node: usize,
        count: usize,
        siblings: Siblings,
        kept: Option<usize>,
    ) -> Chosen {
        let room = &self.nodes[node];
        let fits = |classes: &[Class]| {
            let mut supply: usize = classes.iter().filter_map(|class| room.cpus.get(class)).sum();
            let kept = kept.map(|core| &self.cores[core]);
            if let Some(kept) = kept.filter(|kept| kept.node == node && classes.contains(&kept.class)) {
                supply -= kept.cpus.len();
            }
            supply >= count
        };
        let classes = PREFERENCES
            .iter()
            .find(|classes| fits(classes))
            .copied()
            .unwrap_or(&ALL);
        let mut left = count;
        let mut cores = Vec::new();
        let mut pass_over = None;
        let order = room.whole.iter().filter(|(class, ..)| classes.contains(class));
        for &(.., index) in order.filter(|(.., index)| kept != Some(*index)) {
            let size = self.cores[index].cpus.len();
            if size <= left {
                cores.push((index, size));
                left -= size;
            } else {
                pass_over = pass_over.or(Some(index));
            }
            if left == 0 {
                break;
            }
        }
        if siblings == Siblings::Shared {
            for &(.., index) in &room.broken {
                let some = left.min(self.cores[index].free.len());
                cores.extend((some > 0).then_some((index, some)));
                left -= some;
            }
        }
        cores.extend(pass_over.filter(|_| left > 0).map(|index| (index, left)));
        cores.sort_by_key(|(index, _)| self.cores[*index].cpus.first());
        let mut chosen = Chosen::default();
        for (index, some) in cores {
            let (mine, others) = self.cores[index].free.split_at(some);
            chosen.pinned.extend(mine);
            if siblings == Siblings::Withheld {
                chosen.withheld.extend(others);
            }
        }
        chosen
    }

    /// The CPUs of a list, each of which can be had.
    pub(super) fn listed(
        &self,
        inventory: &Inventory,
        spec: &PartitionSpec,
        list: &[usize],
    ) -> Result<Chosen, PlanError> {
        let mut chosen = Chosen {
            pinned: list.to_vec(),
            withheld: Vec::new(),
        };
        for &cpu in list {
            // First, since a CPU in somebody's cpuset partition is no longer in our cpuset.
            if let Some(holder) = self.holder(cpu) {
                return Err(refusal::held_cpu(self, spec, cpu, holder.clone()));
            }
            let core = self.core(cpu);
            let Some(core) = core.filter(|core| spec.nodes().admits(self.nodes[core.node].id)) else {
                return Err(refusal::no_such_cpu(self, inventory, spec, cpu));
            };
            if spec.mode() == CpuMode::Shared || spec.siblings() == Siblings::Shared {
                continue;
            }
            for &other in core.cpus.iter().filter(|other| !list.contains(other)) {
                if let Some(holder) = self.holder(other) {
                    return Err(refusal::held_sibling(self, spec, (cpu, other), holder.clone()));
                }
                chosen.withheld.push(other);
            }
        }
        chosen.withheld.sort_unstable();
        chosen.withheld.dedup();
        Ok(chosen)
    }

    /// Whole cores on which the host's housekeeping could live.
    fn keepers(&self) -> usize {
        self.nodes.iter().map(|node| node.keepers.len()).sum()
    }
}

impl Room {
    /// CPUs that one who counts could be given.
    pub(super) fn free_cpus(&self, siblings: Siblings) -> usize {
        match siblings {
            Siblings::Withheld => self.whole_cpus(),
            Siblings::Shared => self.whole_cpus() + self.loose,
        }
    }

    /// How many of `asked` CPUs would not be isolated ones.
    pub(super) fn crowded_of(&self, asked: usize) -> usize {
        let isolated = |(class, _): &(&Class, &usize)| !class.crowded;
        let isolated: usize = self.cpus.iter().filter(isolated).map(|(_, count)| count).sum();
        asked.saturating_sub(isolated)
    }
}

const fn class(crowded: bool, kind: CoreKind) -> Class {
    Class { crowded, kind }
}

const ALL: [Class; 4] = [
    class(false, CoreKind::Performance),
    class(false, CoreKind::Efficiency),
    class(true, CoreKind::Performance),
    class(true, CoreKind::Efficiency),
];

/// The first that has enough is taken: a guest should not find fast and slow cores mixed.
const PREFERENCES: [&[Class]; 6] = [
    &[ALL[0]],
    &[ALL[1]],
    &[ALL[0], ALL[1]],
    &[ALL[0], ALL[2]],
    &[ALL[1], ALL[3]],
    &ALL,
];
