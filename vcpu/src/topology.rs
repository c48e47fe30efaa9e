//! How the vCPUs of a partition are grouped into cores: one package, equal cores, APIC id = vCPU number.
//!
//! A pure value. Threads per core are a power of two, so APIC ids have no gaps and equal what the ACPI tables say.

use crate::error::TopologyError;

/// The shape that the guest's CPUID tables tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    cores: u32,
    threads_per_core: u32,
}

impl Topology {
    /// One thread per core. None at all counts as one.
    #[must_use]
    pub fn flat(vcpus: u32) -> Self {
        Self {
            cores: vcpus.max(1),
            threads_per_core: 1,
        }
    }

    /// Cores of `threads_per_core` (1, 2 or 4) consecutive vCPUs each.
    ///
    /// Refuses other thread counts, and a number of vCPUs that leaves a core incomplete.
    pub fn with_threads(vcpus: u32, threads_per_core: u32) -> Result<Self, TopologyError> {
        if !matches!(threads_per_core, 1 | 2 | 4) {
            return Err(TopologyError::Threads { threads_per_core });
        }
        if vcpus == 0 || !vcpus.is_multiple_of(threads_per_core) {
            return Err(TopologyError::Incomplete {
                vcpus,
                threads_per_core,
            });
        }
        Ok(Self {
            cores: vcpus / threads_per_core,
            threads_per_core,
        })
    }

    /// The shape of the host CPUs that vCPUs are pinned to: for each vCPU, in order, the host core it runs on.
    ///
    /// Cores that are not all used by the same number (1, 2 or 4) of consecutive vCPUs cannot be told to a guest as they are: the
    /// result is then flat, which promises the guest nothing that the host does not keep.
    #[must_use]
    pub fn mirroring(host_cores: &[u32]) -> Self {
        let vcpus = host_cores.len() as u32;
        let threads = host_cores
            .iter()
            .take_while(|&core| Some(core) == host_cores.first())
            .count();
        let mut seen = std::collections::BTreeSet::new();
        let regular = host_cores
            .chunks(threads.max(1))
            .all(|core| core.iter().all(|c| *c == core[0]) && seen.insert(core[0]));
        Self::with_threads(vcpus, threads as u32)
            .ok()
            .filter(|_| regular)
            .unwrap_or_else(|| Self::flat(vcpus))
    }

    /// Logical processors.
    #[must_use]
    pub fn vcpus(&self) -> u32 {
        self.cores.saturating_mul(self.threads_per_core)
    }

    /// Cores of the one package.
    #[must_use]
    pub fn cores(&self) -> u32 {
        self.cores
    }

    /// Threads of each core.
    #[must_use]
    pub fn threads_per_core(&self) -> u32 {
        self.threads_per_core
    }

    /// Low bits of the APIC id that number the threads of a core.
    #[must_use]
    pub fn thread_bits(&self) -> u32 {
        self.threads_per_core.trailing_zeros()
    }

    /// Low bits of the APIC id that number the logical processors of the package.
    #[must_use]
    pub fn package_bits(&self) -> u32 {
        self.vcpus().next_power_of_two().trailing_zeros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn siblings_that_are_pinned_in_pairs_become_threads() {
        let pairs = Topology::mirroring(&[7, 7, 3, 3]);
        assert_eq!((pairs.cores(), pairs.threads_per_core()), (2, 2));
        assert_eq!((pairs.thread_bits(), pairs.package_bits()), (1, 2));
    }

    #[test]
    fn an_irregular_pinning_is_told_as_flat() {
        for cores in [
            &[0, 0, 1][..],
            &[0, 0, 1, 2],
            &[0, 1, 0, 1],
            &[0, 0, 0],
            &[0, 0, 1, 1, 0, 0],
            &[],
        ] {
            let told = Topology::mirroring(cores);
            assert_eq!(told, Topology::flat(cores.len() as u32), "{cores:?}");
        }
    }

    #[test]
    fn a_core_cannot_be_incomplete_or_have_three_threads() {
        assert!(
            Topology::with_threads(3, 2)
                .unwrap_err()
                .to_string()
                .contains("3 vCPUs")
        );
        assert!(
            Topology::with_threads(6, 3)
                .unwrap_err()
                .to_string()
                .contains("1, 2 or 4")
        );
        assert!(Topology::with_threads(0, 1).is_err());
    }

    proptest! {
        #[test]
        fn every_apic_id_fits_the_package_bits(vcpus in 1u32..4096, shift in 0u32..3) {
            let Ok(topology) = Topology::with_threads(vcpus, 1 << shift) else { return Ok(()) };
            prop_assert_eq!(topology.vcpus(), vcpus);
            prop_assert!(vcpus - 1 < 1 << topology.package_bits());
            prop_assert!(topology.thread_bits() <= topology.package_bits());
        }
    }
}
