//! Why a claim was not granted or not given back.

use std::io;
use std::path::PathBuf;

use super::CpuError;

/// A claim that was not granted, or not given back.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody living holds it.
    #[error("{resource} is in use by logical server {holder:?} (pid {pid}); stop that first")]
    Held {
        /// What was asked for.
        resource: String,
        /// The partition that holds it.
        holder: String,
        /// Its process, 0 where it could not be read.
        pid: u32,
    },
    /// Its last owner died before it could undo what it did.
    #[error(
        "{resource} was left behind by logical server {holder:?} (pid {pid}, dead); run `vmm heal` to restore it"
    )]
    Stale {
        /// What was asked for.
        resource: String,
        /// The partition that held it.
        holder: String,
        /// Its process.
        pid: u32,
    },
    /// Somebody who uses another state directory holds it.
    #[error(
        "{resource} is in use by a logical server of another user or mount namespace of this host; stop that first (`vmm list` there names it)"
    )]
    Elsewhere {
        /// What was asked for.
        resource: String,
    },
    /// The state directory does not work.
    #[error(
        "state directory {path}: {act}: {source}; mend that, or name another (PELLUCID_STATE_DIR), which is a ledger of its own: claims here do not count there",
        path = path.display()
    )]
    State {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        act: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A record that is not ours or is damaged.
    #[error("claim record {path} is damaged: {source}; look at it, then remove it", path = path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// CPUs or their control groups were not given back.
    #[error(transparent)]
    Cpus(Box<CpuError>),
}
