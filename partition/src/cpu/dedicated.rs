//! Dedicated: each vCPU has a CPU that no other partition gets, as free of others as this host can keep it.

use super::affinity::Housekeeping;
use super::held::{Held, Place};
use super::{CpuHold, CpuShare, CpuTerms};
use crate::cgroup::{CpuIsolation, Home, Isolation, dedicated_path};
use crate::claim::Resource;
use crate::error::{ClaimError, CpuError};

impl CpuHold {
    /// Gives each vCPU one of `cpus` for itself, also while they run. The rest of the process keeps off them.
    ///
    /// What the kernel does not grant makes the isolation weaker, with the reason; it is refused only if a CPU is another's.
    pub fn dedicate(&self, cpus: &[usize]) -> Result<Isolation, CpuError> {
        self.dedicate_cores(cpus, &[])
    }

    /// The same, with `idle`: siblings of those CPUs, which are held and isolated as they are, and run nothing.
    pub fn dedicate_cores(&self, cpus: &[usize], idle: &[usize]) -> Result<Isolation, CpuError> {
        if cpus.len() != self.vcpus {
            let (vcpus, cpus) = (self.vcpus, cpus.len());
            return Err(CpuError::Count { vcpus, cpus });
        }
        if !matches!(self.terms(), CpuTerms::Shared { .. }) {
            if let Some(isolation) = self.terms().isolation_of(cpus, idle) {
                return Ok(isolation);
            }
            self.share(CpuShare::default(), None)?;
        }
        let mut held = self.held();
        let all = [cpus, idle].concat();
        self.claim_cpus(&mut held, &all)?;
        let others: Vec<_> = held.threads.values().copied().collect();
        let mut housekeeping = Housekeeping::before();
        let (isolation, place) = self.partition_cpus(&mut held, &all);
        housekeeping.keep_off(&all, &others);
        let terms = CpuTerms::Dedicated {
            cpus: cpus.to_vec(),
            idle: idle.to_vec(),
            isolation: isolation.clone(),
        };
        let changed = held.change(&self.tree, terms, place);
        if changed.is_ok() {
            held.housekeeping = Some(housekeeping);
        }
        self.drop_claims(&mut held)?;
        changed.map(|()| isolation)
    }

    /// Claims each CPU that is not held yet: all of them or none.
    fn claim_cpus(&self, held: &mut Held, cpus: &[usize]) -> Result<(), ClaimError> {
        let before = held.claims.len();
        for cpu in cpus {
            let resource = Resource::new(Resource::CPU, &cpu.to_string());
            if held
                .claims
                .iter()
                .any(|claim| claim.record().resource == resource)
            {
                continue;
            }
            match self.state.claim(resource, &self.name) {
                Ok(claim) => held.claims.push(claim),
                Err(refusal) => {
                    while held.claims.len() > before {
                        held.claims.pop();
                    }
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    /// Gives up the claims of CPUs that the terms do not dedicate.
    pub(super) fn drop_claims(&self, held: &mut Held) -> Result<(), ClaimError> {
        let kept: Vec<_> = match &held.terms {
            CpuTerms::Dedicated { cpus, idle, .. } => {
                let all = cpus.iter().chain(idle);
                all.map(ToString::to_string).collect()
            }
            CpuTerms::Shared { .. } => Vec::new(),
        };
        let claims = std::mem::take(&mut held.claims);
        let mut outcome = Ok(());
        for claim in claims {
            match kept.contains(&claim.record().resource.name) {
                true => held.claims.push(claim),
                false => outcome = outcome.and(claim.release()),
            }
        }
        outcome
    }

    /// A cpuset partition of `cpus`, or why there is none.
    fn partition_cpus(&self, held: &mut Held, cpus: &[usize]) -> (Isolation, Option<Place>) {
        let expected = self.tree.isolation(cpus);
        if expected.level == CpuIsolation::Affinity {
            return (expected, None);
        }
        match self.make_partition(held, &expected, cpus) {
            Ok(made) => made,
            Err(error) => (Isolation::affinity(error.to_string()), None),
        }
    }

    fn make_partition(
        &self,
        held: &mut Held,
        expected: &Isolation,
        cpus: &[usize],
    ) -> Result<(Isolation, Option<Place>), CpuError> {
        let home = Home::of(&self.tree).map_err(|reason| CpuError::NoControl { reason })?;
        let path = dedicated_path(&self.name);
        let footprint = held.settle(self, &home)?;
        let group = footprint.make(&path, "cpuset")?;
        let isolation = expected.establish(&group, cpus);
        if isolation.level == CpuIsolation::Affinity {
            footprint.unmake(&path)?;
            return Ok((isolation, None));
        }
        footprint.remind();
        Ok((isolation, Some(Place { path, group })))
    }
}

impl CpuTerms {
    /// The isolation of just these CPUs, if they are dedicated already.
    fn isolation_of(&self, wanted: &[usize], beside: &[usize]) -> Option<Isolation> {
        match self {
            Self::Dedicated {
                cpus,
                idle,
                isolation,
            } if cpus == wanted && idle == beside => Some(isolation.clone()),
            _ => None,
        }
    }
}
