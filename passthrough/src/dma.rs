//! Guest memory mapped for DMA: one subscriber of the guest memory, checked as a whole before the first byte is mapped.

use std::error::Error;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError};

use pellucid_partition::{GuestMemory, MemorySubscriber, Region, Subscription};

use crate::error::AssignError;
use crate::space::IoSpace;
use crate::sys::Container;

/// Guest memory that the devices of a space can reach; unmapped when the last of them lets go.
pub(crate) struct MappedMemory {
    _subscription: Subscription,
}

impl MappedMemory {
    pub(crate) fn new(subscription: Subscription) -> MappedMemory {
        MappedMemory {
            _subscription: subscription,
        }
    }
}

impl IoSpace {
    /// Maps the guest's memory for DMA, if that is not done yet. Checked as a whole before the first byte is mapped.
    pub(crate) fn map(&self, memory: &GuestMemory) -> Result<Arc<MappedMemory>, AssignError> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapped) = mapped.upgrade() {
            return Ok(mapped);
        }
        if let Ok(limits) = self.container.limits() {
            let regions: Vec<(u64, u64)> = memory
                .regions()
                .iter()
                .map(|region| (region.guest.0, region.guest.0 + region.size))
                .collect();
            fits(&regions, &limits.ranges, limits.dma_avail)?;
        }
        let mapper = Mapper {
            container: Arc::clone(&self.container),
        };
        let subscription = memory.subscribe(Arc::new(mapper))?;
        let fresh = Arc::new(MappedMemory::new(subscription));
        *mapped = Arc::downgrade(&fresh);
        Ok(fresh)
    }
}

/// Whether all of `regions` (start, end) lie in `ranges`, and there are mappings enough. Pure.
fn fits(
    regions: &[(u64, u64)],
    ranges: &[RangeInclusive<u64>],
    available: Option<u32>,
) -> Result<(), AssignError> {
    if let Some(available) = available
        && (available as usize) < regions.len()
    {
        return Err(AssignError::TooManyMappings {
            available,
            wanted: regions.len(),
        });
    }
    for (start, end) in regions {
        let inside = ranges
            .iter()
            .any(|range| range.start() <= start && end - 1 <= *range.end());
        if !ranges.is_empty() && !inside {
            let accepted: Vec<String> = ranges
                .iter()
                .map(|range| format!("{:#x}..{:#x}", range.start(), range.end()))
                .collect();
            return Err(AssignError::OutsideIommu {
                start: *start,
                end: *end,
                accepted: accepted.join(", "),
            });
        }
    }
    Ok(())
}

/// The one subscriber that maps guest memory: private, so that only guest memory itself calls it.
#[derive(Debug)]
struct Mapper {
    container: Arc<Container>,
}

impl MemorySubscriber for Mapper {
    fn name(&self) -> &str {
        "iommu"
    }

    fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>> {
        // One request for the whole region: the kernel then uses the largest pages that the memory allows.
        self.container
            .map(region)
            .map_err(|source| MapRefused { source }.into())
    }

    fn detach(&self, region: &Region) {
        let Err(error) = self.container.unmap(region) else {
            return;
        };
        // A container that its last group has left has no IOMMU any more, and no mappings.
        if error.raw_os_error() == Some(libc::EINVAL) {
            tracing::debug!(
                guest = region.guest.0,
                "guest memory was unmapped with the last group"
            );
        } else {
            tracing::error!(%error, guest = region.guest.0, "guest memory was not unmapped; closing the container does so");
        }
    }
}

/// The IOMMU did not map a region.
#[derive(Debug, thiserror::Error)]
#[error("VFIO_IOMMU_MAP_DMA: {source}; {}", remedy(source))]
struct MapRefused {
    source: io::Error,
}

fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOMEM) => {
            "RLIMIT_MEMLOCK is too small for the guest's memory (raise it: `ulimit -l unlimited`), or the host is out of memory"
        }
        Some(libc::EINVAL) => "the address is beyond the IOMMU's width; give the guest less memory",
        Some(libc::ENOSPC) => "no mappings left; raise vfio_iommu_type1.dma_entry_limit",
        Some(libc::EEXIST) => "another guest's memory is mapped there; use one I/O space per partition",
        _ => "the kernel log says why",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_beyond_a_narrow_iommu_is_refused_before_it_is_mapped() {
        let narrow = [0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff];
        assert!(fits(&[(0, 0xc000_0000), (1 << 32, 1 << 39)], &narrow, Some(2)).is_ok());
        let refusal = fits(&[(1 << 32, (1 << 39) + 4096)], &narrow, None)
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("0x7fffffffff"), "{refusal}");
    }

    #[test]
    fn memory_across_a_reserved_range_is_refused() {
        let reserved = [0..=0xfedf_ffff, 0xfef0_0000..=0xffff_ffff];
        assert!(fits(&[(0xfed0_0000, 0xfef1_0000)], &reserved, None).is_err());
    }

    #[test]
    fn too_few_mappings_left_are_counted() {
        assert!(matches!(
            fits(&[(0, 1), (2, 3)], &[], Some(1)),
            Err(AssignError::TooManyMappings {
                available: 1,
                wanted: 2
            })
        ));
    }

    #[test]
    fn a_refused_map_names_the_limit_that_helps() {
        let refused = MapRefused {
            source: io::Error::from_raw_os_error(libc::ENOMEM),
        };
        assert!(refused.to_string().contains("ulimit -l"));
    }
}
