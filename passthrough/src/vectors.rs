//! Message-signalled vectors in use: for each an eventfd that the device signals and KVM listens to, and no others.
//!
//! Where the host kernel cannot add a vector to an enabled device, all are disabled and enabled again in larger number;
//! every vector then fires once more than it had to, because one that fires too often is harmless and one lost is not.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use pellucid_partition::{Bdf, Interrupts, MsiMessage, MsiVector};

use crate::error::AssignError;
use crate::sys::borrow;
use crate::transport::{IrqKind, Transport};

/// The vectors of one kind of a function.
pub(crate) struct Vectors {
    device: Bdf,
    kind: IrqKind,
    transport: Arc<dyn Transport>,
    interrupts: Arc<Interrupts>,
    used: BTreeMap<u32, MsiVector>,
    /// How many the host has allocated; 0: the kind is disabled.
    allocated: u32,
}

impl Vectors {
    pub(crate) fn new(
        device: Bdf,
        kind: IrqKind,
        transport: Arc<dyn Transport>,
        interrupts: Arc<Interrupts>,
    ) -> Vectors {
        Vectors {
            device,
            kind,
            transport,
            interrupts,
            used: BTreeMap::new(),
            allocated: 0,
        }
    }

    /// Enables the kind in the device with `count` vectors allocated and none signalling yet.
    pub(crate) fn enable(&mut self, count: u32) -> Result<(), AssignError> {
        if self.allocated == 0 && count > 0 {
            self.allocate(count, false)?;
        }
        Ok(())
    }

    /// Lets a vector reach the guest as `message`.
    pub(crate) fn show(&mut self, vector: u32, message: MsiMessage) -> Result<(), AssignError> {
        let refused = |source| AssignError::Interrupt {
            device: self.device,
            source,
        };
        if let Some(used) = self.used.get(&vector) {
            return used.route(message).map_err(refused);
        }
        let fresh = self.interrupts.msi().map_err(refused)?;
        fresh.route(message).map_err(refused)?;
        self.used.insert(vector, fresh);
        self.connect(vector).inspect_err(|_| {
            self.used.remove(&vector);
        })
    }

    /// Keeps a vector from the guest; what it signals meanwhile is delivered when it is shown again.
    pub(crate) fn hide(&mut self, vector: u32) {
        if let Some(Err(error)) = self.used.get(&vector).map(MsiVector::mask) {
            tracing::error!(device = %self.device, vector, %error, "a vector was not masked");
        }
    }

    /// Whether a vector has signalled while it was kept from the guest.
    pub(crate) fn pending(&self, vector: u32) -> bool {
        self.used.get(&vector).is_some_and(MsiVector::pending)
    }

    /// Disables the kind in the device and lets all vectors go.
    pub(crate) fn disable(&mut self) {
        if self.allocated > 0
            && let Err(error) = self.transport.unwire(self.kind)
        {
            tracing::warn!(device = %self.device, kind = ?self.kind, %error, "interrupts were not disabled");
        }
        self.allocated = 0;
        self.used.clear();
    }

    /// How many vectors reach the guest or wait for it.
    pub(crate) fn in_use(&self) -> usize {
        self.used.len()
    }

    fn connect(&mut self, vector: u32) -> Result<(), AssignError> {
        let info = self.transport.irq(self.kind);
        let growable = self.allocated > 0 && !info.fixed && vector < info.count;
        if vector < self.allocated || growable {
            let eventfd = self.used.get(&vector).map(|used| borrow(used.eventfd()));
            let wired = self.transport.wire(self.kind, vector, &[eventfd]);
            self.allocated = self.allocated.max(vector + 1);
            return wired.map_err(|source| self.failed("connecting an interrupt vector", source));
        }
        // Doubling bounds how often a guest can have all vectors taken down by using one more.
        let count = (vector + 1).next_power_of_two().min(info.count);
        if vector >= count {
            let source = std::io::Error::from_raw_os_error(libc::ERANGE);
            return Err(self.failed(
                "connecting an interrupt vector that the device does not have",
                source,
            ));
        }
        let before = self.allocated;
        if before > 0 {
            self.transport
                .unwire(self.kind)
                .map_err(|source| self.failed("disabling interrupts", source))?;
        }
        let enough = self.allocate(count, before > 0);
        // A host that has not so many may have as many as are needed, and has those that it gave before.
        enough.or_else(|_| self.allocate(vector + 1, before > 0)).inspect_err(|_| {
            if before > 0 && let Err(error) = self.allocate(before, true) {
                tracing::error!(device = %self.device, %error, "the interrupts that were connected are lost");
            }
        })
    }

    /// Enables the kind with so many vectors; `again`: those in use may have fired while it was disabled.
    fn allocate(&mut self, count: u32, again: bool) -> Result<(), AssignError> {
        let eventfds: Vec<Option<BorrowedFd<'_>>> = (0..count)
            .map(|vector| self.used.get(&vector).map(|used| borrow(used.eventfd())))
            .collect();
        let wired = self.transport.wire(self.kind, 0, &eventfds);
        drop(eventfds);
        if let Err(source) = wired {
            self.allocated = 0;
            return Err(self.failed("enabling interrupts", source));
        }
        self.allocated = count;
        for (_, used) in self.used.range(..count).filter(|_| again) {
            if let Err(error) = used.eventfd().write(1) {
                tracing::warn!(device = %self.device, fd = used.eventfd().as_raw_fd(), %error, "no extra interrupt");
            }
        }
        Ok(())
    }

    fn failed(&self, act: &'static str, source: std::io::Error) -> AssignError {
        AssignError::Device {
            device: self.device,
            act,
            source,
        }
    }
}

impl Drop for Vectors {
    fn drop(&mut self) {
        self.disable();
    }
}
