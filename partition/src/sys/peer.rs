//! Who is at the other end of a Unix socket. rustix has a call for it whose process id cannot be 0, which it is for one that is in no pid
//! namespace of ours.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The other end of a Unix socket, as the kernel noted it when the two were connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process, of a listening socket the one that listens; `None` if that is in another pid namespace.
    pub pid: Option<u32>,
    /// Its effective user.
    pub uid: u32,
}

impl Peer {
    /// Asks the kernel.
    ///
    /// # Errors
    /// `socket` is no connected Unix socket.
    pub fn of(socket: impl AsFd) -> io::Result<Peer> {
        let mut found = libc::ucred {
            pid: 0,
            uid: 0,
            gid: 0,
        };
        let mut size = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `size` bytes, all of `found` and no more, to where the pointer leads, which nobody else borrows.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut found).cast(),
                &raw mut size,
            )
        };
        match result {
            0 => Ok(Peer {
                pid: u32::try_from(found.pid).ok().filter(|pid| *pid != 0),
                uid: found.uid,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_other_end_of_a_pair_is_this_process_and_what_is_no_socket_has_none() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.pid, Some(std::process::id()));
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert!(Peer::of(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
