//! One write to a file in a process of its own, for files whose kernel side can hang (a driver's remove or probe).
//!
//! A thread that hangs there would keep this whole process, with everything that it has open, from ending. The child has nothing but
//! what it is told to keep; where it hangs, it alone does.

use std::ffi::{CStr, CString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// A write under way.
#[derive(Debug)]
pub(crate) struct Errand {
    child: Pid,
    answer: OwnedFd,
}

impl Errand {
    /// Begins to write `text` over what is in `path`. The child keeps a copy of `keep` open as long as it lives.
    pub(crate) fn begin(path: &Path, text: &str, keep: Option<BorrowedFd<'_>>) -> io::Result<Errand> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let (answer, told) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
        kept.push(told.as_raw_fd());
        kept.sort_unstable();
        let work = Work {
            path: &path,
            text: text.as_bytes(),
            kept: &kept,
            told: told.as_raw_fd(),
            parent: rustix::process::getpid(),
        };
        let signals = Signals::block()?;
        // SAFETY: the child runs `Work::run` alone, which makes system calls on what was prepared before (no allocation, no lock, no
        // handler, since all signals are blocked) and never returns.
        let forked = unsafe { libc::fork() };
        if forked == 0 {
            work.run();
        }
        let failed = io::Error::last_os_error();
        drop(signals);
        match Pid::from_raw(forked).filter(|_| forked > 0) {
            Some(child) => Ok(Errand { child, answer }),
            None => Err(failed),
        }
    }

    /// What became of the write; `None` while it is not known after `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> Option<io::Result<()>> {
        let limit = Timespec::try_from(limit).ok();
        let mut polled = [PollFd::new(&self.answer, PollFlags::IN)];
        loop {
            match poll(&mut polled, limit.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Some(Err(error.into())),
                Ok(0) => return None,
                Ok(_) => break,
            }
        }
        let mut number = [0; 4];
        let answered = self.answer.try_clone().map(std::fs::File::from);
        let outcome = match answered.and_then(|mut answer| answer.read_exact(&mut number)) {
            Ok(()) if number == [0; 4] => Ok(()),
            Ok(()) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number))),
            // It was killed before it could say anything.
            Err(_) => Err(io::Error::from_raw_os_error(libc::EINTR)),
        };
        self.bury();
        Some(outcome)
    }

    /// Kills the child, and says whether it is gone within `limit`: one that waits in the kernel for something may not be.
    pub(crate) fn kill(&self, limit: Duration) -> bool {
        // It is not waited for yet, so the number is its own.
        let killed = kill_process(self.child, Signal::KILL);
        killed.is_ok() && self.wait(limit).is_some()
    }

    /// Waits for its end, however long that takes.
    pub(crate) fn bury(&self) {
        // Somebody else in this process may have waited for all children.
        while let Err(rustix::io::Errno::INTR) = waitpid(Some(self.child), WaitOptions::empty()) {}
    }
}

/// What the child needs, made before it is.
struct Work<'w> {
    path: &'w CStr,
    text: &'w [u8],
    kept: &'w [RawFd],
    told: RawFd,
    parent: Pid,
}

impl Work<'_> {
    fn run(&self) -> ! {
        // Not begun when the parent dies, it is not begun at all: a healer may be at work by then.
        // SAFETY: takes numbers only.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if rustix::process::getppid() == Some(self.parent) {
            self.close_the_rest();
            let outcome = self
                .write()
                .err()
                .and_then(|error| error.raw_os_error())
                .unwrap_or(0);
            let answer = outcome.to_ne_bytes();
            // SAFETY: four bytes of this frame are read; a parent that is gone needs no answer.
            unsafe { libc::write(self.told, answer.as_ptr().cast(), answer.len()) };
        }
        // SAFETY: ends this process without running anything of its parent's.
        unsafe { libc::_exit(0) }
    }

    fn close_the_rest(&self) {
        let mut next = 0;
        for kept in self.kept.iter().map(|fd| fd.unsigned_abs()) {
            if next < kept {
                close_range(next, kept - 1);
            }
            next = kept + 1;
        }
        close_range(next, u32::MAX);
    }

    fn write(&self) -> io::Result<()> {
        let flags = libc::O_WRONLY | libc::O_TRUNC | libc::O_CLOEXEC | libc::O_NOCTTY;
        // SAFETY: the path is terminated by a zero and lives until the child ends.
        let file = unsafe { libc::open(self.path.as_ptr(), flags) };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel reads the text, which lives until the child ends.
        let written = unsafe { libc::write(file, self.text.as_ptr().cast(), self.text.len()) };
        match written {
            written if written < 0 => Err(io::Error::last_os_error()),
            // An attribute takes a text whole or not.
            written if written.unsigned_abs() != self.text.len() => {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            _ => Ok(()),
        }
    }
}

fn close_range(first: u32, last: u32) {
    // SAFETY: takes numbers only. The descriptors are the child's copies; nothing that owns them runs in the child.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// All signals of this thread blocked; as before when dropped.
struct Signals(libc::sigset_t);

impl Signals {
    fn block() -> io::Result<Signals> {
        let mut all = std::mem::MaybeUninit::uninit();
        // SAFETY: the kernel library fills in the set it is given.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        let mut before = std::mem::MaybeUninit::uninit();
        // SAFETY: reads the set filled in above, and writes the other.
        let failed = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        match failed {
            // SAFETY: the call has succeeded, so it has written the set.
            0 => Ok(Signals(unsafe { before.assume_init() })),
            number => Err(io::Error::from_raw_os_error(number)),
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: reads a set that the same call has written.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_the_child_writes_is_written_and_its_errno_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bind");
        std::fs::write(&path, "what was there before").unwrap();
        let errand = Errand::begin(&path, "0000:01:00.0", None).unwrap();
        assert!(errand.wait(LONG).unwrap().is_ok());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0000:01:00.0");
        let errand = Errand::begin(&directory.path().join("none"), "x", None).unwrap();
        let refused = errand.wait(LONG).unwrap().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_write_that_hangs_holds_what_it_was_told_to_keep_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("unbind");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let (kept, other) = (directory.path().join("kept"), directory.path().join("other"));
        let (kept_file, _other_file) = (File::create(&kept).unwrap(), File::create(&other).unwrap());
        let errand = Errand::begin(&fifo, "x", Some(kept_file.as_fd())).unwrap();
        assert!(errand.wait(Duration::from_millis(200)).is_none());
        let open = std::fs::read_dir(format!("/proc/{}/fd", errand.child.as_raw_nonzero())).unwrap();
        let open: Vec<_> = open
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .collect();
        assert!(open.contains(&kept) && !open.contains(&other), "{open:?}");
        assert_eq!(open.len(), 2, "and the pipe of its answer: {open:?}");
        assert!(errand.kill(LONG), "a wait that can be interrupted ends");
        assert!(!Path::new(&format!("/proc/{}", errand.child.as_raw_nonzero())).exists());
    }

    const LONG: Duration = Duration::from_secs(30);
}
