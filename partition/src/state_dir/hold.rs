//! Holding a resource: its lock in the state directory, and its mark on the host.

use std::time::{Duration, Instant};

use self::WhereHeld::{Elsewhere, InThisDirectory};
use super::files::Lock;
use super::{DRAFT, LOCK, RECORD, StateDir, file};
use crate::claim::{ClaimRecord, Resource};
use crate::error::ClaimError;
use crate::host_marks::Mark;
use crate::owner::Standing;

/// The locks of a claim. They go with it, or with its process.
#[derive(Debug)]
pub(crate) struct Hold {
    // Teardown order: whoever gets the lock of this directory finds the mark free.
    marks: Vec<Mark>,
    pub(crate) lock: Lock,
}

/// Where a resource is held that cannot be had.
pub(crate) enum WhereHeld {
    InThisDirectory,
    /// By another user, or in another mount namespace.
    Elsewhere,
}

impl StateDir {
    /// The resource itself, or who holds it. An owner that has not written its name yet, or is just going, is waited for.
    pub(super) fn hold_or_holder(&self, resource: &Resource) -> Result<Hold, ClaimError> {
        let begun = Instant::now();
        loop {
            match self.hold(resource)? {
                Ok(hold) => return Ok(hold),
                // One that dies loses its lock and its mark one after the other.
                Err(Elsewhere) if begun.elapsed() > MARKS_GO => return Err(elsewhere(resource)),
                Err(Elsewhere) => {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                Err(InThisDirectory) => {}
            }
            let record = self.read(resource)?;
            let gone = |record: &ClaimRecord| matches!(record.owner.standing(), Standing::Gone);
            let named = record.as_ref().is_some_and(|record| !gone(record));
            if named || begun.elapsed() > OWNERS_SIGN {
                return Err(self.held(resource, record));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes the lock of `resource` and marks it on the host, or says where it is held.
    pub(crate) fn hold(&self, resource: &Resource) -> Result<Result<Hold, WhereHeld>, ClaimError> {
        let name = file(resource, LOCK);
        let lock = self
            .files
            .lock(&name)
            .map_err(self.error(&name, "cannot be locked"))?;
        let Some(lock) = lock else {
            return Ok(Err(InThisDirectory));
        };
        let marks = match &self.marks {
            Some(marks) => marks
                .take(resource)
                .map_err(self.error(&name, "cannot be marked"))?,
            None => Some(Vec::new()),
        };
        match marks {
            Some(marks) => Ok(Ok(Hold { marks, lock })),
            None => {
                let hold = Hold {
                    marks: Vec::new(),
                    lock,
                };
                // Where nothing is on record, the lock's file says nothing to anybody.
                if self.read(resource)?.is_none() {
                    self.remove(resource, hold)?;
                }
                Ok(Err(Elsewhere))
            }
        }
    }

    /// Whether somebody living holds `resource` in this directory.
    pub(crate) fn is_held(&self, resource: &Resource) -> Result<bool, ClaimError> {
        let name = file(resource, LOCK);
        let held = self.files.is_locked(&name);
        held.map_err(self.error(&name, "cannot be looked at"))
    }

    pub(crate) fn is_marked(&self, resource: &Resource) -> Result<bool, ClaimError> {
        let marked = self.marks.as_ref().map(|marks| marks.is_taken(resource));
        marked
            .unwrap_or(Ok(false))
            .map_err(self.error("", "cannot be compared with the host's marks"))
    }

    /// Removes the record and what else there is of `resource`, and lets go of it. A later removal could be of another's files.
    pub(crate) fn remove(&self, resource: &Resource, hold: Hold) -> Result<(), ClaimError> {
        let removed = |ending| {
            let name = file(resource, ending);
            let removed = self.files.remove(&name);
            removed.map_err(self.error(&name, "cannot be removed"))
        };
        let recorded = removed(RECORD).and_then(|()| removed(DRAFT));
        let synced = self.files.sync().map_err(self.error("", "cannot be synced"));
        drop(hold.marks);
        // A record that stays is somebody's only way back: its lock's file stays with it.
        recorded?;
        removed(LOCK).and(synced)
    }

    pub(super) fn held(&self, resource: &Resource, record: Option<ClaimRecord>) -> ClaimError {
        let unnamed = || ClaimError::Held {
            resource: resource.to_string(),
            holder: "starting".to_owned(),
            pid: 0,
        };
        record.map_or_else(unnamed, ClaimRecord::into_held)
    }
}

pub(super) fn elsewhere(resource: &Resource) -> ClaimError {
    ClaimError::Elsewhere {
        resource: resource.to_string(),
    }
}

/// An owner that has its lock writes its name at once; the wait is for a machine that is very busy.
const OWNERS_SIGN: Duration = Duration::from_secs(1);
const MARKS_GO: Duration = Duration::from_millis(50);
