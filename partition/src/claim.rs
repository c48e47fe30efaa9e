//! Claims: a kernel-held lock says who owns a resource, a record written ahead says how to undo what the owner did.
//!
//! The lock dies with its owner, whatever kills it; the record stays, and [`StateDir::heal`](crate::StateDir::heal) reads it.

use std::os::fd::{AsFd, BorrowedFd};

use serde::{Deserialize, Serialize};

use crate::error::ClaimError;
use crate::owner::Owner;
use crate::plan::Plan;
use crate::spec::{CpuMode, PageSize};
use crate::state_dir::{Hold, StateDir};

/// What can be claimed: `device 0000:01:00.0`, `cpu 3`, `partition db1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resource {
    /// Its kind.
    pub kind: String,
    /// Its name among its kind.
    pub name: String,
}

/// Who holds a resource, and how to undo what was done to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// What is held.
    pub resource: Resource,
    /// The partition that holds it.
    pub partition: String,
    /// Its process.
    #[serde(flatten)]
    pub owner: Owner,
    /// What comes with the partition's name.
    #[serde(default)]
    pub holding: Option<Holding>,
    /// How to restore the resource; `None` while nothing was changed.
    pub undo: Option<Undo>,
}

/// What a partition has of the host, for those who list claims. Devices have claims of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Its vCPUs.
    pub vcpus: usize,
    /// The host CPU of each of them; empty if the scheduler decides.
    pub cpus: Vec<usize>,
    /// How it holds them.
    pub mode: CpuMode,
    /// Bytes of memory.
    pub memory: u64,
    /// The pages behind it.
    pub pages: PageSize,
    /// The node that it is bound to.
    pub node: Option<u32>,
}

/// A way back, readable by the healer of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// Which healer understands it.
    pub kind: String,
    /// What that healer needs to know.
    pub data: serde_json::Value,
}

/// A resource held by this process.
///
/// Dropped without [`Claim::release`], the lock goes but a written undo stays for `heal`.
#[derive(Debug)]
#[must_use = "dropping the claim gives the resource up"]
pub struct Claim {
    pub(crate) state: StateDir,
    pub(crate) record: ClaimRecord,
    /// None once given up.
    pub(crate) hold: Option<Hold>,
}

impl ClaimRecord {
    /// The refusal of a resource whose owner lives.
    #[must_use]
    pub fn into_held(self) -> ClaimError {
        ClaimError::Held {
            resource: self.resource.to_string(),
            holder: self.partition,
            pid: self.owner.pid,
        }
    }

    /// The refusal of a resource whose owner died before it could undo what it did.
    #[must_use]
    pub fn into_stale(self) -> ClaimError {
        ClaimError::Stale {
            resource: self.resource.to_string(),
            holder: self.partition,
            pid: self.owner.pid,
        }
    }
}

impl Holding {
    pub(crate) fn of(plan: &Plan) -> Self {
        Self {
            vcpus: plan.vcpus(),
            cpus: plan.pinned().to_vec(),
            mode: plan.mode(),
            memory: plan.layout().memory(),
            pages: plan.pages(),
            node: plan.node(),
        }
    }
}

impl Resource {
    /// The kind under which a partition's name is claimed.
    pub const PARTITION: &str = "partition";
    /// The kind under which a dedicated CPU is claimed.
    pub const CPU: &str = "cpu";

    /// A resource of a kind. They make up a file name, `KIND-NAME`: what cannot stand there becomes `_`.
    #[must_use]
    pub fn new(kind: &str, name: &str) -> Self {
        Self {
            kind: kind.replace(['/', '\0', '-'], "_"),
            name: name.replace(['/', '\0'], "_"),
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl Claim {
    /// Records how to undo what the owner is about to do, before it does it. Replaces an earlier record.
    pub fn record_undo(&mut self, kind: &str, data: &serde_json::Value) -> Result<(), ClaimError> {
        self.record.undo = Some(Undo {
            kind: kind.to_owned(),
            data: data.clone(),
        });
        self.state.write(&self.record)
    }

    /// Who holds what.
    #[must_use]
    pub fn record(&self) -> &ClaimRecord {
        &self.record
    }

    /// The descriptor of its lock. A child that has a copy keeps the resource held until it ends, or until this claim ends.
    #[must_use]
    pub fn lock(&self) -> Option<BorrowedFd<'_>> {
        self.hold.as_ref().map(|hold| hold.lock.as_fd())
    }

    /// Gives the resource back, after its owner has undone what it did.
    pub fn release(mut self) -> Result<(), ClaimError> {
        self.record.undo = None;
        self.give_up()
    }

    /// Ends the claim, once: from the moment at which the lock's file is gone, the files of that name may be another's.
    fn give_up(&mut self) -> Result<(), ClaimError> {
        match (self.hold.take(), &self.record.undo) {
            (Some(hold), None) => self.state.remove(&self.record.resource, hold),
            // What was done is not undone: the record stays for `heal`.
            (Some(_), Some(_)) | (None, _) => Ok(()),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(error) = self.give_up() {
            tracing::error!(%error, "a claim's record stays behind; it is harmless");
        }
    }
}
