//! The reset of everything behind a bridge: whom it reaches, and the reset itself (`struct vfio_pci_hot_reset`, linux/vfio.h).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use pellucid_partition::Bdf;

use super::{Message, Request, answer, exchange};

/// Every function that a hot reset of this one would reset, with its IOMMU group.
pub(super) fn scope(device: BorrowedFd<'_>) -> io::Result<Vec<(Bdf, u32)>> {
    let mut message = Message::new(HEADER + MOST * ENTRY);
    match exchange(device, Request::HotResetInfo, &mut message) {
        // The kernel has no such reset for the function.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            return Err(io::ErrorKind::Unsupported.into());
        }
        other => other?,
    };
    let count = (message.u32(8) as usize).min(MOST);
    (0..count)
        .map(|index| entry(&message, HEADER + index * ENTRY))
        .collect()
}

/// `struct vfio_pci_dependent_device`: group, segment, bus, device and function.
fn entry(message: &Message, at: usize) -> io::Result<(Bdf, u32)> {
    let (group, place) = (message.u32(at), message.u32(at + 4));
    let [bus, devfn] = [(place >> 16) as u8, (place >> 24) as u8];
    let device = Bdf::new(place & 0xffff, bus, devfn >> 3, devfn & 7);
    Ok((device.map_err(|_| io::ErrorKind::InvalidData)?, group))
}

/// Resets all of them; `groups` are those that they are in.
pub(super) fn reset(device: BorrowedFd<'_>, groups: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut message = Message::new(HEADER + groups.len() * 4);
    message.put_u32(8, groups.len() as u32);
    for (index, group) in groups.iter().enumerate() {
        message.put_u32(HEADER + index * 4, group.as_raw_fd() as u32);
    }
    // SAFETY: on a device, which the only caller has (`VfioDevice`), this request reads the header and as many descriptors as it counts, all
    // inside the message, and keeps nothing of it.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), HOT_RESET, message.words.as_ptr()) };
    answer(result).map(|_| ())
}

/// On a container the same number means another thing.
const HOT_RESET: libc::c_ulong = 0x3b71;
const HEADER: usize = 12;
const ENTRY: usize = 8;
/// A bus has at most 256 functions.
const MOST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_the_kernel_writes_it() {
        let mut message = Message::new(HEADER + ENTRY);
        message.put_u32(12, 9);
        message.put_u32(16, 0x0b01_0002);
        let (device, group) = entry(&message, HEADER).unwrap();
        assert_eq!((device.to_string().as_str(), group), ("0002:01:01.3", 9));
    }
}
