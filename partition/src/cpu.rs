//! The CPUs of a partition: on which terms its vCPU threads have them. The terms change while they run, and the guest sees nothing of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::thread::gettid;

use crate::cgroup::{CgroupTree, Footprint, Isolation};
use crate::error::{ClaimError, CpuError};
use crate::state_dir::StateDir;

mod affinity;
mod dedicated;
mod held;
mod share;
mod shared;
mod usage;
mod watch;

use held::Held;
pub use share::{Cap, CpuShare, Weight};
use usage::Counted;
pub use usage::{CpuInterval, CpuUsage};
pub use watch::{CpuEvent, CpuWatch, WatchLimits};

/// The terms on which a partition has its CPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuTerms {
    /// One CPU for each vCPU, in order.
    Dedicated {
        /// The CPUs.
        cpus: Vec<usize>,
        /// Siblings of those, held beside them so that nobody computes on the same cores.
        idle: Vec<usize>,
        /// What keeps others off them.
        isolation: Isolation,
    },
    /// A share of the CPUs that the host leaves.
    Shared {
        /// Its share.
        share: CpuShare,
        /// The group of partitions that the share is taken from, if any.
        group: Option<String>,
    },
}

/// What holds a partition's vCPU threads. Dropped, it gives their CPUs and its control groups back.
#[derive(Debug)]
pub struct CpuHold {
    tree: CgroupTree,
    state: StateDir,
    name: String,
    vcpus: usize,
    held: Mutex<Held>,
}

/// A vCPU's thread is where the terms want it. Dropped by that thread when it ends.
#[derive(Debug)]
#[must_use = "dropping it says that the thread ends"]
pub struct CpuSeat {
    hold: Arc<CpuHold>,
    vcpu: u32,
}

impl CpuHold {
    /// The CPUs of a partition that shares them with everybody and asks for nothing. Touches nothing.
    ///
    /// If `named` is not empty, it has the CPU that each vCPU shall run on.
    #[must_use]
    pub fn new(tree: &CgroupTree, state: &StateDir, name: &str, vcpus: usize, named: &[usize]) -> Self {
        let terms = CpuTerms::Shared {
            share: CpuShare::default(),
            group: None,
        };
        let held = Held {
            terms,
            named: named.to_vec(),
            threads: BTreeMap::new(),
            realtime: None,
            place: None,
            housekeeping: None,
            footprint: None,
            settled: None,
            claims: Vec::new(),
            counted: Counted::default(),
        };
        Self {
            tree: tree.clone(),
            state: state.clone(),
            name: name.to_owned(),
            vcpus,
            held: Mutex::new(held),
        }
    }

    /// The terms as they are now.
    #[must_use]
    pub fn terms(&self) -> CpuTerms {
        self.held().terms.clone()
    }

    /// Puts the calling thread, as that vCPU's, where the terms want it, and proves it by asking the kernel.
    pub fn seat(self: &Arc<Self>, vcpu: u32) -> Result<CpuSeat, CpuError> {
        let mut held = self.held();
        let thread = gettid();
        held.put(&self.tree, vcpu, thread)?;
        held.threads.insert(vcpu, thread);
        let hold = Arc::clone(self);
        Ok(CpuSeat { hold, vcpu })
    }

    /// Puts the vCPU threads under SCHED_FIFO with a priority of 1 to 99, now and whenever one starts; back if `None`.
    ///
    /// Worth it on dedicated CPUs only: nothing of lower priority runs there any more, the kernel's own threads included.
    pub fn use_realtime(&self, priority: Option<u8>) -> Result<(), CpuError> {
        if let Some(asked) = priority.filter(|priority| !(1..=99).contains(priority)) {
            return Err(CpuError::Priority { asked });
        }
        let mut held = self.held();
        let before = std::mem::replace(&mut held.realtime, priority);
        let threads = held.threads.clone();
        let refused = threads
            .iter()
            .find_map(|(vcpu, thread)| held.schedule(*vcpu, *thread).err());
        if let Some(refusal) = refused {
            held.realtime = before;
            for (vcpu, thread) in &threads {
                // What the kernel granted before, it grants again.
                let _ = held.schedule(*vcpu, *thread);
            }
            return Err(refusal);
        }
        Ok(())
    }

    /// What the vCPUs asked for and got until now.
    #[must_use]
    pub fn usage(&self) -> CpuUsage {
        self.held().usage(&self.tree)
    }

    /// A watch over dedicated CPUs; it has nothing to say of shared ones.
    pub fn watch(self: &Arc<Self>, limits: WatchLimits) -> CpuWatch {
        CpuWatch::new(Arc::clone(self), limits)
    }

    /// Gives everything back, after the vCPU threads have ended. A part that fails does not keep the others; the first failure is returned.
    pub fn release(&self) -> Result<(), ClaimError> {
        let mut held = self.held();
        let ended = held.footprint.take().map_or(Ok(()), Footprint::end);
        let mut outcome = ended.map_err(ClaimError::from);
        held.place = None;
        held.housekeeping = None;
        held.settled = None;
        while let Some(claim) = held.claims.pop() {
            let released = claim.release();
            outcome = outcome.and(released);
        }
        outcome
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CpuSeat {
    fn drop(&mut self) {
        let mut held = self.hold.held();
        if let Some(thread) = held.threads.remove(&self.vcpu) {
            held.counted.end(&self.hold.tree, thread);
        }
    }
}

impl Drop for CpuHold {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::error!(%error, "CPUs are not given back whole; `vmm heal` tries again");
        }
    }
}
