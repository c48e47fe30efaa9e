//! A function that nobody has open, reset and read through sysfs: enough of a transport for the ladder.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use pellucid_partition::{Mapping, step};

use super::DriverSeat;
use super::settings::RESET_METHODS;
use crate::error::TakeError;
use crate::inventory::Function;
use crate::reset::{ResetLadder, ResetReport};
use crate::transport::{IrqInfo, IrqKind, RegionIndex, RegionInfo, Transport};

impl DriverSeat {
    /// Tries the kernel's reset methods one after the other until the function is proved. Their order is restored with the other settings.
    pub(crate) fn climb(self: &Arc<Self>, function: &Function) -> Result<ResetReport, TakeError> {
        let transport: Arc<dyn Transport> = Arc::new(ThroughSysfs {
            seat: Arc::clone(self),
        });
        let mut report = self.ladder(function).inspect(&transport);
        let mut steps = std::mem::take(&mut report.steps);
        for method in &function.reset_methods {
            step("choose a reset method", || {
                self.write(self.path(RESET_METHODS), method)
            })?;
            let only = Function {
                reset_methods: vec![method.clone()],
                ..function.clone()
            };
            report = self.ladder(&only).climb(&transport);
            steps.append(&mut report.steps);
            if report.is_well() {
                break;
            }
        }
        report.steps = steps;
        Ok(report)
    }

    fn ladder<'f>(&self, function: &'f Function) -> ResetLadder<'f> {
        ResetLadder::of(function).seen_at(&self.path(""))
    }
}

struct ThroughSysfs {
    seat: Arc<DriverSeat>,
}

impl ThroughSysfs {
    fn config(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.seat.path("config"))
    }
}

impl Transport for ThroughSysfs {
    fn region(&self, _: RegionIndex) -> Option<RegionInfo> {
        None
    }

    fn read(&self, _: RegionIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.config()?.read_exact_at(data, offset)
    }

    fn write(&self, _: RegionIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        self.config()?.write_all_at(data, offset)
    }

    fn map(&self, _: RegionIndex, _: u64, _: usize) -> io::Result<Mapping> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn resettable(&self) -> bool {
        self.seat.path("reset").exists()
    }

    fn reset(&self) -> io::Result<()> {
        let reset = self.seat.write_limited(&self.seat.path("reset"), "1", "vfio-pci");
        reset.map_err(|error| match error {
            TakeError::Sysfs { source, .. } => source,
            other => io::Error::other(other),
        })
    }

    fn irq(&self, _: IrqKind) -> IrqInfo {
        IrqInfo::default()
    }

    fn wire(&self, _: IrqKind, _: u32, _: &[Option<BorrowedFd<'_>>]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn unmask_by(&self, _: IrqKind, _: BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn unwire(&self, _: IrqKind) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
