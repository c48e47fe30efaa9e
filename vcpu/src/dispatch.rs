//! From an exit to the device that answers it. Takes no lock and allocates nothing.

use std::sync::Arc;

use pellucid_partition::{LastHit, MmioBus, MmioHandler, PioBus, PioHandler, Populated};

use crate::meter::{ExitReason, Gauge, Place};

/// One vCPU's way to the partition's buses.
pub(crate) struct Dispatch {
    pio: Arc<PioBus>,
    mmio: Arc<MmioBus>,
    last_pio: LastHit<dyn PioHandler>,
    last_mmio: LastHit<dyn MmioHandler>,
    gauge: Arc<Gauge>,
}

impl Dispatch {
    pub(crate) fn new(partition: &Populated, gauge: Arc<Gauge>) -> Self {
        Self {
            pio: Arc::clone(partition.pio()),
            mmio: Arc::clone(partition.mmio()),
            last_pio: LastHit::new(),
            last_mmio: LastHit::new(),
            gauge,
        }
    }

    /// Fills `data` item by item, as a string instruction would have read them.
    pub(crate) fn pio_read(&mut self, port: u16, item: usize, data: &mut [u8]) {
        self.begin(ExitReason::PioRead, Place::Port(port));
        for item in data.chunks_mut(item) {
            let answered = self.pio.read(&mut self.last_pio, port, item);
            self.note(answered);
        }
    }

    /// Delivers `data` item by item.
    pub(crate) fn pio_write(&mut self, port: u16, item: usize, data: &[u8]) {
        self.begin(ExitReason::PioWrite, Place::Port(port));
        for item in data.chunks(item) {
            let answered = self.pio.write(&mut self.last_pio, port, item);
            self.note(answered);
        }
    }

    pub(crate) fn mmio_read(&mut self, address: u64, data: &mut [u8]) {
        self.begin(ExitReason::MmioRead, Place::Mmio(address));
        let answered = self.mmio.read(&mut self.last_mmio, address, data);
        self.note(answered);
    }

    pub(crate) fn mmio_write(&mut self, address: u64, data: &[u8]) {
        self.begin(ExitReason::MmioWrite, Place::Mmio(address));
        let answered = self.mmio.write(&mut self.last_mmio, address, data);
        self.note(answered);
    }

    /// Lets go of what the buses had here: a vCPU that is paused keeps no removed device open.
    pub(crate) fn forget(&mut self) {
        self.last_pio.forget();
        self.last_mmio.forget();
    }

    fn begin(&self, reason: ExitReason, place: Place) {
        self.gauge.count(reason);
        self.gauge.enter(place);
    }

    fn note(&self, answered: bool) {
        if !answered {
            self.gauge.count_unmapped();
        }
    }
}
