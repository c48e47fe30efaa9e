//! Guest memory mapped for DMA: one subscriber of the guest memory, checked as a whole before the first byte is mapped.

use std::error::Error;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use pellucid_partition::{GuestMemory, LockBudget, MemorySubscriber, Progress, Region, Subscription};

use crate::error::AssignError;
use crate::space::IoSpace;
use crate::sys::{Container, IovaLimits};

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

/// Who is told how far mapping has come. Called from the thread that maps, after each request.
pub type DmaProgress = Arc<dyn Fn(Progress) + Send + Sync>;

impl IoSpace {
    /// Has `progress` told how mapping guest memory comes on, from the next time on.
    pub fn report_to(&self, progress: DmaProgress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    /// Maps the guest's memory for DMA, if that is not done yet. Checked as a whole before the first byte is mapped.
    pub(crate) fn map(&self, memory: &GuestMemory) -> Result<Arc<MappedMemory>, AssignError> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mapped) = mapped.upgrade() {
            return Ok(mapped);
        }
        let regions: Vec<Wanted> = memory.regions().iter().map(Wanted::of).collect();
        if let Ok(limits) = self.container.limits() {
            fits(&regions, &limits)?;
        }
        let total = regions.iter().map(|region| region.end - region.start).sum();
        // What cannot be read is left to the kernel, which asks the same question.
        if let Ok(budget) = LockBudget::read() {
            may_lock(total, budget)?;
        }
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mapper = Mapper {
            container: Arc::clone(&self.container),
            progress: progress.clone(),
            total,
            done: AtomicU64::new(0),
            start: Instant::now(),
        };
        drop(progress);
        let subscription = memory.subscribe(Arc::new(mapper))?;
        let fresh = Arc::new(MappedMemory::new(subscription));
        *mapped = Arc::downgrade(&fresh);
        Ok(fresh)
    }
}

/// What is to be mapped of one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    start: u64,
    end: u64,
    host: u64,
}

impl Wanted {
    fn of(region: &Region) -> Wanted {
        Wanted {
            start: region.guest.0,
            end: region.guest.0 + region.size,
            host: region.host.0,
        }
    }

    /// The requests that map it: up to the next GiB each, so that the largest pages of an IOMMU fit, a failure is told soon, and
    /// progress can be.
    fn requests(self) -> impl Iterator<Item = Range<u64>> {
        let next = move |at: u64| (at / REQUEST + 1).saturating_mul(REQUEST).min(self.end);
        let starts = std::iter::successors(Some(self.start), move |at| Some(next(*at)));
        starts
            .take_while(move |at| *at < self.end)
            .map(move |at| at..next(at))
    }
}

