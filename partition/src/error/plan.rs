//! What survey, specification, map and plan refuse.

use std::io;
use std::path::PathBuf;

use super::in_words;
use crate::inventory::Holder;
use crate::spec::PageSize;

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
    /// What must stay unused leaves no place.
    #[error(
        "{by} at {start:#x}..{end:#x} leaves no place for {what}; do not lend the device that it belongs to"
    )]
    Reserved {
        /// What needs a place.
        what: &'static str,
        /// Whose the addresses are.
        by: String,
        /// First address.
        start: u64,
        /// The address after the last.
        end: u64,
    },
    /// An address width outside what x86 has.
    #[error("an address width of {bits} bits is outside 39 to 52")]
    AddressBits {
        /// The width asked for.
        bits: u8,
    },
}

/// A specification that makes no sense on any host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A name that cannot be a file name of the ledger.
    #[error(
        "{name:?} cannot name a partition; use 1 to 64 letters, digits, '-', '_' or '.', beginning with a letter or digit"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// No CPUs, or more than a partition can have.
    #[error("{asked} vCPUs: a partition has 1 to {most}")]
    CpuCount {
        /// vCPUs asked for.
        asked: usize,
        /// vCPUs possible.
        most: usize,
    },
    /// A CPU of the list is in it again.
    #[error("CPU {cpu} is listed twice; each vCPU needs a CPU of its own")]
    CpuTwice {
        /// The CPU.
        cpu: usize,
    },
    /// An empty list of nodes.
    #[error("no memory node is listed; list one or more, or allow any")]
    NoNodes,
    /// Not whole pages of the size asked for.
    #[error("{} of memory are not whole {pages} pages; {} or {} would be", in_words(*memory), in_words(*lower), in_words(*upper))]
    Pages {
        /// Bytes asked for.
        memory: u64,
        /// Page size asked for.
        pages: PageSize,
        /// The next size below.
        lower: u64,
        /// The next size above.
        upper: u64,
    },
    /// A size of memory that no map takes.
    #[error(transparent)]
    Memory(#[from] LayoutError),
}

/// A plan that the host cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// More vCPUs than KVM carries.
    #[error("{asked} vCPUs: this host's KVM has at most {most} in a VM")]
    CpuCount {
        /// vCPUs asked for.
        asked: usize,
        /// vCPUs possible.
        most: usize,
    },
    /// Somebody has the name.
    #[error("partition {name} is held by {holder}; choose another name, or stop that one")]
    NameHeld {
        /// The name.
        name: String,
        /// Who has it.
        holder: Holder,
    },
    /// A CPU of the list is not there, or not for this partition.
    #[error("CPU {cpu} {why}; free: {free}")]
    NoSuchCpu {
        /// The CPU asked for.
        cpu: usize,
        /// What is wrong with it.
        why: String,
        /// What could be asked for, as a list of ranges.
        free: String,
    },
    /// Somebody has a CPU of the list.
    #[error("CPU {cpu} is held by {holder}; free: {free}")]
    CpuHeld {
        /// The CPU asked for.
        cpu: usize,
        /// Who has it.
        holder: Holder,
        /// What could be asked for, as a list of ranges.
        free: String,
    },
    /// Somebody has a sibling of a CPU of the list.
    #[error("CPU {cpu}: its sibling {sibling} is held by {holder}; share siblings, or take of {free}")]
    SiblingHeld {
        /// The CPU asked for.
        cpu: usize,
        /// The thread of the same core.
        sibling: usize,
        /// Who has that.
        holder: Holder,
        /// What could be asked for, as a list of ranges.
        free: String,
    },
    /// Not enough CPUs to dedicate.
    #[error("{asked} dedicated CPUs: {place} {most} to give, since a core stays with the host{}{held}; {remedy}", if held.is_empty() { "" } else { "; " })]
    TooFewCpus {
        /// CPUs asked for.
        asked: usize,
        /// CPUs that could be dedicated.
        most: usize,
        /// Where they were looked for (`node 0 has`).
        place: String,
        /// Who holds which; empty if nobody holds any.
        held: String,
        /// What would fit.
        remedy: String,
    },
    /// A node that does not exist.
    #[error("node {node} does not exist; nodes: {nodes}")]
    NoSuchNode {
        /// The node asked for.
        node: u32,
        /// What could be asked for.
        nodes: String,
    },
    /// CPUs and memory are there, but not on one node.
    #[error("{vcpus} CPUs and {} in {pages} pages are not on one node: {nodes}; allow several nodes, or ask for less", in_words(*memory))]
    NoSingleNode {
        /// CPUs asked for.
        vcpus: usize,
        /// Bytes asked for.
        memory: u64,
        /// Page size asked for.
        pages: PageSize,
        /// What each has.
        nodes: String,
    },
    /// Not enough memory or huge pages.
    #[error("{} of memory in {pages} pages: {rooms}; {remedy}", in_words(*asked))]
    Memory {
        /// Bytes asked for.
        asked: u64,
        /// Page size asked for.
        pages: PageSize,
        /// Bytes that would fit on the nodes asked for, beside the CPUs asked for.
        most: u64,
        /// What there is, who has the rest, and what there is elsewhere.
        rooms: String,
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
