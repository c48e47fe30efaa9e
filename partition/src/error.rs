//! One error enum per step. Each names its subject, keeps the kernel's own error, and says what would help.

use std::io;
use std::path::PathBuf;

use crate::plan::PageSize;

mod bus;
mod claim;
mod cpu;
mod machine;
mod memory;

pub use bus::BusError;
pub use claim::ClaimError;
pub use cpu::CpuError;
pub use machine::{InterruptError, VmError};
pub use memory::{MemoryError, PopulateError};

/// A guest-physical map that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Less memory than any kernel boots in.
    #[error("{} of memory is too little; give the partition at least {}", in_words(*memory), in_words(*least))]
    TooSmall {
        /// Bytes asked for.
        memory: u64,
        /// Bytes that would do.
        least: u64,
    },
    /// Not whole 2 MiB pages.
    #[error("{memory} bytes of memory are not whole 2 MiB pages; {lower} or {upper} would be")]
    Uneven {
        /// Bytes asked for.
        memory: u64,
        /// The next size below.
        lower: u64,
        /// The next size above.
        upper: u64,
    },
    /// RAM would reach the 64-bit BAR window.
    #[error("{} of memory do not fit in {bits} bits of address space beside the device window; at most {} do", in_words(*memory), in_words(*most))]
    TooLarge {
        /// Bytes asked for.
        memory: u64,
        /// Bytes that would fit.
        most: u64,
        /// Address width.
        bits: u8,
    },
    /// An address width outside what x86 has.
    #[error("an address width of {bits} bits is outside 39 to 52")]
    AddressBits {
        /// The width asked for.
        bits: u8,
    },
}

/// A plan that the host cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A name that cannot be a file name of the ledger.
    #[error(
        "{name:?} cannot name a partition; use 1 to 64 letters, digits, '-', '_' or '.', beginning with a letter or digit"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// No CPUs or more than KVM carries.
    #[error("{asked} vCPUs: a partition has 1 to {most}")]
    CpuCount {
        /// vCPUs asked for.
        asked: usize,
        /// vCPUs possible.
        most: usize,
    },
    /// A CPU of the list is not there.
    #[error("CPU {cpu} is not online or not allowed for this process; usable CPUs: {usable}")]
    NoSuchCpu {
        /// The CPU asked for.
        cpu: usize,
        /// What could be asked for, as a list of ranges.
        usable: String,
    },
    /// A CPU of the list is in it again.
    #[error("CPU {cpu} is listed twice; each vCPU needs a CPU of its own")]
    CpuTwice {
        /// The CPU.
        cpu: usize,
    },
    /// Not enough CPUs to dedicate.
    #[error(
        "{asked} dedicated CPUs: only {most} can be, since one CPU stays with the host; ask for fewer, name them in a list, or leave out --dedicated"
    )]
    TooFewCpus {
        /// CPUs asked for.
        asked: usize,
        /// CPUs that could be dedicated.
        most: usize,
    },
    /// A node that does not exist.
    #[error("node {node} does not exist; nodes: {nodes}")]
    NoSuchNode {
        /// The node asked for.
        node: u32,
        /// What could be asked for.
        nodes: String,
    },
    /// Not enough memory or huge pages.
    #[error("{} of memory in {pages} pages: {place} has {} available; {remedy}", in_words(*asked), in_words(*available))]
    Memory {
        /// Bytes asked for.
        asked: u64,
        /// Page size asked for.
        pages: PageSize,
        /// The node, or the host.
        place: String,
        /// Bytes there are.
        available: u64,
        /// What would help.
        remedy: String,
    },
    /// Memory must be locked for devices and may not be.
    #[error("{} of memory cannot be locked for device DMA: RLIMIT_MEMLOCK is {}; raise it (ulimit -l) or run as root", in_words(*asked), in_words(*limit))]
    Memlock {
        /// Bytes to lock.
        asked: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The guest-physical map refuses.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// The host could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot be read: {source}; is it mounted?", path = path.display())]
pub struct SurveyError {
    /// The file or directory.
    pub path: PathBuf,
    /// The kernel's answer.
    pub source: io::Error,
}

/// What can fail between a plan and a partition with memory.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// A claim was not granted.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// KVM refused.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// Memory refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Memory could not be made resident.
    #[error(transparent)]
    Populate(#[from] PopulateError),
    /// Interrupt wiring refused.
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
}

/// Bytes as a person writes them.
pub(crate) fn in_words(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 && b.is_multiple_of(1 << 30) => format!("{} GiB", b >> 30),
        b if b >= 1 << 20 => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 => format!("{} KiB", b >> 10),
        b => format!("{b} bytes"),
    }
}
