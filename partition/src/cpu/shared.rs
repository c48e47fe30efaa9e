//! Shared: the host's scheduler decides where vCPUs run, and a weight and a cap decide how much of the time is theirs.

use super::held::{Held, Place};
use super::share::Cap;
use super::{CpuHold, CpuShare, CpuTerms};
use crate::cgroup::{Group, Home, pool_path, shared_path};
use crate::error::CpuError;

impl CpuHold {
    /// Lets the vCPUs run on all CPUs that the host leaves, with that share of them, also while they run.
    ///
    /// `group` names the pool that the share is taken from; its partitions divide among themselves what the pool gets. The
    /// ordinary share of no group is had also where CPUs cannot be weighed.
    pub fn share(&self, share: CpuShare, group: Option<&str>) -> Result<(), CpuError> {
        if let Some(name) = group.filter(|name| !is_plain(name)) {
            return Err(CpuError::GroupName {
                name: name.to_owned(),
            });
        }
        let mut held = self.held();
        let place = match self.share_place(&mut held, share, group) {
            Err(CpuError::NoControl { .. }) if share == CpuShare::default() && group.is_none() => None,
            place => Some(place?),
        };
        let terms = CpuTerms::Shared {
            share,
            group: group.map(str::to_owned),
        };
        held.change(&self.tree, terms, place)?;
        held.housekeeping = None;
        Ok(self.drop_claims(&mut held)?)
    }

    /// Changes the weight and the cap of the group that this partition is in, for all who are in it.
    pub fn share_group(&self, share: CpuShare) -> Result<(), CpuError> {
        apply(&self.pool()?, share)
    }

    /// What the group that this partition is in has got: `cpu.stat`'s time of all partitions in it.
    pub fn group_time(&self) -> Result<std::time::Duration, CpuError> {
        let pool = self.pool()?;
        let stat = pool.read("cpu.stat").map_err(|source| CpuError::Tree {
            path: pool.dir().join("cpu.stat"),
            act: "it cannot be read",
            source,
        })?;
        Ok(super::usage::Stat::parse(&stat).usage)
    }

    fn pool(&self) -> Result<Group, CpuError> {
        let held = self.held();
        match (&held.terms, &held.settled) {
            (
                CpuTerms::Shared {
                    group: Some(pool), ..
                },
                Some(settled),
            ) => Ok(Group::at(&settled.home().join(pool_path(pool)))),
            _ => Err(CpuError::NoControl {
                reason: format!("partition {} is in no group; share with one first", self.name),
            }),
        }
    }

    /// The group of this partition with that share, made if missing.
    fn share_place(&self, held: &mut Held, share: CpuShare, pool: Option<&str>) -> Result<Place, CpuError> {
        let no_control = |reason| CpuError::NoControl { reason };
        let home = Home::of(&self.tree).map_err(no_control)?;
        home.offers("cpu").map_err(no_control)?;
        let path = shared_path(&self.name, pool);
        if let Some(place) = held.place.as_ref().filter(|place| place.path == path) {
            apply(&place.group, share)?;
            return Ok(place.clone());
        }
        let footprint = held.settle(self, &home)?;
        let group = footprint.make(&path, "cpu")?;
        if let Err(refusal) = apply(&group, share) {
            footprint.unmake(&path)?;
            return Err(refusal);
        }
        Ok(Place { path, group })
    }
}

fn apply(group: &Group, share: CpuShare) -> Result<(), CpuError> {
    group.write(
        "cpu.weight",
        &share.weight.to_string(),
        "its weight cannot be set",
    )?;
    group.write("cpu.max", &Cap::quota(share.cap), "its cap cannot be set")
}

/// Whether a name can be part of a directory's.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}
