//! The kernel's VFIO ioctls, typed. Every VFIO structure begins with its own length (`argsz`), so one
//! buffer type and one ioctl serve nearly all of them; the rest are the three that take something else.

mod child;
mod container;
mod device;
mod group;
mod hot_reset;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use vmm_sys_util::eventfd::EventFd;

pub(crate) use child::Errand;
pub(crate) use container::{Container, IovaLimits};
pub(crate) use device::VfioDevice;
pub(crate) use group::Group;

/// Requests whose argument is a structure that starts with `argsz`, and which give the kernel no address of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    GroupStatus,
    DeviceInfo,
    RegionInfo,
    IrqInfo,
    SetIrqs,
    IommuInfo,
    UnmapDma,
    HotResetInfo,
}

impl Request {
    /// Numbers mean something else on a container, a group and a device.
    fn number(self) -> libc::c_ulong {
        match self {
            Request::GroupStatus => 0x3b67,
            Request::DeviceInfo => 0x3b6b,
            Request::RegionInfo => 0x3b6c,
            Request::IrqInfo => 0x3b6d,
            Request::SetIrqs => 0x3b6e,
            Request::IommuInfo | Request::HotResetInfo => 0x3b70,
            Request::UnmapDma => 0x3b72,
        }
    }
}

/// Requests whose argument is a number, or nothing.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub(crate) enum Plain {
    ApiVersion = 0x3b64,
    CheckExtension = 0x3b65,
    SetIommu = 0x3b66,
    UnsetContainer = 0x3b69,
    Reset = 0x3b6f,
}

const MAP_DMA: u64 = 0x3b71;
const SET_CONTAINER: u64 = 0x3b68;
const DEVICE_FD: u64 = 0x3b6a;

/// A VFIO argument: plain bytes, 8-byte aligned, whose first word is its own length.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    words: Vec<u64>,
}

impl Message {
    /// A zeroed message of `size` bytes that says so.
    pub(crate) fn new(size: usize) -> Message {
        let mut message = Message {
            words: vec![0; size.div_ceil(8)],
        };
        message.put_u32(0, size as u32);
        message
    }

    pub(crate) fn put_u32(&mut self, offset: usize, value: u32) {
        let word = &mut self.words[offset / 8];
        let shift = (offset % 8) * 8;
        *word = (*word & !(0xffff_ffff << shift)) | (u64::from(value) << shift);
    }

    pub(crate) fn put_u64(&mut self, offset: usize, value: u64) {
        self.put_u32(offset, value as u32);
        self.put_u32(offset + 4, (value >> 32) as u32);
    }

    /// The 32-bit field at `offset`; 0 behind the end, so that a reply cannot lead outside.
    pub(crate) fn u32(&self, offset: usize) -> u32 {
        self.words
            .get(offset / 8)
            .map_or(0, |word| (word >> ((offset % 8) * 8)) as u32)
    }

    pub(crate) fn u64(&self, offset: usize) -> u64 {
        u64::from(self.u32(offset)) | u64::from(self.u32(offset + 4)) << 32
    }

    pub(crate) fn size(&self) -> usize {
        self.words.len() * 8
    }

    /// The capabilities of a reply (`struct vfio_info_cap_header`): offsets by id, bounded by the reply's size.
    pub(crate) fn capabilities(&self, first: u32) -> Vec<(u16, usize)> {
        let mut found = Vec::new();
        let mut at = first as usize;
        while at != 0 && at + 8 <= self.size() && at.is_multiple_of(4) && found.len() < 64 {
            found.push((self.u32(at) as u16, at));
            at = self.u32(at + 4) as usize;
        }
        found
    }
}

/// Sends `message` and receives the reply in it. Returns what the ioctl returned.
pub(crate) fn exchange(fd: BorrowedFd<'_>, request: Request, message: &mut Message) -> io::Result<i32> {
    assert!(
        message.u32(0) as usize <= message.size(),
        "a message must not claim more than it has"
    );
    // SAFETY: each of these requests copies at most `argsz` bytes, the message's first word, from and to the
    // buffer, which is that long (asserted above); none of them keeps an address of this process.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request.number(), message.words.as_mut_ptr()) };
    answer(result)
}

