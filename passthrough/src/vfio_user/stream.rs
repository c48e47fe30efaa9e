//! Bytes and descriptors over a stream socket, each transfer within a time: no read or write of it blocks.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Why an exchange failed; the socket and the act are added where it is told.
pub(super) enum Failure {
    Io(io::Error),
    Late,
    Broken(String),
}

/// Connects to who listens at `socket`, who may have a full queue until `end`.
pub(super) fn connect(socket: &Path, end: Instant) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let stream = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(socket)?;
    loop {
        match rustix::net::connect(&stream, &address) {
            // There is nothing to poll for.
            Err(Errno::AGAIN) if Instant::now() < end => std::thread::sleep(QUEUE_PAUSE),
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(UnixStream::from(stream)),
        }
    }
}

/// Sends all of `bytes`; the descriptors go with the first of them.
pub(super) fn send(
    stream: &UnixStream,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    end: Instant,
) -> Result<(), Failure> {
    let rights = SendAncillaryMessage::ScmRights(fds);
    let mut space = vec![MaybeUninit::uninit(); rights.size()];
    let (mut rest, mut with_fds) = (bytes, !fds.is_empty());
    while !rest.is_empty() {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if with_fds && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Failure::Io(Errno::NOBUFS.into()));
        }
        let flags = SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(stream, &[IoSlice::new(rest)], &mut control, flags) {
            Ok(count) => (rest, with_fds) = (&rest[count..], false),
            Err(Errno::AGAIN) => wait(stream, PollFlags::OUT, end)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::Io(error.into())),
        }
    }
    Ok(())
}

/// Fills `bytes`; descriptors that come with them are added to `fds`, and closed with it.
pub(super) fn receive(
    stream: &UnixStream,
    bytes: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    end: Instant,
) -> Result<(), Failure> {
    let mut filled = 0;
    while filled < bytes.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut bytes[filled..])];
        match rustix::net::recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => {
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        fds.extend(rights);
                    }
                }
                if received.flags.contains(ReturnFlags::CTRUNC) {
                    return Err(Failure::Broken(
                        "it brings more descriptors than any answer has".to_owned(),
                    ));
                }
                if received.bytes == 0 {
                    return Err(Failure::Io(io::ErrorKind::UnexpectedEof.into()));
                }
                filled += received.bytes;
            }
            Err(Errno::AGAIN) => wait(stream, PollFlags::IN, end)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::Io(error.into())),
        }
    }
    Ok(())
}

fn wait(stream: &UnixStream, flags: PollFlags, end: Instant) -> Result<(), Failure> {
    let left = end.saturating_duration_since(Instant::now());
    let timeout = Timespec {
        tv_sec: left.as_secs() as i64,
        tv_nsec: i64::from(left.subsec_nanos()),
    };
    let mut polled = [PollFd::new(stream, flags)];
    match poll(&mut polled, Some(&timeout)) {
        Ok(0) if left.is_zero() => Err(Failure::Late),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(Failure::Io(error.into())),
    }
}

/// Between two tries at a socket whose queue is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);
