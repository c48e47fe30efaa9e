//! Guest memory mapped for DMA: one subscriber of the guest memory, checked as a whole before the first byte is mapped.

use std::error::Error;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pellucid_partition::{GuestMemory, LockBudget, MemorySubscriber, Progress, Region, Subscription};

use crate::error::AssignError;
use crate::space::IoSpace;
use crate::sys::IovaLimits;

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

/// Who is told how far mapping has come: after each GiB at most, from the thread that maps, never less than before, and last of all
/// that everything is done. Memory that is added later is a count of its own.
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
        let progress = self
            .progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mapper = Mapper::new(Arc::clone(&self.container) as _, progress, total);
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

/// What maps guest memory for DMA: a container; in tests a script.
pub(crate) trait Iommu: Send + Sync {
    /// Maps a part of a region, given by guest addresses, at the I/O addresses equal to these.
    fn map_part(&self, region: &Region, part: Range<u64>) -> io::Result<()>;
    /// Unmaps whatever is mapped of a region.
    fn unmap(&self, region: &Region) -> io::Result<()>;
}

/// The one subscriber that maps guest memory: private, so that only guest memory itself calls it.
struct Mapper {
    iommu: Arc<dyn Iommu>,
    progress: Option<DmaProgress>,
    count: Mutex<Count>,
}

/// How much of what is being mapped has been.
struct Count {
    done: u64,
    total: u64,
    begun: Instant,
}

impl Mapper {
    /// One that is to map `total` bytes when it subscribes.
    fn new(iommu: Arc<dyn Iommu>, progress: Option<DmaProgress>, total: u64) -> Mapper {
        let count = Mutex::new(Count::of(total));
        Mapper {
            iommu,
            progress,
            count,
        }
    }

    fn tell(&self, mapped: u64) {
        let mut count = self.lock();
        count.done += mapped;
        if let Some(progress) = &self.progress {
            progress(Progress {
                done: count.done,
                total: count.total,
                elapsed: count.begun.elapsed(),
            });
        }
    }

    /// Counts anew if all that was counted before is done: this region was added to a guest that has its memory.
    fn begin(&self, region: &Region) {
        let mut count = self.lock();
        if count.done == count.total {
            *count = Count::of(region.size);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    fn of(total: u64) -> Count {
        let begun = Instant::now();
        Count {
            done: 0,
            total,
            begun,
        }
    }
}

impl MemorySubscriber for Mapper {
    fn name(&self) -> &str {
        "iommu"
    }

    /// One request after the other: the kernel holds the container's lock through each, so a second thread only takes time from the first
    /// (docs/decisions/0023-one-thread-maps-for-dma.md).
    fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.begin(region);
        let mut unfinished = Unfinished {
            mapper: self,
            region,
            is_mapped: false,
        };
        for request in Wanted::of(region).requests() {
            let mapped = self.iommu.map_part(region, request.clone());
            mapped.map_err(|source| MapRefused {
                request: request.clone(),
                source,
            })?;
            unfinished.is_mapped = true;
            self.tell(request.end - request.start);
        }
        std::mem::forget(unfinished);
        Ok(())
    }

    /// The kernel takes back every mapping inside the range in one request.
    fn detach(&self, region: &Region) {
        let Err(error) = self.iommu.unmap(region) else {
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

/// A region of which a part may be mapped; dropped, also by a panic of who is told, it is unmapped.
struct Unfinished<'m> {
    mapper: &'m Mapper,
    region: &'m Region,
    is_mapped: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if self.is_mapped {
            self.mapper.detach(self.region);
        }
        // Whatever comes next is another attempt.
        *self.mapper.lock() = Count::of(0);
    }
}

/// The IOMMU did not map a part of a region.
#[derive(Debug, thiserror::Error)]
#[error("VFIO_IOMMU_MAP_DMA of {:#x}..{:#x}: {source}; {}", request.start, request.end, remedy(source))]
struct MapRefused {
    request: Range<u64>,
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pellucid_partition::{GuestAddress, MemoryError, RamRegion, RegionSpec};
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
            request: 0..4096,
            source: io::Error::from_raw_os_error(libc::ENOMEM),
        };
        assert!(refused.to_string().contains("ulimit -l"));
    }

    /// An IOMMU that remembers what is mapped, and refuses one request.
    #[derive(Default)]
    struct Script {
        mapped: Mutex<Vec<Range<u64>>>,
        asked: AtomicUsize,
        refuses: Option<usize>,
    }

    impl Iommu for Script {
        fn map_part(&self, region: &Region, part: Range<u64>) -> io::Result<()> {
            assert!(region.guest.0 <= part.start && part.end <= region.guest.0 + region.size);
            if Some(self.asked.fetch_add(1, Ordering::Relaxed)) == self.refuses {
                return Err(io::Error::from_raw_os_error(libc::ENOMEM));
            }
            let mut mapped = self.mapped.lock().unwrap();
            assert!(
                mapped
                    .iter()
                    .all(|other| part.end <= other.start || other.end <= part.start),
                "mapped twice"
            );
            mapped.push(part);
            Ok(())
        }

