//! Makes guest memory resident: in parallel, in huge pages where the host gives them, with progress; then locks it.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use vm_memory::GuestMemoryBackend;

use crate::error::PopulateError;
use crate::memory::GuestMemory;
use crate::spec::PageSize;
use crate::step::step;
use crate::sys::pages::{Advice, advise, lock};
use crate::sys::ram::{RamMapping, RamRegion};

pub(crate) mod budget;

/// How far something has come that goes through all of a guest's memory: populating, or mapping it for DMA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that it is done with.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Time since the start.
    pub elapsed: Duration,
}

impl Progress {
    /// Bytes per second so far.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let nanoseconds = self.elapsed.as_nanos().max(1);
        let rate = u128::from(self.done) * 1_000_000_000 / nanoseconds;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// The time that the rest will take at this rate; `None` before the first byte.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let left = u128::from(self.total.saturating_sub(self.done));
        let nanoseconds = self
            .elapsed
            .as_nanos()
            .saturating_mul(left)
            .checked_div(u128::from(self.done))?;
        Some(Duration::from_nanos(
            u64::try_from(nanoseconds).unwrap_or(u64::MAX),
        ))
    }
}

impl GuestMemory {
    /// Faults every page of every region in. `progress` is told from any thread, one at a time, and never less than before.
    pub fn populate(&self, progress: &(dyn Fn(Progress) + Sync)) -> Result<(), PopulateError> {
        populate(&self.as_vm_memory().iter().collect::<Vec<_>>(), progress)
    }

    /// Locks every region in memory (mlock), which counts against RLIMIT_MEMLOCK. Pages of the hugetlb pool are locked by nature.
    pub fn lock(&self) -> Result<(), PopulateError> {
        self.as_vm_memory().iter().try_for_each(RamRegion::lock)
    }
}

impl RamRegion {
    /// Faults every page in, before the region is added.
    pub fn populate(&self, progress: &(dyn Fn(Progress) + Sync)) -> Result<(), PopulateError> {
        populate(&[self], progress)
    }

    /// Locks the region in memory until it is unmapped.
    pub fn lock(&self) -> Result<(), PopulateError> {
        let spec = self.spec();
        if spec.pages != PageSize::Size4K {
            return Ok(());
        }
        let locked = step("lock guest memory", || lock(self.mapping()));
        locked.map_err(|source| PopulateError::Lock {
            guest: spec.guest.0,
            size: spec.size,
            source,
        })
    }
}

fn populate(regions: &[&RamRegion], progress: &(dyn Fn(Progress) + Sync)) -> Result<(), PopulateError> {
    let ordinary = |region: &&RamRegion| region.spec().pages == PageSize::Size4K;
    let total = regions.iter().map(|region| region.spec().size).sum();
    let work = Work {
        chunks: chunks(regions),
        next: AtomicU64::new(0),
        collapse: AtomicBool::new(regions.iter().any(ordinary)),
        report: Report {
            total,
            begun: Instant::now(),
            done: Mutex::new(0),
            progress,
        },
    };
    let gate: OnceLock<Barrier> = OnceLock::new();
    std::thread::scope(|scope| {
        // Nobody starts before all are there: a thread that begins maps memory, which waits while another populates.
        let gate = &gate;
        let run = || {
            gate.wait().wait();
            work.run()
        };
        // This thread works too, so a host that refuses more threads costs time only.
        let more = |_| {
            let thread = std::thread::Builder::new().stack_size(STACK);
            thread.spawn_scoped(scope, run).ok()
        };
        let threads: Vec<_> = (1..workers(total)).filter_map(more).collect();
        gate.get_or_init(|| Barrier::new(threads.len() + 1));
        let own = run();
        let outcomes = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|p| resume_unwind(p)));
        outcomes.fold(own, Result::and)
    })
}

/// A piece of a region that one worker takes at a time.
struct Chunk<'r> {
    region: &'r RamRegion,
    offset: u64,
    size: u64,
}

