//! File locks that can be asked about without being taken.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Locks all of `file` for as long as it, or what was duplicated from it, stays open; false while another open file has it locked.
///
/// An *open file description* lock (`F_OFD_SETLK`, Linux 3.15): like `flock`, it dies with its owner and does not see who in a
/// process opened the file; unlike `flock`, [`is_locked`] can look at it without a moment of holding it.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    let whole = whole_file();
    // SAFETY: the kernel only reads the `flock` that the third argument points to, and it lives across the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether another open file has `file` locked.
pub(crate) fn is_locked(file: &File) -> io::Result<bool> {
    let mut whole = whole_file();
    // SAFETY: the kernel writes one `flock` to where the third argument points, which is one that nobody else borrows.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut whole) };
    if result == 0 {
        Ok(whole.l_type != libc::F_UNLCK as libc::c_short)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// From the first byte to the last, however many there are. `l_pid` must be zero for this kind of lock.
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
