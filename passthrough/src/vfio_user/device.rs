//! A device in another process as a [`Transport`]: every access is a message, within a limit.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pellucid_partition::Mapping;

use super::link::{Link, Question, Reply};
use super::message::{Command, Payload, u32_at, u64_at};
use super::region::ServedRegion;
use super::survey::Survey;
use crate::error::VfioUserError;
use crate::transport::{IrqInfo, IrqKind, RegionIndex, RegionInfo, Transport};

/// A served device.
#[derive(Debug)]
pub(crate) struct ServedDevice {
    link: Arc<Link>,
    survey: Survey,
    /// The interrupts that the server has an eventfd for.
    wired: Mutex<BTreeSet<(IrqKind, u32)>>,
}

impl ServedDevice {
    pub(crate) fn new(link: Arc<Link>, survey: Survey) -> ServedDevice {
        ServedDevice {
            link,
            survey,
            wired: Mutex::default(),
        }
    }

    fn place(&self, region: RegionIndex, offset: u64, size: usize) -> io::Result<&ServedRegion> {
        let found = self.survey.regions.get(region.number());
        let inside = |info: &RegionInfo| {
            offset
                .checked_add(size as u64)
                .is_some_and(|end| end <= info.size)
        };
        found
            .filter(|found| inside(&found.info))
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ERANGE))
    }

    /// Asks for one access; `data` is what a write brings, `answer` what a read returns.
    fn access(
        &self,
        command: Command,
        (region, offset): (RegionIndex, u64),
        data: &[u8],
        count: usize,
    ) -> Result<Reply, VfioUserError> {
        let (number, returned) = (region.number() as u32, count - data.len());
        let about = Payload::default().u64(offset).u32(number).u32(count as u32);
        let reply = self.link.ask(&Question {
            command,
            payload: about.bytes(data),
            fds: &[],
            answer: ACCESS + returned..=ACCESS + returned,
        })?;
        let said = &reply.payload;
        let (its_offset, its_number, its_count) = (u64_at(said, 0), u32_at(said, 8), u32_at(said, 12));
        if (its_offset, its_number, its_count as usize) != (offset, number, count) {
            let what = format!(
                "it tells of {its_count} bytes at {its_offset:#x} of region {its_number}, and {count} at {offset:#x} of {number} were asked"
            );
            return Err(self.link.give_up(command, what));
        }
        Ok(reply)
    }

    fn direct_irqs(
        &self,
        (kind, flags): (IrqKind, u32),
        start: u32,
        count: u32,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let payload = Payload::default()
            .u32(20)
            .u32(flags)
            .u32(kind.number())
            .u32(start)
            .u32(count);
        let asked = self.link.ask(&Question {
            command: Command::SetIrqs,
            payload,
            fds,
            answer: 0..=20,
        });
        asked.map(|_| ()).map_err(io::Error::from)
    }

    fn wired(&self) -> MutexGuard<'_, BTreeSet<(IrqKind, u32)>> {
        self.wired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, kind: IrqKind, start: u32, count: usize) -> io::Result<()> {
        let end = u64::from(start) + count as u64;
        match end <= u64::from(self.irq(kind).count) {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }
}

impl Transport for ServedDevice {
    fn region(&self, index: RegionIndex) -> Option<RegionInfo> {
        let region = self.survey.regions.get(index.number())?;
        Some(region.info.clone()).filter(|info| info.size > 0)
    }

    fn read(&self, region: RegionIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.place(region, offset, data.len())?;
        let mut at = offset;
        for piece in data.chunks_mut(self.link.most_data()) {
            let reply = self.access(Command::RegionRead, (region, at), &[], piece.len())?;
            piece.copy_from_slice(&reply.payload[ACCESS..]);
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn write(&self, region: RegionIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        self.place(region, offset, data.len())?;
        let mut at = offset;
        for piece in data.chunks(self.link.most_data()) {
            self.access(Command::RegionWrite, (region, at), piece, piece.len())?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn map(&self, region: RegionIndex, offset: u64, size: usize) -> io::Result<Mapping> {
        let ServedRegion { info, file } = self.place(region, offset, size)?;
        let inside = |area: &std::ops::Range<u64>| area.start <= offset && offset + size as u64 <= area.end;
        match file {
            Some((file, start)) if info.mappable.iter().any(inside) => {
                Mapping::shared(file.as_fd(), start + offset, size)
            }
            _ => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        }
    }

    fn resettable(&self) -> bool {
        self.survey.resettable
    }

    fn reset(&self) -> io::Result<()> {
        let question = Question {
            command: Command::Reset,
            payload: Payload::default(),
            fds: &[],
            answer: 0..=0,
        };
        self.link.ask(&question)?;
        Ok(())
    }

    fn irq(&self, kind: IrqKind) -> IrqInfo {
        let info = self.survey.irqs.get(kind.number() as usize);
        info.copied().unwrap_or_default()
    }

    /// Descriptors go in runs, as many in a message as the server takes. An interrupt without one is told only if it had one.
    fn wire(&self, kind: IrqKind, start: u32, eventfds: &[Option<BorrowedFd<'_>>]) -> io::Result<()> {
        self.known(kind, start, eventfds.len())?;
        let mut wired = self.wired();
        let mut vector = start;
        for run in eventfds.chunk_by(|one, next| one.is_some() == next.is_some()) {
            let fds: Vec<BorrowedFd<'_>> = run.iter().flatten().copied().collect();
            for fds in fds.chunks(self.link.most_fds()) {
                self.direct_irqs((kind, EVENTFD | TRIGGER), vector, fds.len() as u32, fds)?;
                wired.extend((vector..).take(fds.len()).map(|vector| (kind, vector)));
                vector += fds.len() as u32;
            }
            for _ in fds.len()..run.len() {
                if wired.remove(&(kind, vector)) {
                    self.direct_irqs((kind, EVENTFD | TRIGGER), vector, 1, &[])?;
                }
                vector += 1;
            }
        }
        Ok(())
    }

    fn unmask_by(&self, kind: IrqKind, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.known(kind, 0, 1)?;
        self.direct_irqs((kind, EVENTFD | UNMASK), 0, 1, &[eventfd])
    }

    fn unwire(&self, kind: IrqKind) -> io::Result<()> {
        let mut wired = self.wired();
        let before = wired.len();
        wired.retain(|(of, _)| *of != kind);
        if wired.len() == before {
            return Ok(());
        }
        match self.direct_irqs((kind, NONE | TRIGGER), 0, 0, &[]) {
            // It has the eventfds for ever, and nobody listens to them.
            Err(_) if self.link.is_over() => Ok(()),
            told => told,
        }
    }

    fn loss(&self) -> Option<io::Result<OwnedFd>> {
        Some(self.link.hangup())
    }
}

/// Bytes that tell of an access, before its data.
const ACCESS: usize = 16;
const NONE: u32 = vfio_bindings::bindings::vfio::VFIO_IRQ_SET_DATA_NONE;
const EVENTFD: u32 = vfio_bindings::bindings::vfio::VFIO_IRQ_SET_DATA_EVENTFD;
const TRIGGER: u32 = vfio_bindings::bindings::vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
const UNMASK: u32 = vfio_bindings::bindings::vfio::VFIO_IRQ_SET_ACTION_UNMASK;
