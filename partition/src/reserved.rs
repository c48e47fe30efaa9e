//! Reserved: the name and the dedicated CPUs are claimed. No memory is held and no VM exists yet.

use crate::claim::{Claim, Holding, Resource};
use crate::error::{ClaimError, PartitionError};
use crate::plan::{CpuMode, Plan};
use crate::populate::Progress;
use crate::populated::Populated;
use crate::state_dir::StateDir;

/// The plan's name and dedicated CPUs are this process's. No memory yet; dropping it gives everything back.
#[derive(Debug)]
#[must_use = "dropping it gives the claims back"]
pub struct Reserved {
    plan: Plan,
    state: StateDir,
    claims: Vec<Claim>,
}

impl Plan {
    /// The CPUs that nobody else gets, as they are claimed.
    pub fn dedicated(&self) -> impl Iterator<Item = Resource> {
        let pinned = self.pinned().iter().filter(|_| self.mode() == CpuMode::Dedicated);
        pinned.map(|cpu| Resource::new(Resource::CPU, &cpu.to_string()))
    }

    /// Claims the partition's name and, if dedicated, its CPUs: all of them or none.
    pub fn reserve(self, state: &StateDir) -> Result<Reserved, ClaimError> {
        let name = Resource::new(Resource::PARTITION, self.name());
        let mut wanted = vec![(name, Some(Holding::of(&self)))];
        wanted.extend(self.dedicated().map(|cpu| (cpu, None)));
        let mut reserved = Reserved {
            plan: self,
            state: state.clone(),
            claims: Vec::new(),
        };
        for (resource, holding) in wanted {
            let claim = state.claim_for(resource, reserved.plan.name(), holding)?;
            reserved.claims.push(claim);
        }
        Ok(reserved)
    }
}

impl Reserved {
    /// The plan that is carried out.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where the claims are kept, for those that come on top (devices).
    #[must_use]
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// Takes the memory, populates it whole, and creates the VM that sees it.
    pub fn populate(self, progress: &(dyn Fn(Progress) + Sync)) -> Result<Populated, PartitionError> {
        Populated::of(self, progress)
    }

    /// Gives the claims back; the first failure is reported, the others are tried all the same.
    pub fn release(mut self) -> Result<(), ClaimError> {
        let mut outcome = Ok(());
        while let Some(claim) = self.claims.pop() {
            let released = claim.release();
            outcome = outcome.and(released);
        }
        outcome
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // The last taken goes first: whoever finds the name free finds the CPUs free.
        while self.claims.pop().is_some() {}
    }
}