/// Whether the IOMMU takes all of `regions`: inside its ranges, in its pages, and in as many mappings as are left. Pure.
fn fits(regions: &[Wanted], limits: &IovaLimits) -> Result<(), AssignError> {
    let wanted = regions.iter().map(|region| region.requests().count()).sum();
    if let Some(available) = limits.dma_avail
        && (available as usize) < wanted
    {
        return Err(AssignError::TooManyMappings { available, wanted });
    }
    let page = limits.page_sizes & limits.page_sizes.wrapping_neg();
    for Wanted { start, end, host } in regions {
        if page > 1 && (start | end | host) & (page - 1) != 0 {
            return Err(AssignError::PageSize {
                start: *start,
                end: *end,
                page,
            });
        }
        let inside = limits
            .ranges
            .iter()
            .any(|range| range.start() <= start && end - 1 <= *range.end());
        if !limits.ranges.is_empty() && !inside {
            let accepted = limits.ranges.iter();
            let accepted: Vec<String> = accepted
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

/// Whether `wanted` bytes may be pinned: the kernel charges them to the limit, also those that are locked already. Pure.
fn may_lock(wanted: u64, budget: LockBudget) -> Result<(), AssignError> {
    let LockBudget { limit, locked } = budget;
    match limit {
        Some(limit) if limit.saturating_sub(locked) < wanted => Err(AssignError::LockLimit {
            wanted,
            limit,
            locked,
        }),
        _ => Ok(()),
    }
}

/// The one subscriber that maps guest memory: private, so that only guest memory itself calls it.
struct Mapper {
    container: Arc<Container>,
    progress: Option<DmaProgress>,
    total: u64,
    done: AtomicU64,
    start: Instant,
}

impl Mapper {
    fn tell(&self, mapped: u64) {
        let done = self.done.fetch_add(mapped, Ordering::Relaxed) + mapped;
        if let Some(progress) = &self.progress {
            // Memory that is added later is more than there was at first.
            progress(Progress {
                done,
                total: self.total.max(done),
                elapsed: self.start.elapsed(),
            });
        }
    }
}

impl MemorySubscriber for Mapper {
    fn name(&self) -> &str {
        "iommu"
    }

    /// One request after the other: the kernel holds the container's lock through each, so a second thread would only wait.
    fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>> {
        for request in Wanted::of(region).requests() {
            if let Err(source) = self.container.map_part(region, request.clone()) {
                if request.start > region.guest.0 {
                    self.detach(region);
                }
                return Err(MapRefused { source }.into());
            }
            self.tell(request.end - request.start);
        }
        Ok(())
    }

    /// The kernel takes back every mapping inside the range in one request.
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

/// The largest page of common IOMMUs.
const REQUEST: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::RangeInclusive;

    use proptest::prelude::*;

    fn wanted(start: u64, end: u64) -> Wanted {
        Wanted {
            start,
            end,
            host: 0x7f00_0000_0000,
        }
    }

    fn limits(ranges: &[RangeInclusive<u64>], dma_avail: Option<u32>) -> IovaLimits {
        IovaLimits {
            ranges: ranges.to_vec(),
            dma_avail,
            page_sizes: 0x4020_1000,
        }
    }

    #[test]
    fn memory_beyond_a_narrow_iommu_is_refused_before_it_is_mapped() {
        let narrow = [0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff];
        assert!(
            fits(
                &[wanted(0, 0xc000_0000), wanted(1 << 32, 1 << 39)],
                &limits(&narrow, None)
            )
            .is_ok()
        );
        let refusal = fits(&[wanted(1 << 32, (1 << 39) + 4096)], &limits(&narrow, None))
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("0x7fffffffff"), "{refusal}");
    }

    #[test]
    fn memory_across_a_reserved_range_is_refused() {
        let reserved = [0..=0xfedf_ffff, 0xfef0_0000..=0xffff_ffff];
        assert!(fits(&[wanted(0xfed0_0000, 0xfef1_0000)], &limits(&reserved, None)).is_err());
    }

    #[test]
    fn too_few_mappings_left_are_counted_by_request() {
        let regions = [wanted(0, 0xa_0000), wanted(0x10_0000, 3 << 30)];
        assert!(fits(&regions, &limits(&[], Some(4))).is_ok());
        assert!(matches!(
            fits(&regions, &limits(&[], Some(3))),
            Err(AssignError::TooManyMappings {
                available: 3,
                wanted: 4
            })
        ));
    }

    #[test]
    fn memory_in_smaller_pages_than_the_iommus_is_refused() {
        let large = IovaLimits {
            page_sizes: 0x1_0000,
            ..limits(&[], None)
        };
        assert!(fits(&[wanted(0x1_0000, 0x3_0000)], &large).is_ok());
        let refusal = fits(&[wanted(0x1_0000, 0x2_1000)], &large)
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains("64 KiB") || refusal.contains("0x10000"),
            "{refusal}"
        );
    }

    #[test]
    fn what_is_locked_already_counts_against_the_limit() {
        let budget = |limit, locked| LockBudget { limit, locked };
        assert!(may_lock(1 << 30, budget(None, 1 << 40)).is_ok());
        assert!(may_lock(1 << 30, budget(Some(2 << 30), 1 << 30)).is_ok());
        let refusal = may_lock(1 << 30, budget(Some(2 << 30), (1 << 30) + 1))
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains("RLIMIT_MEMLOCK") && refusal.contains("ulimit -l"),
            "{refusal}"
        );
    }

    #[test]
    fn a_refused_map_names_the_limit_that_helps() {
        let refused = MapRefused {
            source: io::Error::from_raw_os_error(libc::ENOMEM),
        };
        assert!(refused.to_string().contains("ulimit -l"));
    }

    proptest! {
        #[test]
        fn requests_cover_a_region_once_and_cross_no_gib(start in 0u64..8 << 18, pages in 1u64..3 << 18) {
            let (start, end) = (start << 12, (start + pages) << 12);
            let requests: Vec<_> = wanted(start, end).requests().collect();
            prop_assert_eq!(requests.first().map(|first| first.start), Some(start));
            prop_assert_eq!(requests.last().map(|last| last.end), Some(end));
            prop_assert!(requests.windows(2).all(|pair| pair[0].end == pair[1].start));
            prop_assert!(requests.iter().all(|one| one.start < one.end && one.start >> 30 == (one.end - 1) >> 30));
        }
    }
}
