//! Where a partition's vCPU threads are, what there is to give back, and how both change.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::thread::Pid;

use super::affinity::{self, Housekeeping};
use super::usage::Counted;
use super::{CpuHold, CpuTerms, CpuUsage};
use crate::cgroup::{CgroupTree, Footprint, Group, Home, Settled};
use crate::claim::Claim;
use crate::error::CpuError;

/// What there is to give back, and where the threads are.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) terms: CpuTerms,
    /// Affinity of each vCPU in order, for shared CPUs that were named.
    pub(super) named: Vec<usize>,
    pub(super) threads: BTreeMap<u32, Pid>,
    pub(super) realtime: Option<u8>,
    pub(super) place: Option<Place>,
    pub(super) housekeeping: Option<Housekeeping>,
    pub(super) footprint: Option<Footprint>,
    pub(super) settled: Option<Settled>,
    pub(super) claims: Vec<Claim>,
    pub(super) counted: Counted,
}

/// The group that the threads are in, and its path below home.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) group: Group,
}

impl Held {
    /// Moves a thread into the place, onto its CPU and under its scheduling policy.
    pub(super) fn put(&self, tree: &CgroupTree, vcpu: u32, thread: Pid) -> Result<(), CpuError> {
        self.admit(thread)?;
        self.aim(tree, vcpu, thread)
    }

    pub(super) fn admit(&self, thread: Pid) -> Result<(), CpuError> {
        match (&self.place, &self.settled) {
            (Some(place), _) => place.group.admit(thread),
            (None, Some(settled)) => Group::at(settled.home()).admit(thread),
            (None, None) => Ok(()),
        }
    }

    pub(super) fn aim(&self, tree: &CgroupTree, vcpu: u32, thread: Pid) -> Result<(), CpuError> {
        match self.cpu_of(vcpu) {
            Some(cpu) => affinity::pin(vcpu, thread, cpu)?,
            None if self.threads.contains_key(&vcpu) => affinity::let_roam(tree, thread),
            None => {}
        }
        self.schedule(vcpu, thread)
    }

    /// The one CPU of a vCPU, if it has one.
    pub(super) fn cpu_of(&self, vcpu: u32) -> Option<usize> {
        let cpus = match &self.terms {
            CpuTerms::Dedicated { cpus, .. } => cpus,
            CpuTerms::Shared { .. } => &self.named,
        };
        cpus.get(vcpu as usize).copied()
    }

    pub(super) fn schedule(&self, vcpu: u32, thread: Pid) -> Result<(), CpuError> {
        affinity::schedule(vcpu, thread, self.realtime)
    }

    /// The process at home and a footprint there, both made if missing.
    pub(super) fn settle(&mut self, hold: &CpuHold, home: &Home) -> Result<&mut Footprint, CpuError> {
        if self.settled.is_none() {
            self.settled = Some(Settled::at(home)?);
        }
        let footprint = match self.footprint.take() {
            Some(footprint) => footprint,
            None => Footprint::new(&hold.tree, &hold.state, &hold.name, home.group().dir())?,
        };
        Ok(self.footprint.insert(footprint))
    }

    /// Changes place and terms and moves every thread; if one cannot be moved, all go back.
    pub(super) fn change(
        &mut self,
        tree: &CgroupTree,
        terms: CpuTerms,
        place: Option<Place>,
    ) -> Result<(), CpuError> {
        let shared = matches!(terms, CpuTerms::Shared { .. });
        let (old_terms, old_place) = self.turn(tree, terms, place);
        let threads = self.threads.clone();
        let admitted = threads.values().try_for_each(|thread| self.admit(*thread));
        // CPUs of a partition are nobody else's until it is gone, so its threads can be let out to them only then.
        let left = admitted.is_ok() && shared;
        let gone = match left {
            true => self.leave(old_place.clone()),
            false => Ok(()),
        };
        let aim = |held: &Self| {
            threads
                .iter()
                .try_for_each(|(vcpu, thread)| held.aim(tree, *vcpu, *thread))
        };
        let moved = admitted.and_then(|()| aim(self));
        match moved {
            Ok(()) if shared => gone,
            Ok(()) => self.leave(old_place),
            // The old place is gone: the new terms stand, for those whom the kernel let have them.
            Err(refusal) if left => Err(refusal),
            Err(refusal) => {
                let (_, failed) = self.turn(tree, old_terms, old_place);
                for (vcpu, thread) in &threads {
                    if let Err(error) = self.put(tree, *vcpu, *thread) {
                        tracing::error!(%error, "a vCPU thread is not back in its place");
                    }
                }
                self.leave(failed)?;
                Err(refusal)
            }
        }
    }

    /// Exchanges terms and place; what the old place has counted is kept.
    pub(super) fn turn(
        &mut self,
        tree: &CgroupTree,
        terms: CpuTerms,
        place: Option<Place>,
    ) -> (CpuTerms, Option<Place>) {
        self.counted
            .turn(tree, self.place.as_ref(), &self.threads, place.as_ref());
        (
            std::mem::replace(&mut self.terms, terms),
            std::mem::replace(&mut self.place, place),
        )
    }

    /// Removes a place that nobody is in any more, unless it is the one in use.
    pub(super) fn leave(&mut self, place: Option<Place>) -> Result<(), CpuError> {
        let Some(place) = place else { return Ok(()) };
        let in_use = self.place.as_ref().is_some_and(|now| now.path == place.path);
        match &mut self.footprint {
            Some(footprint) if !in_use => footprint.unmake(&place.path),
            _ => Ok(()),
        }
    }

    pub(super) fn usage(&self, tree: &CgroupTree) -> CpuUsage {
        self.counted.usage(tree, self.place.as_ref(), &self.threads)
    }
}
