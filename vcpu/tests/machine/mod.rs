//! A partition small enough for a guest of a few bytes, devices that remember what reached them, and an ear for events.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test target uses its own part of this, and what fails here fails its test"
)]

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pellucid_partition::{
    BusRange, Entry, GuestAddress, Inventory, MmioHandler, PartitionSpec, PioHandler, Plan, Populated,
    StateDir,
};
use pellucid_vcpu::{Parked, Running, VcpuEvent, VcpuPolicy};

/// Where guests are loaded: 32-bit flat code begins here.
pub const CODE: u64 = 0x10_0000;
/// Longer than any bounded step takes on a host that emulates guests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What keeps devices on the two buses.
pub type Ranges = (Vec<BusRange<dyn PioHandler>>, Vec<BusRange<dyn MmioHandler>>);

/// A partition with a guest in it, and what is on its buses.
pub struct Machine {
    pub ranges: Ranges,
    pub partition: Populated,
    // Last: the claims lie in it.
    _state: tempfile::TempDir,
}

impl Machine {
    /// 16 MiB, that many vCPUs, `code` at `CODE`.
    pub fn new(vcpus: usize, code: &[u8]) -> Self {
        let inventory = Inventory::survey().unwrap();
        Self::fitted(
            &Plan::fit(&inventory, &PartitionSpec::new("tiny", vcpus, 16 << 20).unwrap()).unwrap(),
            code,
        )
    }

    pub fn fitted(plan: &Plan, code: &[u8]) -> Self {
        let state = tempfile::tempdir().unwrap();
        let directory = StateDir::at(&state.path().join("state")).unwrap();
        let partition = plan
            .clone()
            .reserve(&directory)
            .unwrap()
            .populate(&|_| {})
            .unwrap();
        partition.memory().write(GuestAddress(CODE), code).unwrap();
        Self {
            ranges: Default::default(),
            partition,
            _state: state,
        }
    }

    pub fn with_port(mut self, port: u64, size: u64, handler: Arc<dyn PioHandler>) -> Self {
        self.ranges
            .0
            .push(self.partition.pio().insert(port, size, "port", handler).unwrap());
        self
    }

    pub fn with_mmio(mut self, base: u64, handler: Arc<dyn MmioHandler>) -> Self {
        self.ranges.1.push(
            self.partition
                .mmio()
                .insert(base, 0x1000, "window", handler)
                .unwrap(),
        );
        self
    }

    /// Runs from `CODE` in flat 32-bit mode.
    pub fn run(&self) -> (Running, Receiver<VcpuEvent>) {
        self.run_at(Entry::Pvh {
            rip: GuestAddress(CODE),
            start_info: GuestAddress(0x6000),
        })
    }

    pub fn run_at(&self, entry: Entry) -> (Running, Receiver<VcpuEvent>) {
        let (sender, events) = channel();
        let parked = Parked::create(&self.partition, entry, &VcpuPolicy::default()).unwrap();
        (
            parked.run(move |event| sender.send(event).unwrap()).unwrap(),
            events,
        )
    }
}

/// Remembers every access, tells of each write, answers reads from a list.
#[derive(Default)]
pub struct Recorder {
    pub writes: Mutex<Vec<(u64, Vec<u8>)>>,
    pub reads: Mutex<Vec<(u64, usize)>>,
    pub answers: Mutex<std::collections::VecDeque<u64>>,
    tell: Mutex<Option<std::sync::mpsc::Sender<u64>>>,
}

impl Recorder {
    /// A recorder, and the channel on which each written value arrives.
    pub fn new(answers: impl IntoIterator<Item = u64>) -> (Arc<Self>, Receiver<u64>) {
        let (sender, written) = channel();
        let recorder = Self {
            answers: Mutex::new(answers.into_iter().collect()),
            tell: Mutex::new(Some(sender)),
            ..Self::default()
        };
        (Arc::new(recorder), written)
    }

    fn note_write(&self, offset: u64, data: &[u8]) {
        self.writes.lock().unwrap().push((offset, data.to_vec()));
        let mut word = [0; 8];
        word[..data.len()].copy_from_slice(data);
        if let Some(tell) = &*self.tell.lock().unwrap() {
            let _ = tell.send(u64::from_le_bytes(word));
        }
    }

    fn answer(&self, offset: u64, data: &mut [u8]) {
        self.reads.lock().unwrap().push((offset, data.len()));
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(0);
        let size = data.len();
        data.copy_from_slice(&answer.to_le_bytes()[..size]);
    }
}

impl PioHandler for Recorder {
    fn read(&self, offset: u16, data: &mut [u8]) {
        self.answer(u64::from(offset), data);
    }
    fn write(&self, offset: u16, data: &[u8]) {
        self.note_write(u64::from(offset), data);
    }
}

impl MmioHandler for Recorder {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.answer(offset, data);
    }
    fn write(&self, offset: u64, data: &[u8]) {
        self.note_write(offset, data);
    }
}

/// Takes `count` values from a channel.
pub fn take(written: &Receiver<u64>, count: usize) -> Vec<u64> {
    (0..count)
        .map(|_| written.recv_timeout(PATIENCE).unwrap())
        .collect()
}