struct Work<'r> {
    chunks: Vec<Chunk<'r>>,
    next: AtomicU64,
    collapse: AtomicBool,
    report: Report<'r>,
}

impl Work<'_> {
    fn run(&self) -> Result<(), PopulateError> {
        while let Some(chunk) = self
            .chunks
            .get(self.next.fetch_add(1, Ordering::Relaxed) as usize)
        {
            if let Err(source) = step("populate guest memory", || self.fault_in(chunk)) {
                // The others stop too: a host short of memory is not pressed further.
                self.next.store(self.chunks.len() as u64, Ordering::Relaxed);
                let guest = chunk.region.spec().guest.0 + chunk.offset;
                return Err(PopulateError::Populate { guest, source });
            }
            self.report.more(chunk.size);
        }
        Ok(())
    }

    fn fault_in(&self, chunk: &Chunk<'_>) -> std::io::Result<()> {
        let (mapping, offset, size) = (chunk.region.mapping(), chunk.offset as usize, chunk.size as usize);
        let ordinary = chunk.region.spec().pages == PageSize::Size4K;
        if ordinary
            && self.collapse.load(Ordering::Relaxed)
            && let Err(error) = make_huge(mapping, offset, size)
            && !passes(&error)
        {
            tracing::debug!(%error, "no more huge pages for guest memory");
            self.collapse.store(false, Ordering::Relaxed);
        }
        populate_pages(mapping, offset, size)
    }
}

/// What has been done, told one at a time so that nobody hears less than was said before.
struct Report<'p> {
    total: u64,
    begun: Instant,
    done: Mutex<u64>,
    progress: &'p (dyn Fn(Progress) + Sync),
}

impl Report<'_> {
    fn more(&self, size: u64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += size;
        (self.progress)(Progress {
            done: *done,
            total: self.total,
            elapsed: self.begun.elapsed(),
        });
    }
}

/// Faults in a page of every 2 MiB, which the kernel wants to see before it puts a huge page in the place of all 512.
fn make_huge(mapping: &RamMapping, offset: usize, size: usize) -> std::io::Result<()> {
    for place in (offset..offset + size).step_by(HUGE) {
        populate_pages(mapping, place, PageSize::Size4K.bytes() as usize)?;
    }
    advise(mapping, offset, size, Advice::Collapse)
}

/// Whether the refusal of a huge page is of this moment and place only (madvise(2): try again, or its pages are in use).
fn passes(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY))
}

fn populate_pages(mapping: &RamMapping, offset: usize, size: usize) -> std::io::Result<()> {
    loop {
        match advise(mapping, offset, size, Advice::PopulateWrite) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// How many threads are worth it: clearing memory scales with CPUs until its channels are full.
fn workers(total: u64) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    let shares = usize::try_from(total / SHARE).unwrap_or(usize::MAX);
    cpus.min(MOST_WORKERS).min(shares).max(1)
}

fn chunks<'r>(regions: &[&'r RamRegion]) -> Vec<Chunk<'r>> {
    let mut chunks = Vec::new();
    for &region in regions {
        let spec = region.spec();
        let step = CHUNK.max(spec.pages.bytes());
        for offset in (0..spec.size).step_by(step as usize) {
            let size = step.min(spec.size - offset);
            chunks.push(Chunk { region, offset, size });
        }
    }
    chunks
}

/// One worker's piece, unless a page is larger: large enough to be worth a call, small enough for progress to be seen.
const CHUNK: u64 = 64 << 20;
/// The least memory for which a thread more is worth it.
const SHARE: u64 = 128 << 20;
const MOST_WORKERS: usize = 8;
/// Ample for a worker; the usual 2 MiB is what a kernel backs by one huge page at the first touch.
const STACK: usize = 256 << 10;
/// What one entry of a second-level page table maps on x86-64.
const HUGE: usize = 2 << 20;
