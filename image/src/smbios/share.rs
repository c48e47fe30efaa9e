//! What a logical server has of its host, as far as SMBIOS speaks of it.

use std::collections::BTreeMap;

use pellucid_partition::{Bdf, Layout, RamRange};

/// CPUs, memory and devices of a logical server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmbiosShare {
    /// Cores of the one package that the guest sees.
    pub cores: u32,
    /// Threads of each core.
    pub threads_per_core: u32,
    /// The addresses that are RAM in the guest.
    pub ram: Vec<RamRange>,
    /// Where the guest finds what the host has at an address, both in domain 0.
    pub devices: BTreeMap<Bdf, Bdf>,
}

impl SmbiosShare {
    /// `vcpus` cores of one thread and the RAM of `layout`, no devices yet.
    #[must_use]
    pub fn new(layout: &Layout, vcpus: u32) -> Self {
        Self {
            cores: vcpus,
            threads_per_core: 1,
            ram: layout.ram().to_vec(),
            devices: BTreeMap::new(),
        }
    }

    /// RAM of each node of the guest in bytes, node 0 first.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        let mut nodes: BTreeMap<u32, u64> = BTreeMap::new();
        for range in &self.ram {
            *nodes.entry(range.node).or_default() += range.size();
        }
        nodes.into_values().filter(|bytes| *bytes > 0).collect()
    }

    /// Threads in all.
    pub(crate) fn threads(&self) -> u32 {
        self.cores.saturating_mul(self.threads_per_core)
    }

    /// The guest's address of the function that the host has at `host`.
    pub(crate) fn function(&self, host: Bdf) -> Option<Bdf> {
        self.devices.get(&host).copied()
    }

    /// The same for what is in a slot: any function of that device will do.
    pub(crate) fn device(&self, host: Bdf) -> Option<Bdf> {
        let first = Bdf::of_devfn(host.domain(), host.bus(), host.devfn() & !7);
        let last = Bdf::of_devfn(host.domain(), host.bus(), host.devfn() | 7);
        let exact = self.function(host);
        exact.or_else(|| self.devices.range(first..=last).next().map(|(_, guest)| *guest))
    }
}
