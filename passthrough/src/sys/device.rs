//! An open VFIO device: the transport that real hardware is behind.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use pellucid_partition::{Bdf, Mapping};

use super::{Message, Plain, Request, exchange, exchange_growing, hot_reset, plain};
use crate::groups::Groups;
use crate::transport::{IrqInfo, IrqKind, RegionIndex, RegionInfo, Transport};

/// A device opened from a VFIO group.
#[derive(Debug)]
pub(crate) struct VfioDevice {
    file: File,
    resettable: bool,
    regions: Vec<(RegionInfo, u64)>,
    irqs: Vec<IrqInfo>,
    groups: Arc<Groups>,
}

impl VfioDevice {
    /// Asks the device once what it has: regions, mappable ranges, interrupts.
    pub(super) fn from_fd(fd: OwnedFd, groups: &Arc<Groups>) -> io::Result<VfioDevice> {
        let file = File::from(fd);
        let mut info = Message::new(24);
        exchange(file.as_fd(), Request::DeviceInfo, &mut info)?;
        let (flags, regions, irqs) = (info.u32(4), info.u32(8).min(16), info.u32(12).min(16));
        if flags & IS_PCI == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOTSUP));
        }
        let regions = (0..regions)
            .map(|index| region(&file, index))
            .collect::<io::Result<_>>()?;
        let irqs = (0..irqs)
            .map(|index| irq(&file, index))
            .collect::<io::Result<_>>()?;
        Ok(VfioDevice {
            file,
            resettable: flags & CAN_RESET != 0,
            regions,
            irqs,
            groups: Arc::clone(groups),
        })
    }

    fn place(&self, region: RegionIndex, offset: u64, size: usize) -> io::Result<u64> {
        match self.regions.get(region.number()) {
            Some((info, base))
                if offset
                    .checked_add(size as u64)
                    .is_some_and(|end| end <= info.size) =>
            {
                Ok(base + offset)
            }
            _ => Err(io::Error::from_raw_os_error(libc::ERANGE)),
        }
    }

    fn wire_action(&self, kind: IrqKind, start: u32, action: u32, fds: &[i32]) -> io::Result<()> {
        let flags = if fds.is_empty() { DATA_NONE } else { DATA_EVENTFD } | action;
        let mut message = Message::new(20 + fds.len() * 4);
        message.put_u32(4, flags);
        message.put_u32(8, kind.number());
        message.put_u32(12, start);
        message.put_u32(16, fds.len() as u32);
        for (index, fd) in fds.iter().enumerate() {
            message.put_u32(20 + index * 4, *fd as u32);
        }
        match exchange(self.file.as_fd(), Request::SetIrqs, &mut message)? {
            0 => Ok(()),
            // The host could give so many vectors, fewer than were asked for, and has enabled none.
            _ => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        }
    }
}

impl Transport for VfioDevice {
    fn region(&self, index: RegionIndex) -> Option<RegionInfo> {
        self.regions
            .get(index.number())
            .map(|(info, _)| info.clone())
            .filter(|info| info.size > 0)
    }