        fn unmap(&self, region: &Region) -> io::Result<()> {
            let inside =
                |part: &Range<u64>| region.guest.0 <= part.start && part.end <= region.guest.0 + region.size;
            self.mapped.lock().unwrap().retain(|part| !inside(part));
            Ok(())
        }
    }

    fn ram(start: u64, size: u64) -> RegionSpec {
        RegionSpec::new(GuestAddress(start), size)
    }

    /// Seven requests. The memory is never touched.
    fn memory() -> GuestMemory {
        let specs = [
            ram(0, 0xa_0000),
            ram(0x10_0000, (3 << 30) - 0x10_0000),
            ram(4 << 30, (2 << 30) + 4096),
        ];
        GuestMemory::of("dma", &specs).unwrap()
    }

    fn total(memory: &GuestMemory) -> u64 {
        memory.regions().iter().map(|region| region.size).sum()
    }

    fn mapper(iommu: &Arc<Script>, memory: &GuestMemory, told: &Arc<Mutex<Vec<(u64, u64)>>>) -> Arc<Mapper> {
        let told = Arc::clone(told);
        let progress: DmaProgress = Arc::new(move |at| told.lock().unwrap().push((at.done, at.total)));
        Arc::new(Mapper::new(Arc::clone(iommu) as _, Some(progress), total(memory)))
    }

    #[test]
    fn each_request_is_told_and_the_last_one_says_all() {
        let (iommu, memory, told) = (Arc::new(Script::default()), memory(), Arc::default());
        let subscription = memory.subscribe(mapper(&iommu, &memory, &told)).unwrap();
        let told = told.lock().unwrap();
        let mapped = iommu.mapped.lock().unwrap().clone();
        let sums = mapped.iter().scan(0, |sum, part| {
            *sum += part.end - part.start;
            Some((*sum, total(&memory)))
        });
        assert_eq!(*told, sums.collect::<Vec<_>>(), "what is told is mapped");
        assert_eq!(
            (told.len(), told.last()),
            (7, Some(&(total(&memory), total(&memory))))
        );
        drop(subscription);
        assert!(iommu.mapped.lock().unwrap().is_empty());
    }

    #[test]
    fn whichever_request_is_refused_all_before_it_are_undone_and_it_is_named() {
        let starts = [0_u64, 0x10_0000, 1 << 30, 2 << 30, 4 << 30, 5 << 30, 6 << 30];
        for (refused, start) in starts.into_iter().enumerate() {
            let iommu = Arc::new(Script {
                refuses: Some(refused),
                ..Script::default()
            });
            let (memory, told) = (memory(), Arc::default());
            let error = memory.subscribe(mapper(&iommu, &memory, &told)).unwrap_err();
            assert!(
                iommu.mapped.lock().unwrap().is_empty(),
                "request {refused} of {start:#x}"
            );
            assert!(memory.subscribers().is_empty());
            assert_eq!(
                told.lock().unwrap().len(),
                refused,
                "no more is told than was mapped"
            );
            let error = AssignError::from(error).to_string();
            for part in [
                &format!("VFIO_IOMMU_MAP_DMA of {start:#x}.."),
                "os error 12",
                "ulimit -l",
            ] {
                assert!(error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn memory_that_is_added_later_is_a_count_of_its_own_also_after_a_refusal() {
        let iommu = Arc::new(Script {
            refuses: Some(8),
            ..Script::default()
        });
        let (memory, told) = (memory(), Arc::default());
        let _subscription = memory.subscribe(mapper(&iommu, &memory, &told)).unwrap();
        told.lock().unwrap().clear();
        let add = || memory.add(RamRegion::map("dma", &ram(8 << 30, 2 << 30)).unwrap());
        assert!(matches!(add(), Err(MemoryError::Subscriber { .. })));
        assert_eq!(
            iommu.mapped.lock().unwrap().len(),
            7,
            "what was mapped before stays so"
        );
        add().unwrap();
        let (half, all) = (1 << 30, 2 << 30);
        assert_eq!(*told.lock().unwrap(), [(half, all), (half, all), (all, all)]);
    }

    #[test]
    fn who_panics_when_told_leaves_nothing_mapped() {
        let (iommu, memory) = (Arc::new(Script::default()), memory());
        let progress: DmaProgress = Arc::new(|at| assert!(at.done < 2 << 30, "enough"));
        let mapper = Mapper::new(Arc::clone(&iommu) as _, Some(progress), total(&memory));
        let subscribing = std::panic::AssertUnwindSafe(|| memory.subscribe(Arc::new(mapper)));
        assert!(std::panic::catch_unwind(subscribing).is_err());
        assert!(iommu.asked.load(Ordering::Relaxed) > 2 && iommu.mapped.lock().unwrap().is_empty());
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
            prop_assert!(requests.windows(2).all(|pair| pair[0].end.is_multiple_of(1 << 30)), "pages of a GiB stay whole");
        }
    }
}
