//! For each function of a host: whether it can be lent, with whom, what is in the way, and what to do. By the same rules that
//! admission follows, asked of every function in turn.

use std::collections::BTreeSet;

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

use crate::admit::Wanted;
use crate::census::Census;
use crate::error::Refusal;
use crate::inventory::{Function, Inventory};
use crate::standing::Member;

/// What to know before lending a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// The function.
    pub device: Bdf,
    /// Whether it can be lent.
    pub lend: Verdict,
    /// Those of its group that must be lent with it.
    pub with: Vec<Bdf>,
    /// Members of its group that keep it from being lent.
    pub in_the_way: Vec<Member>,
    /// Members of its group that do not: bridges, and what is parked.
    pub ignored: Vec<Member>,
    /// Why it cannot be lent, all of it.
    pub reasons: Vec<Reason>,
}

/// Whether a function can be lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// By itself.
    Yes,
    /// If others of its group are lent to the same guest.
    Together,
    /// Not as things are.
    No,
    /// Never: it carries others.
    Bridge,
}

/// Why something is refused, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reason {
    /// Why.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl Inventory {
    /// Advice on every function, by address. What keeps anything from being lent here is told once, by [`Inventory::unready`].
    #[must_use]
    pub fn advise(&self) -> Vec<Advice> {
        let census = Census::of(self);
        let functions = self.functions.values();
        functions.map(|function| advise_on(function, &census)).collect()
    }

    /// Why this host cannot lend anything yet; None: VFIO is there.
    #[must_use]
    pub fn unready(&self) -> Option<Reason> {
        let any = self.functions.keys().next()?;
        self.without_vfio(*any).as_ref().map(Reason::of)
    }
}

fn advise_on(function: &Function, census: &Census<'_>) -> Advice {
    let device = function.bdf;
    let (mut in_the_way, mut ignored) = (Vec::new(), Vec::new());
    if let Some(group) = &function.group {
        // What its driver takes along when it lets go is not in the way.
        let hinder = census.blockers(group.id, &BTreeSet::from([device]));
        in_the_way.extend(hinder.into_iter().cloned());
        let members = census.members(group.id).iter();
        let others = members.filter(|member| member.bdf != Some(device) && !member.standing.hinders());
        ignored.extend(others.cloned());
    }
    let mut advice = Advice {
        device,
        lend: Verdict::Bridge,
        with: Vec::new(),
        in_the_way,
        ignored,
        reasons: Vec::new(),
    };
    match function.is_bridge() {
        true => advice.in_the_way.clear(),
        false => decide(&mut advice, census),
    }
    advice
}

/// Alone, or with all of its group that can join it, or not.
fn decide(advice: &mut Advice, census: &Census<'_>) {
    let joined = advice.in_the_way.iter().filter(|member| member.can_join());
    let with: Vec<Bdf> = joined.filter_map(|member| member.bdf).collect();
    let set = [advice.device].into_iter().chain(with.iter().copied());
    let wanted: Vec<Wanted> = set.map(Wanted::new).collect();
    let refusals = census.judge(&wanted).refusals;
    if !refusals.is_empty() {
        advice.lend = Verdict::No;
        advice.reasons = refusals.iter().map(Reason::of).collect();
        return;
    }
    advice.lend = match with.is_empty() {
        true => Verdict::Yes,
        false => Verdict::Together,
    };
    advice.with = with;
    advice.in_the_way.clear();
}

impl Reason {
    fn of(refusal: &Refusal) -> Reason {
        Reason {
            cause: refusal.cause(),
            remedy: refusal.remedy(),
        }
    }
}
