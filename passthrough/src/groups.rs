//! The IOMMU groups of an I/O address space: VFIO lets each be opened once, so all devices of one share it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pellucid_partition::Bdf;

use crate::error::BindError;
use crate::sys::Group;

/// Groups in use, and those of their functions that no guest has now.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    open: Mutex<BTreeMap<u32, Weak<Group>>>,
    resting: Mutex<BTreeSet<Bdf>>,
}

impl Groups {
    /// The group, opened by `open` if nobody has it open yet.
    pub(crate) fn join(
        &self,
        id: u32,
        open: impl FnOnce() -> Result<Group, BindError>,
    ) -> Result<Arc<Group>, BindError> {
        let mut all = lock(&self.open);
        if let Some(group) = all.get(&id).and_then(Weak::upgrade) {
            return Ok(group);
        }
        let group = Arc::new(open()?);
        all.insert(id, Arc::downgrade(&group));
        Ok(group)
    }

    /// Lets go of a group. Whoever is the last does `last` to it before it is closed.
    pub(crate) fn leave(&self, group: Arc<Group>, last: impl FnOnce(&Group)) {
        // Under the lock, so that nobody joins between the look and the end.
        let _all = lock(&self.open);
        if Arc::strong_count(&group) == 1 {
            last(&group);
        }
        drop(group);
    }

    /// The groups with these numbers; None: one of them is not open here.
    pub(crate) fn of(&self, ids: &BTreeSet<u32>) -> Option<Vec<Arc<Group>>> {
        let all = lock(&self.open);
        ids.iter().map(|id| all.get(id)?.upgrade()).collect()
    }

    /// Notes whether a function is open and in no guest.
    pub(crate) fn rests(&self, device: Bdf, rests: bool) {
        let mut resting = lock(&self.resting);
        if rests {
            resting.insert(device);
        } else {
            resting.remove(&device);
        }
    }

    /// The functions that are open and in no guest: a hot reset may reset them.
    pub(crate) fn resting(&self) -> BTreeSet<Bdf> {
        lock(&self.resting).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