    fn read(&self, region: RegionIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let at = self.place(region, offset, data.len())?;
        match self.file.read_at(data, at)? {
            count if count == data.len() => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }

    fn write(&self, region: RegionIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = self.place(region, offset, data.len())?;
        match self.file.write_at(data, at)? {
            count if count == data.len() => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }

    fn map(&self, region: RegionIndex, offset: u64, size: usize) -> io::Result<Mapping> {
        let at = self.place(region, offset, size)?;
        Mapping::shared(self.file.as_fd(), at, size)
    }

    fn resettable(&self) -> bool {
        self.resettable
    }

    fn reset(&self) -> io::Result<()> {
        plain(self.file.as_fd(), Plain::Reset, 0).map(|_| ())
    }

    fn reset_scope(&self) -> io::Result<Vec<Bdf>> {
        let affected = hot_reset::scope(self.file.as_fd())?;
        Ok(affected.into_iter().map(|(device, _)| device).collect())
    }

    fn hot_reset(&self) -> io::Result<()> {
        let affected = hot_reset::scope(self.file.as_fd())?;
        let ids = affected.into_iter().map(|(_, group)| group).collect();
        // The kernel wants to see every group that the reset reaches.
        let groups = self.groups.of(&ids).ok_or(io::ErrorKind::PermissionDenied)?;
        let files: Vec<_> = groups.iter().map(|group| group.as_fd()).collect();
        hot_reset::reset(self.file.as_fd(), &files)
    }

    fn irq(&self, kind: IrqKind) -> IrqInfo {
        self.irqs.get(kind.number() as usize).copied().unwrap_or_default()
    }

    fn wire(&self, kind: IrqKind, start: u32, eventfds: &[Option<BorrowedFd<'_>>]) -> io::Result<()> {
        let fds: Vec<i32> = eventfds
            .iter()
            .map(|fd| fd.map_or(-1, |fd| fd.as_raw_fd()))
            .collect();
        self.wire_action(kind, start, ACTION_TRIGGER, &fds)
    }

    fn unmask_by(&self, kind: IrqKind, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        self.wire_action(kind, 0, ACTION_UNMASK, &[eventfd.as_raw_fd()])
    }

    fn unwire(&self, kind: IrqKind) -> io::Result<()> {
        self.wire_action(kind, 0, ACTION_TRIGGER, &[])
    }
}

fn region(file: &File, index: u32) -> io::Result<(RegionInfo, u64)> {
    let mut message = Message::new(32);
    message.put_u32(8, index);
    match exchange_growing(file.as_fd(), Request::RegionInfo, &mut message) {
        // A region that this device does not have (VGA, for most) is answered so.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok((RegionInfo::default(), 0)),
        other => other?,
    }
    let flags = message.u32(4);
    let size = message.u64(16);
    let mut areas = Vec::new();
    let mut msix_mappable = false;
    if flags & REGION_MMAP != 0 {
        areas.push(0..size);
    }
    let first = if flags & REGION_CAPS != 0 {
        message.u32(12)
    } else {
        0
    };
    for (id, at) in message.capabilities(first) {
        match id {
            CAP_SPARSE => {
                let count = message.u32(at + 8).min(64) as usize;
                areas = (0..count)
                    .map(|entry| at + 16 + entry * 16)
                    .map(|at| message.u64(at)..message.u64(at).saturating_add(message.u64(at + 8)).min(size))
                    .filter(|area| area.start < area.end)
                    .collect();
            }
            CAP_MSIX_MAPPABLE => msix_mappable = true,
            _ => {}
        }
    }
    Ok((
        RegionInfo {
            size,
            mappable: areas,
            msix_mappable,
        },
        message.u64(24),
    ))
}

fn irq(file: &File, index: u32) -> io::Result<IrqInfo> {
    let mut message = Message::new(16);
    message.put_u32(8, index);
    match exchange(file.as_fd(), Request::IrqInfo, &mut message) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(IrqInfo::default()),
        Err(error) => Err(error),
        Ok(_) => Ok(IrqInfo {
            count: message.u32(12),
            fixed: message.u32(4) & IRQ_NORESIZE != 0,
        }),
    }
}

const CAN_RESET: u32 = vfio_bindings::bindings::vfio::VFIO_DEVICE_FLAGS_RESET;
const IS_PCI: u32 = vfio_bindings::bindings::vfio::VFIO_DEVICE_FLAGS_PCI;
const REGION_MMAP: u32 = vfio_bindings::bindings::vfio::VFIO_REGION_INFO_FLAG_MMAP;
const REGION_CAPS: u32 = vfio_bindings::bindings::vfio::VFIO_REGION_INFO_FLAG_CAPS;
const CAP_SPARSE: u16 = vfio_bindings::bindings::vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP as u16;
const CAP_MSIX_MAPPABLE: u16 = vfio_bindings::bindings::vfio::VFIO_REGION_INFO_CAP_MSIX_MAPPABLE as u16;
const IRQ_NORESIZE: u32 = vfio_bindings::bindings::vfio::VFIO_IRQ_INFO_NORESIZE;
const DATA_NONE: u32 = vfio_bindings::bindings::vfio::VFIO_IRQ_SET_DATA_NONE;
const DATA_EVENTFD: u32 = vfio_bindings::bindings::vfio::VFIO_IRQ_SET_DATA_EVENTFD;
const ACTION_TRIGGER: u32 = vfio_bindings::bindings::vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
const ACTION_UNMASK: u32 = vfio_bindings::bindings::vfio::VFIO_IRQ_SET_ACTION_UNMASK;
