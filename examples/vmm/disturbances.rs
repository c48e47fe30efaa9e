//! What disturbs dedicated CPUs, told on standard error when it begins, and not again each second.

use std::mem::{Discriminant, discriminant};

use pellucid::LogicalServer;
use pellucid::partition::{CpuEvent, CpuTerms, CpuWatch, WatchLimits};

/// The watch over a server's dedicated CPUs.
pub(crate) struct Disturbances {
    watch: CpuWatch,
    told: Vec<Discriminant<CpuEvent>>,
}

impl Disturbances {
    /// `None` for a server whose CPUs are shared.
    pub(crate) fn of(server: &LogicalServer) -> Option<Self> {
        let dedicated = matches!(server.cpus().terms(), CpuTerms::Dedicated { .. });
        dedicated.then(|| Self {
            watch: server.cpus().watch(WatchLimits::default()),
            told: Vec::new(),
        })
    }

    /// Tells the first disturbance of each kind.
    pub(crate) fn tell(&mut self) {
        for event in self.watch.check() {
            let kind = discriminant(&event);
            if !self.told.contains(&kind) {
                tell!("vmm: {event}\r");
                self.told.push(kind);
            }
        }
    }
}
