//! A device that can be taken away from all who share it: afterwards nothing answers, and the real one is closed.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use pellucid_partition::{Bdf, Mapping};

use crate::transport::{IrqInfo, IrqKind, RegionIndex, RegionInfo, Transport};

/// A shared device with an end.
pub(crate) struct Lease {
    device: RwLock<Option<Box<dyn Transport>>>,
    /// Nobody begins another access.
    over: AtomicBool,
}

impl Lease {
    pub(crate) fn new(device: Box<dyn Transport>) -> Lease {
        Lease {
            device: RwLock::new(Some(device)),
            over: AtomicBool::new(false),
        }
    }

    /// Closes the device once no access is under way.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.device.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Closes the device as far as that can be had while an access does not come back.
    pub(crate) fn abandon(&self) {
        self.over.store(true, Ordering::Release);
        if let Ok(mut device) = self.device.try_write() {
            device.take();
        }
    }

    /// Whether it was closed, as far as that could be had.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn with<T>(&self, act: impl FnOnce(&dyn Transport) -> io::Result<T>) -> io::Result<T> {
        if self.is_over() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        match self
            .device
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_deref()
        {
            Some(device) => act(device),
            None => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        }
    }
}

impl Transport for Lease {
    fn region(&self, index: RegionIndex) -> Option<RegionInfo> {
        self.with(|device| Ok(device.region(index))).ok().flatten()
    }

    fn read(&self, region: RegionIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.with(|device| device.read(region, offset, data))
    }

    fn write(&self, region: RegionIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|device| device.write(region, offset, data))
    }

    fn map(&self, region: RegionIndex, offset: u64, size: usize) -> io::Result<Mapping> {
        self.with(|device| device.map(region, offset, size))
    }

    fn resettable(&self) -> bool {
        self.with(|device| Ok(device.resettable())).unwrap_or(false)
    }

    fn reset(&self) -> io::Result<()> {
        self.with(|device| device.reset())
    }

    fn reset_scope(&self) -> io::Result<Vec<Bdf>> {
        self.with(|device| device.reset_scope())
    }

    fn hot_reset(&self) -> io::Result<()> {
        self.with(|device| device.hot_reset())
    }

    fn irq(&self, kind: IrqKind) -> IrqInfo {
        self.with(|device| Ok(device.irq(kind))).unwrap_or_default()
    }

    fn wire(&self, kind: IrqKind, start: u32, eventfds: &[Option<BorrowedFd<'_>>]) -> io::Result<()> {
        self.with(|device| device.wire(kind, start, eventfds))
    }

    fn unmask_by(&self, kind: IrqKind, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.with(|device| device.unmask_by(kind, eventfd))
    }

    fn unwire(&self, kind: IrqKind) -> io::Result<()> {
        self.with(|device| device.unwire(kind))
    }

    fn loss(&self) -> Option<io::Result<OwnedFd>> {
        self.with(|device| Ok(device.loss())).ok().flatten()
    }
}
