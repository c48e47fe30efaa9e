//! Scheduling policy of a thread, which rustix has no call for.

use std::io;

use rustix::thread::Pid;

/// Puts a thread under SCHED_FIFO with that priority, or back under SCHED_OTHER.
///
/// A thread that it starts later has SCHED_OTHER.
pub(crate) fn use_policy(thread: Pid, fifo: Option<u8>) -> io::Result<()> {
    let policy = if fifo.is_some() {
        libc::SCHED_FIFO
    } else {
        libc::SCHED_OTHER
    };
    let parameters = libc::sched_param {
        sched_priority: fifo.map_or(0, i32::from),
    };
    // SAFETY: the kernel only reads `parameters`, which outlives the call; a wrong thread or priority is refused with an errno.
    let result = unsafe {
        libc::sched_setscheduler(
            thread.as_raw_nonzero().get(),
            policy | libc::SCHED_RESET_ON_FORK,
            &raw const parameters,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The thread's SCHED_FIFO priority; `None` under any other policy.
pub(crate) fn priority_of(thread: Pid) -> io::Result<Option<u8>> {
    let id = thread.as_raw_nonzero().get();
    // SAFETY: takes a number and returns one; the kernel looks at no memory of this process.
    let policy = unsafe { libc::sched_getscheduler(id) };
    if policy < 0 {
        return Err(io::Error::last_os_error());
    }
    if policy & !libc::SCHED_RESET_ON_FORK != libc::SCHED_FIFO {
        return Ok(None);
    }
    let mut parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel writes one `sched_param` to where the pointer leads, which nobody else borrows.
    let result = unsafe { libc::sched_getparam(id, &raw mut parameters) };
    match result {
        0 => Ok(u8::try_from(parameters.sched_priority).ok()),
        _ => Err(io::Error::last_os_error()),
    }
}
