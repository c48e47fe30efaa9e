//! What crosses between the two halves: what to measure goes in, samples come out, each a line of JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the measuring part is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// The VMMs, measured in turn.
    pub(crate) contenders: Vec<Contender>,
    /// How often each is measured, after one boot that is not counted.
    pub(crate) rounds: u32,
    /// How many blocks of 4 KiB each guest reads.
    pub(crate) reads: u32,
    /// The function that is passed through.
    pub(crate) device: String,
    /// The guest's memory in bytes.
    pub(crate) memory: u64,
}

/// A VMM and how it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contender {
    /// Its name in the table.
    pub(crate) name: String,
    /// The program and its arguments.
    pub(crate) words: Vec<String>,
    /// Variables that it needs.
    pub(crate) variables: Vec<(String, String)>,
    /// The thread of its vCPU, and the CPU to which it is pinned from outside; `None` if it pins for itself or is not pinned.
    pub(crate) pinned: Option<(String, usize)>,
}

/// KVM's counters of one virtual machine by name.
pub(crate) type Counters = BTreeMap<String, u64>;

/// What one boot came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Which VMM.
    pub contender: String,
    /// Which round; 0 is not counted.
    pub round: u32,
    /// From the start of the program to the first word of the guest's init, in milliseconds.
    pub start_ms: f64,
    /// KVM's counters of the virtual machine at that moment.
    pub until_init: BTreeMap<String, u64>,
    /// Resident memory of the VMM without the guest's, in KiB, at that moment.
    pub resident_kib: u64,
    /// The reads, in milliseconds.
    pub reads_ms: f64,
    /// How many blocks were read.
    pub reads: u32,
    /// By how much KVM's counters grew meanwhile.
    pub during_reads: BTreeMap<String, u64>,
}

impl Sample {
    /// Exits from the guest until its init.
    pub fn exits_until_init(&self) -> f64 {
        count(&self.until_init, "exits")
    }

    /// Exits from the guest for each block read.
    pub fn exits_per_read(&self) -> f64 {
        count(&self.during_reads, "exits") / f64::from(self.reads.max(1))
    }
}

pub(crate) fn count(counters: &Counters, name: &str) -> f64 {
    counters.get(name).copied().unwrap_or(0) as f64
}
