//! What guest memory refuses: to be mapped, changed, reached, populated.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::in_words;
use crate::spec::PageSize;

/// Guest memory refused.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The memory file could not be made.
    #[error("{} of guest memory in {pages} pages: {source}", in_words(*size))]
    Memfd {
        /// Bytes.
        size: u64,
        /// Page size.
        pages: PageSize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A region could not be mapped.
    #[error("{size:#x} bytes of guest memory could not be mapped: {source}")]
    Map {
        /// Bytes.
        size: u64,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A region that cannot be one.
    #[error("{size:#x} bytes of guest memory at {guest:#x} are not whole {pages} pages below 2^63")]
    Shape {
        /// Guest-physical address.
        guest: u64,
        /// Bytes.
        size: u64,
        /// Page size.
        pages: PageSize,
    },
    /// Memory could not be bound to its node.
    #[error("guest memory could not be bound to node {node}: {source}")]
    Bind {
        /// The node.
        node: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A region where RAM is already.
    #[error(
        "{size:#x} bytes of guest memory at {guest:#x} overlap the region at {other:#x}; remove that first"
    )]
    Overlap {
        /// Guest-physical address.
        guest: u64,
        /// Bytes.
        size: u64,
        /// Where the region begins that is there.
        other: u64,
    },
    /// No region begins there.
    #[error("no region of guest memory begins at {guest:#x}; regions begin at {regions}")]
    NoRegion {
        /// Guest-physical address.
        guest: u64,
        /// Where they begin.
        regions: String,
    },
    /// An access that is not all RAM.
    #[error("{size} bytes at guest address {address:#x} are not all RAM")]
    Outside {
        /// Guest-physical address.
        address: u64,
        /// Bytes.
        size: usize,
    },
    /// A subscriber refused a region.
    #[error("{subscriber}: guest memory at {guest:#x}, {size:#x} bytes: {source}")]
    Subscriber {
        /// Who.
        subscriber: String,
        /// Guest-physical address.
        guest: u64,
        /// Bytes.
        size: u64,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Guest memory could not be made resident, locked, or proved to be where it should be.
#[derive(Debug, thiserror::Error)]
pub enum PopulateError {
    /// The limit on locked memory is too small; nothing was populated.
    #[error(
        "{} of guest memory cannot be locked: RLIMIT_MEMLOCK is {} and {} are locked already; raise it (ulimit -l) or run as root",
        in_words(*asked), in_words(*limit), in_words(*locked)
    )]
    Budget {
        /// Bytes to lock.
        asked: u64,
        /// Bytes allowed.
        limit: u64,
        /// Bytes that this process has locked already.
        locked: u64,
    },
    /// Pages could not be faulted in.
    #[error(
        "guest memory at {guest:#x} could not be populated: {source}; is enough memory free (on its node, if it is bound to one), and within the cgroup's limit?"
    )]
    Populate {
        /// Guest-physical address.
        guest: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Pages could not be locked.
    #[error("{} of guest memory at {guest:#x} could not be locked: {source}; raise RLIMIT_MEMLOCK (ulimit -l) or run as root", in_words(*size))]
    Lock {
        /// Guest-physical address.
        guest: u64,
        /// Bytes.
        size: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Pages came from another node than the one they are bound to.
    #[error(
        "guest memory at {guest:#x}, {size:#x} bytes, is bound to node {node} but lies on {found}; free memory on node {node} and start again"
    )]
    Misplaced {
        /// Guest-physical address.
        guest: u64,
        /// Bytes.
        size: u64,
        /// The node asked for.
        node: u32,
        /// Bytes on other nodes, in words.
        found: String,
    },
    /// The kernel's account of this process's memory cannot be read.
    #[error("{path}: {source}; is /proc mounted, on a kernel with CONFIG_PROC_PAGE_MONITOR and CONFIG_NUMA?", path = path.display())]
    Proof {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}
