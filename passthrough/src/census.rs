//! The members of all IOMMU groups of a host, and the verdict on a set of functions: pure, and without clones of what is judged.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_partition::Bdf;

use crate::admit::Wanted;
use crate::error::Refusal;
use crate::inventory::{Function, Group, Inventory};
use crate::standing::{Member, Standing};

/// Who is in which group.
pub(crate) struct Census<'i> {
    inventory: &'i Inventory,
    groups: BTreeMap<u32, Vec<Member>>,
}

/// What is to be said of functions that are wanted together.
pub(crate) struct Judgement<'i> {
    /// The groups that nothing is against, with those who are wanted of each.
    pub(crate) whole: BTreeMap<u32, Vec<&'i Function>>,
    /// Everything that is against the others.
    pub(crate) refusals: Vec<Refusal>,
}

impl<'i> Census<'i> {
    /// Who is in a group is told by the group and by its members; one that only one of them knows of counts all the same.
    pub(crate) fn of(inventory: &'i Inventory) -> Census<'i> {
        let mut addresses: BTreeMap<u32, BTreeSet<Bdf>> = BTreeMap::new();
        let mut strangers: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
        let mut told: BTreeMap<u32, &Group> = BTreeMap::new();
        for function in inventory.functions.values() {
            let Some(group) = &function.group else { continue };
            let members = addresses.entry(group.id).or_default();
            members.insert(function.bdf);
            // All members of a group that was read from sysfs tell the same.
            if told.insert(group.id, group) != Some(group) {
                members.extend(&group.members);
                let others = group.others.iter().map(String::as_str);
                strangers.entry(group.id).or_default().extend(others);
            }
        }
        let groups = addresses.into_iter().map(|(group, members)| {
            let functions = members
                .into_iter()
                .map(|bdf| Member::of(bdf, inventory.function(bdf)));
            let others = strangers.remove(&group).unwrap_or_default();
            let members = functions
                .chain(others.into_iter().map(Member::stranger))
                .collect();
            (group, members)
        });
        Census {
            inventory,
            groups: groups.collect(),
        }
    }

    /// All members of a group, by address.
    pub(crate) fn members(&self, group: u32) -> &[Member] {
        self.groups.get(&group).map_or(&[], Vec::as_slice)
    }

    /// The members of `group` that hinder lending `inside` of it.
    pub(crate) fn blockers(&self, group: u32, inside: &BTreeSet<Bdf>) -> Vec<&Member> {
        let goes_along = |bdf: Bdf| {
            let function = self.inventory.function(bdf);
            let carrier = function.and_then(|function| self.inventory.carrier(function));
            inside.contains(&bdf) || carrier.is_some_and(|carrier| inside.contains(&carrier))
        };
        let hinders = |member: &&Member| member.standing.hinders() && !member.bdf.is_some_and(goes_along);
        self.members(group).iter().filter(hinders).collect()
    }

    /// Judges functions that are wanted together.
    pub(crate) fn judge(&self, wanted: &[Wanted]) -> Judgement<'i> {
        let (mut seen, mut refused, mut broken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut whole: BTreeMap<u32, Vec<&'i Function>> = BTreeMap::new();
        let mut refusals = Vec::new();
        let all: BTreeSet<Bdf> = wanted.iter().map(|wanted| wanted.device).collect();
        for wanted in wanted {
            let device = wanted.device;
            if !seen.insert(device) {
                refusals.push(Refusal::Twice { device });
                continue;
            }
            let against = self.alone(*wanted, &all);
            refused.extend((!against.is_empty()).then_some(device));
            let function = self.inventory.function(device);
            if let Some((function, group)) = function.and_then(|f| Some((f, f.group.as_ref()?.id))) {
                whole.entry(group).or_default().push(function);
                broken.extend((!against.is_empty()).then_some(group));
            }
            refusals.extend(against);
        }
        for (group, inside) in &whole {
            let mut others = self.blockers(*group, &inside.iter().map(|function| function.bdf).collect());
            broken.extend((!others.is_empty()).then_some(*group));
            // Whoever has been refused for a reason of its own is not held against the others once more.
            others.retain(|member| member.bdf.is_none_or(|bdf| !refused.contains(&bdf)));
            let lendable =
                |function: &&&Function| !function.is_bridge() && self.inventory.carrier(function).is_none();
            if let (Some(first), false) = (inside.iter().find(lendable), others.is_empty()) {
                refusals.push(Refusal::SharedGroup {
                    device: first.bdf,
                    group: *group,
                    others: others.into_iter().cloned().collect(),
                });
            }
        }
        whole.retain(|group, _| !broken.contains(group));
        Judgement { whole, refusals }
    }

    /// What is against one function of all that are wanted, its group aside.
    fn alone(&self, wanted: Wanted, all: &BTreeSet<Bdf>) -> Vec<Refusal> {
        let device = wanted.device;
        let Some(function) = self.inventory.function(device) else {
            return vec![Refusal::NoSuchFunction { device }];
        };
        if function.is_bridge() {
            let class = function.ids.class;
            return vec![Refusal::Bridge { device, class }];
        }
        if let Some(carrier) = self.inventory.carrier(function) {
            return vec![Refusal::Carried { device, carrier }];
        }
        let mut against = Vec::new();
        if function.group.is_none() {
            against.push(Refusal::NoIommu { device });
        }
        let mut virtuals = function.sriov.virtuals.clone();
        // Those that nobody has come back with their physical function.
        virtuals.retain(|one| {
            let driven = |function: &Function| function.driver.bound.is_some();
            all.contains(one) || self.inventory.function(*one).is_none_or(driven)
        });
        if !virtuals.is_empty() {
            against.push(Refusal::HasVirtuals { device, virtuals });
        }
        if !function.uses.is_empty() && !wanted.forced {
            let uses = function.uses.clone();
            against.push(Refusal::InUse { device, uses });
        }
        against
    }
}

impl Member {
    fn of(bdf: Bdf, function: Option<&Function>) -> Member {
        Member {
            device: bdf.to_string(),
            bdf: Some(bdf),
            standing: function.map_or(Standing::Unknown, Standing::of),
            bridge: function.is_some_and(Function::is_bridge),
        }
    }

    fn stranger(device: &str) -> Member {
        Member {
            device: device.to_owned(),
            bdf: None,
            standing: Standing::Unknown,
            bridge: false,
        }
    }
}
