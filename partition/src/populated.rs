//! Populated: memory is there, whole, and the VM sees it. No vCPU exists and no device is lent yet.

use std::error::Error;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::bus::{MmioBus, PioBus};
use crate::error::{ClaimError, MemoryError, PartitionError};
use crate::interrupt::Interrupts;
use crate::memory::{GuestMemory, MemorySubscriber, Region, Subscription};
use crate::plan::{PageSize, Plan};
use crate::reserved::Reserved;
use crate::sys::pages::{Advice, advise, bind};
use crate::sys::ram::RamMapping;
use crate::sys::slot::Slot;
use crate::vm::{Access, Vm};

/// How far populating has come, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes faulted in.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A VM with all of its memory. Dropped, it gives everything back in the order of its fields.
#[derive(Debug)]
#[must_use = "dropping it gives memory and claims back"]
pub struct Populated {
    // Teardown order: what looks at the memory, the wiring, the VM, the memory, the claims.
    ram_slots: Subscription,
    mmio: Arc<MmioBus>,
    pio: Arc<PioBus>,
    interrupts: Arc<Interrupts>,
    vm: Arc<Vm>,
    memory: GuestMemory,
    reserved: Reserved,
}

impl Populated {
    pub(crate) fn of(
        reserved: Reserved,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Self, PartitionError> {
        let plan = reserved.plan();
        let vm = Arc::new(Vm::create()?);
        let memory = GuestMemory::map(plan.name(), plan.layout(), plan.pages())?;
        populate(&memory, plan, progress)?;
        let slots = RamSlots {
            vm: Arc::clone(&vm),
            slots: Mutex::new(Vec::new()),
        };
        let ram_slots = memory.subscribe(Arc::new(slots))?;
        let interrupts = Arc::new(Interrupts::new(Arc::clone(&vm)));
        let (mmio, pio) = Default::default();
        Ok(Self {
            ram_slots,
            mmio,
            pio,
            interrupts,
            vm,
            memory,
            reserved,
        })
    }

    /// The plan that was carried out.
    pub fn plan(&self) -> &Plan {
        self.reserved.plan()
    }

    /// The claims underneath.
    pub fn reserved(&self) -> &Reserved {
        &self.reserved
    }

    /// The VM.
    #[must_use]
    pub fn vm(&self) -> &Arc<Vm> {
        &self.vm
    }

    /// Guest memory.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// What answers at guest-physical addresses without memory.
    #[must_use]
    pub fn mmio(&self) -> &Arc<MmioBus> {
        &self.mmio
    }

    /// What answers at I/O ports.
    #[must_use]
    pub fn pio(&self) -> &Arc<PioBus> {
        &self.pio
    }

    /// Interrupt wiring.
    #[must_use]
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// Gives everything back and says if a claim could not be.
    pub fn release(self) -> Result<(), ClaimError> {
        let Self {
            ram_slots,
            mmio,
            pio,
            interrupts,
            vm,
            memory,
            reserved,
        } = self;
        drop((ram_slots, mmio, pio, interrupts, vm, memory));
        reserved.release()
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subscription")
    }
}

/// Shows RAM to the VM, a slot for each region.
struct RamSlots {
    vm: Arc<Vm>,
    slots: Mutex<Vec<Slot>>,
}

impl MemorySubscriber for RamSlots {
    fn name(&self) -> &str {
        "KVM"
    }

    fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>> {
        let backing = Arc::clone(&region.mapping);
        let slot = self.vm.show(region.guest, backing, Access::ReadWrite)?;
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(slot);
        Ok(())
    }

    fn detach(&self, region: &Region) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|slot| slot.guest() != region.guest);
    }
}

