//! File locks that can be asked about without being taken.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The part of a file that a lock covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes {
    start: i64,
    /// 0 is all that follow.
    length: i64,
}

impl Bytes {
    /// From the first byte to the last, however many there are.
    pub(crate) const ALL: Self = Self { start: 0, length: 0 };

    /// One byte, which need not exist; `start` is not negative.
    pub(crate) fn one(start: i64) -> Self {
        Self { start, length: 1 }
    }

    /// As the kernel takes it. `l_pid` must be zero for this kind of lock.
    fn flock(self, kind: libc::c_int) -> libc::flock {
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: self.start,
            l_len: self.length,
            l_pid: 0,
        }
    }
}

/// Locks a part of `file` for as long as it, or what was duplicated from it, stays open; false while another open file has it locked.
///
/// An *open file description* lock (`F_OFD_SETLK`, Linux 3.15): like `flock`, it dies with its owner and does not see who in a
/// process opened the file; unlike `flock`, [`is_locked`] can look at it without a moment of holding it, and it can cover a part.
pub(crate) fn try_lock(file: &File, bytes: Bytes) -> io::Result<bool> {
    match change(file, &bytes.flock(libc::F_WRLCK)) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Unlocks a part of `file`.
pub(crate) fn unlock(file: &File, bytes: Bytes) -> io::Result<()> {
    change(file, &bytes.flock(libc::F_UNLCK))
}

/// Whether another open file has the part of `file` locked.
pub(crate) fn is_locked(file: &File, bytes: Bytes) -> io::Result<bool> {
    let mut wanted = bytes.flock(libc::F_WRLCK);
    // SAFETY: the kernel writes one `flock` to where the third argument points, which is one that nobody else borrows.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut wanted) };
    if result == 0 {
        Ok(wanted.l_type != libc::F_UNLCK as libc::c_short)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn change(file: &File, wanted: &libc::flock) -> io::Result<()> {
    // SAFETY: the kernel only reads the `flock` that the third argument points to, and it lives across the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, std::ptr::from_ref(wanted)) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
