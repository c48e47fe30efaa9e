//! What a function is wired to: the guest's side, and how the guest sees it.

use std::sync::Arc;

use pellucid_partition::{GuestMemory, Interrupts, MmioBus, PioBus, Populated, ResampleLine, Vm};

use crate::bars::BarShape;
use crate::events::EventSink;
use crate::peers::Peers;
use crate::placement::PlacementWindows;

/// The guest's side of an assignment.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Its VM.
    pub vm: Arc<Vm>,
    /// Its memory.
    pub memory: GuestMemory,
    /// Its memory-mapped devices.
    pub mmio: Arc<MmioBus>,
    /// Its I/O ports.
    pub pio: Arc<PioBus>,
    /// Its interrupts.
    pub interrupts: Arc<Interrupts>,
    /// Who lets its other devices reach a BAR by DMA; [`crate::Bound::assign`] takes those of the device's I/O space where there are none.
    pub peers: Option<Arc<Peers>>,
}

impl Guest {
    /// A populated partition's.
    #[must_use]
    pub fn of(populated: &Populated) -> Guest {
        Guest {
            vm: Arc::clone(populated.vm()),
            memory: populated.memory().clone(),
            mmio: Arc::clone(populated.mmio()),
            pio: Arc::clone(populated.pio()),
            interrupts: Arc::clone(populated.interrupts()),
            peers: None,
        }
    }
}

/// How the guest sees a function.
pub struct View {
    /// Its BARs, where [`crate::Placement`] put them.
    pub bars: Vec<BarShape>,
    /// The windows in which the guest may place them.
    pub windows: PlacementWindows,
    /// The line of its INTx pin; without one the pin register reads 0.
    pub line: Option<ResampleLine>,
    /// What firmware would have written to the interrupt line register.
    pub line_register: u8,
    /// Who is told what the host says about the device.
    pub events: EventSink,
}
