//! The signal that ends `KVM_RUN`: `SIGRTMIN + 6` of this process, with a handler that does nothing.
//!
//! It only has to interrupt the ioctl. It is installed without SA_RESTART, once, when the first vCPU thread starts, and is sent to vCPU
//! threads alone. A program that embeds this crate leaves that signal to it.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::OnceLock;
use std::thread::JoinHandle;

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler, unblock_signal};

/// The signal's number.
pub(crate) fn signal() -> i32 {
    SIGRTMIN() + 6
}

/// Installs the handler; later calls repeat the first result.
pub(crate) fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let install = || register_signal_handler(signal(), nothing).map_err(|error| error.errno());
    INSTALLED
        .get_or_init(install)
        .map_err(io::Error::from_raw_os_error)
}

/// Lets the calling thread receive the signal, whatever mask it inherited.
pub(crate) fn unblock() -> io::Result<()> {
    unblock_signal(signal()).map_err(|error| io::Error::other(error.to_string()))
}

/// Sends the signal to a thread that has not been joined.
pub(crate) fn send<T>(thread: &JoinHandle<T>) -> io::Result<()> {
    // SAFETY: the handle is borrowed, so the thread is neither joined nor detached and its id is still valid.
    match unsafe { libc::pthread_kill(thread.as_pthread_t(), signal()) } {
        // A thread that has ended needs no signal.
        0 | libc::ESRCH => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