/// As [`exchange`], growing the message to what the kernel asks for (replies with capabilities do).
pub(crate) fn exchange_growing(
    fd: BorrowedFd<'_>,
    request: Request,
    message: &mut Message,
) -> io::Result<()> {
    let mut question = message.clone();
    exchange(fd, request, message)?;
    let wanted = message.u32(0) as usize;
    if wanted > question.size() {
        question.words.resize(wanted.min(MAX_REPLY).div_ceil(8), 0);
        question.put_u32(0, wanted.min(MAX_REPLY) as u32);
        exchange(fd, request, &mut question)?;
        *message = question;
    }
    Ok(())
}

/// A request with a plain number.
pub(crate) fn plain(fd: BorrowedFd<'_>, request: Plain, value: u64) -> io::Result<i32> {
    // SAFETY: these requests take their argument by value and touch no memory of this process.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::c_ulong, value) };
    answer(result)
}

/// Puts a group into a container.
fn join_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<()> {
    let number: i32 = container.as_raw_fd();
    // SAFETY: VFIO_GROUP_SET_CONTAINER reads one int through the pointer, which lives across the call.
    let result = unsafe {
        libc::ioctl(
            group.as_raw_fd(),
            SET_CONTAINER as libc::c_ulong,
            &raw const number,
        )
    };
    answer(result).map(|_| ())
}

/// Opens a device of a group by its name.
fn device_fd(group: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    // SAFETY: VFIO_GROUP_GET_DEVICE_FD reads a NUL-terminated string, which `name` is and outlives the call.
    let result = unsafe { libc::ioctl(group.as_raw_fd(), DEVICE_FD as libc::c_ulong, name.as_ptr()) };
    let number = answer(result)?;
    // SAFETY: the kernel has just installed this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Gives a range of this process's memory to the IOMMU. `message` is a `vfio_iommu_type1_dma_map`.
fn map_dma(container: BorrowedFd<'_>, message: &mut Message) -> io::Result<()> {
    // SAFETY: the kernel reads `argsz` bytes, all inside the message. The memory named in it is a `Region` or a `Mapping`
    // that is mapped during the call, and no reference into either exists in Rust. The kernel pins pages of memory until
    // they are unmapped from the IOMMU, and of a BAR maps the device's own addresses, so that a device never writes to
    // what became something else of this process.
    let result = unsafe {
        libc::ioctl(
            container.as_raw_fd(),
            MAP_DMA as libc::c_ulong,
            message.words.as_mut_ptr(),
        )
    };
    answer(result).map(|_| ())
}

/// An eventfd as a borrowed descriptor.
pub(crate) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor stays open as long as `event` is borrowed, which the result's lifetime keeps it.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

fn answer(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// No reply of the kernel comes near this; more is a fault, not a reason to allocate.
const MAX_REPLY: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_they_were_put_and_nothing_is_behind_the_end() {
        let mut message = Message::new(20);
        message.put_u32(4, 0x1122_3344);
        message.put_u64(8, 0x5566_7788_99aa_bbcc);
        message.put_u32(16, u32::MAX);
        assert_eq!(
            (message.u32(0), message.u32(4), message.u32(16)),
            (20, 0x1122_3344, u32::MAX)
        );
        assert_eq!(message.u64(8), 0x5566_7788_99aa_bbcc);
        assert_eq!((message.u32(24), message.u64(1 << 40)), (0, 0));
    }

    #[test]
    fn capabilities_that_loop_or_lead_outside_end() {
        let mut message = Message::new(64);
        message.put_u32(16, 7);
        message.put_u32(20, 32);
        message.put_u32(32, 9);
        message.put_u32(36, 1 << 20);
        assert_eq!(message.capabilities(16), [(7, 16), (9, 32)]);
        message.put_u32(36, 16);
        assert!(message.capabilities(16).len() <= 64);
        assert!(message.capabilities(18).is_empty() && message.capabilities(60).is_empty());
    }

    #[test]
    fn what_is_no_vfio_file_refuses_with_its_errno() {
        use std::os::fd::AsFd;
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = exchange(file.as_fd(), Request::DeviceInfo, &mut Message::new(24)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
        assert!(Container::open(std::path::Path::new("/dev/null")).is_err());
    }
}
