//! A VFIO group in a container, and the devices opened from it.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use crate::groups::Groups;

use super::{Container, Message, Plain, Request, VfioDevice, device_fd, exchange, join_container, plain};

/// A group that is in a container. Dropping it takes it out again.
#[derive(Debug)]
pub(crate) struct Group {
    file: File,
    _container: Arc<Container>,
}

impl Group {
    /// Opens the group node; `Ok(None)`: the group is not viable, a host driver still holds a member.
    pub(crate) fn open(node: &Path, container: &Arc<Container>) -> io::Result<Option<Group>> {
        let file = OpenOptions::new().read(true).write(true).open(node)?;
        let mut status = Message::new(8);
        exchange(file.as_fd(), Request::GroupStatus, &mut status)?;
        if status.u32(4) & VIABLE == 0 {
            return Ok(None);
        }
        join_container(file.as_fd(), container.file.as_fd())?;
        Ok(Some(Group {
            file,
            _container: Arc::clone(container),
        }))
    }

    /// Opens a device of the group by its PCI name.
    pub(crate) fn device(&self, name: &str, groups: &Arc<Groups>) -> io::Result<VfioDevice> {
        let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        VfioDevice::from_fd(device_fd(self.file.as_fd(), &name)?, groups)
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = plain(self.file.as_fd(), Plain::UnsetContainer, 0) {
            tracing::warn!(%error, "a VFIO group did not leave its container; closing it does so");
        }
    }
}

const VIABLE: u32 = vfio_bindings::bindings::vfio::VFIO_GROUP_FLAGS_VIABLE;
