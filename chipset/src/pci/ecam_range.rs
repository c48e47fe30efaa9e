//! Where ECAM is on the bus: where the layout has it, or where the guest's firmware puts it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use pellucid_partition::{BusError, BusRange, Layout, MmioBus, MmioHandler};

use crate::pci::ecam::Ecam;
use crate::pci::host_bridge::HostBridge;

/// Whether ECAM goes where the guest puts it. It begins where the layout has it.
#[derive(Default)]
pub enum EcamPlace {
    /// It stays.
    #[default]
    Fixed,
    /// It goes where the host bridge's PCIEXBAR says, and its owner is told where; `None` while it is off. The owner is called on a vCPU
    /// thread and must not block.
    Follows(Box<dyn Fn(Option<Range<u64>>) + Send + Sync>),
}

/// ECAM on the bus, or off it.
#[derive(Debug)]
pub(crate) struct EcamRange {
    mmio: Arc<MmioBus>,
    window: Arc<Ecam>,
    range: Mutex<Option<BusRange<dyn MmioHandler>>>,
}

impl EcamRange {
    pub(crate) fn new(mmio: &Arc<MmioBus>, window: Arc<Ecam>) -> Self {
        Self {
            mmio: Arc::clone(mmio),
            window,
            range: Mutex::new(None),
        }
    }

    /// Puts it at `place`: fewer than 256 MiB are fewer buses.
    pub(crate) fn place(&self, place: Range<u64>) -> Result<(), BusError> {
        let mut range = self.range.lock().unwrap_or_else(PoisonError::into_inner);
        *range = None;
        let window: Arc<dyn MmioHandler> = Arc::clone(&self.window) as _;
        let size = place.end.saturating_sub(place.start);
        *range = Some(self.mmio.insert(place.start, size, "ECAM", window)?);
        Ok(())
    }

    fn remove(&self) {
        *self.range.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl EcamPlace {
    /// A host bridge that moves ECAM so.
    pub(crate) fn bridge(self, ecam: &Arc<EcamRange>) -> HostBridge {
        let bridge = HostBridge::new(Layout::ECAM.start);
        match self {
            Self::Fixed => bridge.on_ecam_move(|to| {
                tracing::warn!(
                    ?to,
                    "the guest moved ECAM; this board keeps it where the layout has it"
                );
            }),
            Self::Follows(told) => {
                // The board holds the range: a bridge that outlives it moves nothing.
                let ecam = Arc::downgrade(ecam);
                bridge.on_ecam_move(move |to| {
                    let Some(ecam) = ecam.upgrade() else { return };
                    match &to {
                        None => ecam.remove(),
                        Some(to) => {
                            if let Err(error) = ecam.place(to.clone()) {
                                tracing::debug!(%error, "the guest put ECAM where something else is; it is nowhere");
                            }
                        }
                    }
                    told(to);
                })
            }
        }
    }
}

impl std::fmt::Debug for EcamPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fixed => "Fixed",
            Self::Follows(_) => "Follows",
        })
    }
}
