//! What can be seen of a running vCPU from outside, at any time and without a lock: its exits by reason, and what it is in now.
//!
//! Only the vCPU's own thread writes; each vCPU has cache lines of its own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::stats::{KernelExits, StatsFile};

/// A reason for which a vCPU left the guest and reached this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// `in` from a port (each repetition of a string instruction that KVM delivers together counts once).
    PioRead,
    /// `out` to a port.
    PioWrite,
    /// A read where no memory is.
    MmioRead,
    /// A write where no memory is.
    MmioWrite,
    /// A signal, or a vCPU that was not started yet.
    Interrupted,
    /// A request, crash or unknown exit: at most one in a vCPU's life.
    Last,
}

/// What a vCPU thread is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Our own code, between exits.
    Outside,
    /// `KVM_RUN`: the guest executes, or halts.
    Guest,
    /// The handler of a port.
    Port(u16),
    /// The handler of a guest-physical address.
    Mmio(u64),
    /// Waiting to be resumed.
    Paused,
}

/// Exits of one vCPU since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCounts {
    /// Which one.
    pub vcpu: u32,
    /// Accesses, of those, that no device answered.
    pub unmapped: u64,
    /// The kernel's own counters, exits that it answered itself included; none where the kernel has no statistics file.
    pub kernel: Option<KernelExits>,
    reasons: [u64; ExitReason::ALL.len()],
}

/// One vCPU's counters and place.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Gauge {
    reasons: [AtomicU64; ExitReason::ALL.len()],
    unmapped: AtomicU64,
    place: AtomicU64,
}

/// Reads the counters of all vCPUs of a partition, from any thread, also after they have stopped.
#[derive(Debug, Clone)]
pub struct Meter {
    pub(crate) vcpus: Arc<[Metered]>,
}

/// What a meter reads of one vCPU.
#[derive(Debug)]
pub(crate) struct Metered {
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) stats: Option<StatsFile>,
}

impl Meter {
    /// The counters of every vCPU in order.
    #[must_use]
    pub fn exits(&self) -> Vec<ExitCounts> {
        (0..)
            .zip(self.vcpus.iter())
            .map(|(vcpu, metered)| metered.exits(vcpu))
            .collect()
    }

    /// What every vCPU is in now.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        self.vcpus.iter().map(|metered| metered.gauge.place()).collect()
    }
}

impl Metered {
    fn exits(&self, vcpu: u32) -> ExitCounts {
        let reasons = std::array::from_fn(|at| self.gauge.reasons[at].load(Ordering::Relaxed));
        let kernel = self.stats.as_ref().and_then(|stats| stats.read().ok());
        ExitCounts {
            vcpu,
            unmapped: self.gauge.unmapped.load(Ordering::Relaxed),
            kernel,
            reasons,
        }
    }
}

impl ExitCounts {
    /// Exits for one reason.
    #[must_use]
    pub fn count(&self, reason: ExitReason) -> u64 {
        self.reasons[reason as usize]
    }

    /// Exits that reached this process.
    #[must_use]
    pub fn user(&self) -> u64 {
        self.reasons.iter().sum()
    }

    /// All exits: the kernel's count where there is one, else those that reached this process.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.kernel.map_or_else(|| self.user(), |kernel| kernel.total)
    }
}

impl Gauge {
    pub(crate) fn count(&self, reason: ExitReason) {
        add_one(&self.reasons[reason as usize]);
    }

    pub(crate) fn count_unmapped(&self) {
        add_one(&self.unmapped);
    }

    pub(crate) fn enter(&self, place: Place) {
        self.place.store(place.encode(), Ordering::Relaxed);
    }

    pub(crate) fn place(&self) -> Place {
        Place::decode(self.place.load(Ordering::Relaxed))
    }
}

/// With one writer, a load and a store do without a locked instruction.
fn add_one(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl ExitReason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 6] = [
        Self::PioRead,
        Self::PioWrite,
        Self::MmioRead,
        Self::MmioWrite,
        Self::Interrupted,
        Self::Last,
    ];
}

impl Place {
    fn encode(self) -> u64 {
        match self {
            Self::Outside => 0,
            Self::Guest => 1 << KIND,
            Self::Port(port) => 2 << KIND | u64::from(port),
            Self::Mmio(address) => 3 << KIND | address & ADDRESS,
            Self::Paused => 4 << KIND,
        }
    }

    fn decode(word: u64) -> Self {
        match word >> KIND {
            0 => Self::Outside,
            1 => Self::Guest,
            2 => Self::Port((word & 0xffff) as u16),
            3 => Self::Mmio(word & ADDRESS),
            _ => Self::Paused,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside => f.write_str("the run loop"),
            Self::Guest => f.write_str("the guest"),
            Self::Port(port) => write!(f, "the handler of port {port:#x}"),
            Self::Mmio(address) => write!(f, "the handler of address {address:#x}"),
            Self::Paused => f.write_str("a pause"),
        }
    }
}

/// A place's kind stands above its address: guest-physical addresses have at most 52 bits.
const KIND: u32 = 60;
const ADDRESS: u64 = (1 << KIND) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_its_one_word() {
        for place in [
            Place::Outside,
            Place::Guest,
            Place::Port(0xffff),
            Place::Mmio((1 << 52) - 1),
            Place::Paused,
        ] {
            assert_eq!(Place::decode(place.encode()), place);
        }
    }

    #[test]
    fn counts_are_told_by_reason_and_summed() {
        let gauge = Arc::new(Gauge::default());
        for (times, reason) in ExitReason::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| gauge.count(reason));
        }
        gauge.count_unmapped();
        let meter = Meter {
            vcpus: [Metered { gauge, stats: None }].into(),
        };
        let [counts] = meter.exits()[..] else {
            panic!("one vCPU")
        };
        assert_eq!(counts.count(ExitReason::PioRead), 0);
        assert_eq!(counts.count(ExitReason::Last), 5);
        assert_eq!((counts.user(), counts.total(), counts.unmapped), (15, 15, 1));
    }
}
