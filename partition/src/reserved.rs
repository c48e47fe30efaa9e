//! Reserved: the name and the dedicated CPUs are claimed. No memory is held and no VM exists yet.

use std::sync::Arc;

use crate::cgroup::CgroupTree;
use crate::claim::{Claim, Holding, Resource};
use crate::cpu::CpuHold;
use crate::error::{ClaimError, PartitionError};
use crate::plan::Plan;
use crate::populate::Progress;
use crate::populated::Populated;
use crate::spec::CpuMode;
use crate::state_dir::StateDir;

/// The plan's name and dedicated CPUs are this process's. No memory yet; dropping it gives everything back.
#[derive(Debug)]
#[must_use = "dropping it gives the claims back"]
pub struct Reserved {
    plan: Plan,
    state: StateDir,
    // Teardown order: whoever finds the name free finds the CPUs free.
    cpus: Arc<CpuHold>,
    name: Option<Claim>,
}

impl Plan {
    /// The CPUs that nobody else gets, as they are claimed.
    pub fn dedicated(&self) -> impl Iterator<Item = Resource> {
        let held = self.held_cpus().into_iter();
        held.map(|cpu| Resource::new(Resource::CPU, &cpu.to_string()))
    }

    /// Claims the partition's name and, if dedicated, its CPUs: all of them or none.
    pub fn reserve(self, state: &StateDir) -> Result<Reserved, ClaimError> {
        let resource = Resource::new(Resource::PARTITION, self.name());
        let name = state.claim_for(resource, self.name(), Some(Holding::of(&self)))?;
        let dedicated = self.mode() == CpuMode::Dedicated;
        let named: &[usize] = if dedicated { &[] } else { self.pinned() };
        let tree = CgroupTree::of_host();
        let cpus = Arc::new(CpuHold::new(&tree, state, self.name(), self.vcpus(), named));
        let reserved = Reserved {
            cpus,
            name: Some(name),
            state: state.clone(),
            plan: self,
        };
        if dedicated {
            let (plan, cpus) = (&reserved.plan, &reserved.cpus);
            let isolation = cpus.dedicate_cores(plan.pinned(), plan.withheld())?;
            tracing::info!(partition = plan.name(), %isolation, "CPUs are dedicated");
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

    /// Its CPUs: the terms on which it has them can be changed at any time.
    #[must_use]
    pub fn cpus(&self) -> &Arc<CpuHold> {
        &self.cpus
    }

    /// Gives the claims back; the first failure is reported, the others are tried all the same.
    pub fn release(mut self) -> Result<(), ClaimError> {
        let released = self.cpus.release();
        released.and(self.name.take().map_or(Ok(()), Claim::release))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // Others may still have the handle, and the name goes last.
        if let Err(error) = self.cpus.release() {
            tracing::error!(%error, "CPUs are not given back whole; `vmm heal` tries again");
        }
    }
}