/// Faults all memory in, in parallel, in huge pages where the host gives them.
fn populate(
    memory: &GuestMemory,
    plan: &Plan,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(), MemoryError> {
    let (regions, pages) = (memory.regions(), plan.pages());
    for region in &regions {
        if let Some(node) = plan.node() {
            bind(&region.mapping, node).map_err(|source| MemoryError::Bind { node, source })?;
        }
        if pages == PageSize::Size4K {
            // Advice before the first touch; a kernel without transparent huge pages refuses it, which costs speed only.
            if let Err(error) = advise(&region.mapping, 0, region.size as usize, Advice::HugePages) {
                tracing::debug!(%error, "no transparent huge pages");
            }
        }
    }
    let work = Work {
        chunks: chunks(&regions),
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        total: regions.iter().map(|r| r.size).sum(),
        collapse: AtomicBool::new(pages == PageSize::Size4K),
        progress,
    };
    let workers = workers(work.total);
    std::thread::scope(|scope| {
        // This thread works too, so a host that refuses more threads costs time only.
        let more = |_| {
            std::thread::Builder::new()
                .stack_size(STACK)
                .spawn_scoped(scope, || work.run())
                .ok()
        };
        let threads: Vec<_> = (1..workers).filter_map(more).collect();
        let own = work.run();
        let outcomes = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|p| resume_unwind(p)));
        outcomes.fold(own, Result::and)
    })
}

/// A piece of a region that one worker takes at a time.
struct Chunk<'r> {
    region: &'r Region,
    offset: u64,
    size: u64,
}

struct Work<'r> {
    chunks: Vec<Chunk<'r>>,
    next: AtomicU64,
    done: AtomicU64,
    total: u64,
    collapse: AtomicBool,
    progress: &'r (dyn Fn(Progress) + Sync),
}

impl Work<'_> {
    fn run(&self) -> Result<(), MemoryError> {
        while let Some(chunk) = self
            .chunks
            .get(self.next.fetch_add(1, Ordering::Relaxed) as usize)
        {
            if let Err(source) = self.fault_in(chunk) {
                // The others stop too: a host short of memory is not pressed further.
                self.next.store(self.chunks.len() as u64, Ordering::Relaxed);
                let guest = chunk.region.guest.0 + chunk.offset;
                return Err(MemoryError::Populate { guest, source });
            }
            let done = self.done.fetch_add(chunk.size, Ordering::Relaxed) + chunk.size;
            (self.progress)(Progress {
                done,
                total: self.total,
            });
        }
        Ok(())
    }

    fn fault_in(&self, chunk: &Chunk<'_>) -> std::io::Result<()> {
        let (mapping, offset, size) = (&chunk.region.mapping, chunk.offset as usize, chunk.size as usize);
        if self.collapse.load(Ordering::Relaxed) && make_huge(mapping, offset, size).is_err() {
            self.collapse.store(false, Ordering::Relaxed);
        }
        populate_pages(mapping, offset, size)
    }
}

/// Faults in a page of every 2 MiB, which the kernel wants to see before it puts a huge page in the place of all 512.
fn make_huge(mapping: &RamMapping, offset: usize, size: usize) -> std::io::Result<()> {
    for place in (offset..offset + size).step_by(HUGE) {
        populate_pages(mapping, place, PageSize::Size4K.bytes() as usize)?;
    }
    advise(mapping, offset, size, Advice::Collapse)
}

fn populate_pages(mapping: &RamMapping, offset: usize, size: usize) -> std::io::Result<()> {
    loop {
        match advise(mapping, offset, size, Advice::PopulateWrite) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// How many threads are worth it: below a gibibyte each they only wait for each other in the kernel.
fn workers(total: u64) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    let shares = usize::try_from(total / SHARE).unwrap_or(usize::MAX);
    cpus.min(MOST_WORKERS).min(shares).max(1)
}

fn chunks(regions: &[Region]) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    for region in regions {
        for offset in (0..region.size).step_by(CHUNK as usize) {
            chunks.push(Chunk {
                region,
                offset,
                size: CHUNK.min(region.size - offset),
            });
        }
    }
    chunks
}

/// One worker's piece: large enough for a 1 GiB page to be one, small enough for progress to be seen.
const CHUNK: u64 = 64 << 20;
/// The least memory for which a thread more is worth it.
const SHARE: u64 = 1 << 30;
const MOST_WORKERS: usize = 8;
/// Ample for a worker; the usual 2 MiB is what a kernel backs by one huge page at the first touch.
const STACK: usize = 256 << 10;
/// What one entry of a second-level page table maps on x86-64.
const HUGE: usize = 2 << 20;
