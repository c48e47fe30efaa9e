//! Populated: memory is there, whole, and the VM sees it. No vCPU exists and no device is lent yet.

use std::sync::Arc;

use crate::bus::{MmioBus, PioBus};
use crate::error::{ClaimError, PartitionError};
use crate::interrupt::Interrupts;
use crate::memory::residence::Residence;
use crate::memory::{GuestMemory, RegionSpec, Subscription};
use crate::plan::Plan;
use crate::populate::Progress;
use crate::populate::budget::{LockBudget, Locking};
use crate::reserved::Reserved;
use crate::vm::Vm;

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
    residence: Residence,
    reserved: Reserved,
}

impl Populated {
    pub(crate) fn of(
        reserved: Reserved,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Self, PartitionError> {
        let plan = reserved.plan();
        let vm = Arc::new(Vm::create()?);
        let (memory, residence) = resident(plan, progress)?;
        let ram_slots = memory.show_to(&vm)?;
        let interrupts = Arc::new(Interrupts::new(Arc::clone(&vm)));
        let (mmio, pio) = Default::default();
        Ok(Self {
            ram_slots,
            mmio,
            pio,
            interrupts,
            vm,
            memory,
            residence,
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

    /// Where the memory was when the guest was about to start; [`GuestMemory::residence`] says where it is now.
    #[must_use]
    pub fn residence(&self) -> &Residence {
        &self.residence
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
            residence: _,
            reserved,
        } = self;
        drop((ram_slots, mmio, pio, interrupts, vm, memory));
        reserved.release()
    }
}

/// The plan's memory: mapped, all there, locked if a device will reach it, and proved to be where it should be.
fn resident(
    plan: &Plan,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<(GuestMemory, Residence), PartitionError> {
    let size = plan.layout().memory();
    let locking = match plan.locked() {
        true => LockBudget::read()?.locking(size)?,
        false => Locking::None,
    };
    let nodes: Vec<_> = plan
        .ram()
        .filter_map(|(range, node)| Some((range, node?)))
        .collect();
    let memory = GuestMemory::of(
        plan.name(),
        &RegionSpec::of_layout(plan.layout(), plan.pages(), &nodes),
    )?;
    memory.populate(progress)?;
    match locking {
        Locking::Here => memory.lock()?,
        Locking::ByDevice => tracing::info!(
            size,
            "RLIMIT_MEMLOCK carries guest memory once, so the device locks it when it is assigned"
        ),
        Locking::None => {}
    }
    let residence = memory.residence()?;
    residence.well_placed()?;
    tracing::info!(?residence, "guest memory is populated");
    Ok((memory, residence))
}
