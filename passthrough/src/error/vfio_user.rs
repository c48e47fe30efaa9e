//! What can go wrong between us and the server of a device in another process.

use std::io;
use std::path::PathBuf;

/// A vfio-user server could not be reached, did not answer, or did not answer as one. Nothing waits for it any more.
#[derive(Debug, thiserror::Error)]
pub enum VfioUserError {
    /// The socket does not open.
    #[error("vfio-user socket {}: {source}; {}", socket.display(), remedy(source))]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No answer in time.
    #[error(
        "vfio-user socket {}: the server has not finished {act} within {} ms; it stalls, or serves another client: look at it, or start it again",
        socket.display(), limit_ms
    )]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        act: &'static str,
        /// How long it was given.
        limit_ms: u64,
    },
    /// The server is gone.
    #[error(
        "vfio-user socket {}: the server ended the connection during {act}: {source}; its own log says why, start it again",
        socket.display()
    )]
    Closed {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        act: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The answer is not one.
    #[error("vfio-user socket {}: the answer to {act} breaks the protocol: {what}; use another version of the server", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        act: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
    /// The server refused, and goes on serving.
    #[error("vfio-user socket {}: the server refused {act}: {source}; its own log says why", socket.display())]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        act: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The device is none that a guest can be given.
    #[error("vfio-user socket {}: {what}; start the server with another device", socket.display())]
    Unfit {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Something went wrong before, and the connection was given up then.
    #[error("vfio-user socket {}: {act} was not asked: the connection was given up; start the server again and lend the device anew", socket.display())]
    GivenUp {
        /// The socket.
        socket: PathBuf,
        /// What was to be asked.
        act: &'static str,
    },
}

impl From<VfioUserError> for io::Error {
    fn from(error: VfioUserError) -> io::Error {
        let kind = match &error {
            VfioUserError::Connect { source, .. } | VfioUserError::Refused { source, .. } => source.kind(),
            VfioUserError::Silent { .. } => io::ErrorKind::TimedOut,
            VfioUserError::Closed { .. } | VfioUserError::GivenUp { .. } => io::ErrorKind::ConnectionAborted,
            VfioUserError::Broken { .. } => io::ErrorKind::InvalidData,
            VfioUserError::Unfit { .. } => io::ErrorKind::Unsupported,
        };
        io::Error::new(kind, error)
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOENT) => "start the server of the device first",
        Some(libc::ECONNREFUSED) => "no server listens there any more, start it again",
        Some(libc::EACCES | libc::EPERM) => "give this user access to the socket",
        Some(libc::EAGAIN) => "the server serves others and accepts nobody, end one of its clients",
        Some(libc::ENOTSOCK | libc::EPROTOTYPE) => "name the stream socket that the server listens on",
        _ => "look whether its server runs",
    }
}
