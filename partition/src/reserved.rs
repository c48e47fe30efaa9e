//! Reserved: the name and the dedicated CPUs are claimed. No memory is held and no VM exists yet.

use crate::claim::{Claim, Resource, StateDir};
use crate::error::{ClaimError, PartitionError};
use crate::plan::Plan;
use crate::populated::{Populated, Progress};

/// The plan's name and dedicated CPUs are this process's. No memory yet; dropping it gives everything back.
#[derive(Debug)]
#[must_use = "dropping it gives the claims back"]
pub struct Reserved {
    plan: Plan,
    state: StateDir,
    claims: Vec<Claim>,
}

impl Plan {
    /// Claims the partition's name and, if dedicated or listed, its CPUs: all of them or none.
    pub fn reserve(self, state: &StateDir) -> Result<Reserved, ClaimError> {
        let mut claims = vec![state.claim(Resource::new("partition", self.name()), self.name())?];
        if self.mode() == crate::plan::CpuMode::Dedicated {
            for cpu in self.pinned() {
                claims.push(state.claim(Resource::new("cpu", &cpu.to_string()), self.name())?);
            }
        }
        Ok(Reserved {
            plan: self,
            state: state.clone(),
            claims,
        })
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
        for claim in self.claims.drain(..).rev() {
            let released = claim.release();
            outcome = outcome.and(released);
        }
        outcome
    }
}
