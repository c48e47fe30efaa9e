//! The connection to a server: one request and its answer at a time, each within a limit. The first answer that fails to come, or
//! that is not one, ends the connection for good: whoever asks after that is refused at once, and who listens is told.

use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::Shutdown;

use super::message::{Answer, Command, HEADER, Payload, answer, errno, request};
use super::stream::{Failure, connect, receive, send};
use crate::error::VfioUserError;

/// A connection, shared by the device and by those who map memory for it.
pub(crate) struct Link {
    socket: PathBuf,
    limit: Duration,
    stream: UnixStream,
    turn: Mutex<Turn>,
    /// Descriptors that the server takes in one message.
    most_fds: AtomicU32,
    /// Bytes that it moves in one access.
    most_data: AtomicU32,
    is_lent: AtomicBool,
}

/// Who has it may ask.
struct Turn {
    next: u16,
    given_up: bool,
}

/// An answer that is one.
pub(crate) struct Reply {
    pub(crate) payload: Vec<u8>,
    pub(crate) fd: Option<OwnedFd>,
}

/// What is asked, and what may be answered.
pub(crate) struct Question<'q> {
    pub(crate) command: Command,
    pub(crate) payload: Payload,
    pub(crate) fds: &'q [BorrowedFd<'q>],
    /// Bytes of payload of the answer.
    pub(crate) answer: RangeInclusive<usize>,
}

impl Link {
    /// Connects to the server that listens at `socket`.
    pub(crate) fn connect(socket: &Path, limit: Duration) -> Result<Link, VfioUserError> {
        let failed = |source: io::Error| VfioUserError::Connect {
            socket: socket.to_owned(),
            source,
        };
        let stream = connect(socket, Instant::now() + limit).map_err(failed)?;
        Link::over(stream, socket, limit)
    }

    /// Uses a connection that is there already; `socket` is its name in errors.
    pub(crate) fn over(stream: UnixStream, socket: &Path, limit: Duration) -> Result<Link, VfioUserError> {
        stream
            .set_nonblocking(true)
            .map_err(|source| VfioUserError::Connect {
                socket: socket.to_owned(),
                source,
            })?;
        Ok(Link {
            socket: socket.to_owned(),
            limit,
            stream,
            turn: Mutex::new(Turn {
                next: 0,
                given_up: false,
            }),
            most_fds: AtomicU32::new(1),
            most_data: AtomicU32::new(0),
            is_lent: AtomicBool::new(false),
        })
    }

    /// The socket's path.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// How long an answer may take.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Takes what both sides have agreed on.
    pub(crate) fn agree(&self, most_fds: u32, most_data: u32) {
        self.most_fds.store(most_fds.min(MOST_FDS), Ordering::Relaxed);
        self.most_data.store(most_data, Ordering::Relaxed);
    }

    pub(crate) fn most_fds(&self) -> usize {
        self.most_fds.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn most_data(&self) -> usize {
        self.most_data.load(Ordering::Relaxed) as usize
    }

    /// Says that the guest asks from here on.
    pub(crate) fn lend(&self) {
        self.is_lent.store(true, Ordering::Relaxed);
    }

    /// Whether the connection was given up: nothing reaches the server any more.
    pub(crate) fn is_over(&self) -> bool {
        self.turn().given_up
    }

    /// A descriptor that hangs up when the connection has ended, from either side.
    pub(crate) fn hangup(&self) -> io::Result<OwnedFd> {
        self.stream.try_clone().map(OwnedFd::from)
    }

    /// Asks, and waits for the answer, until the limit is over.
    pub(crate) fn ask(&self, question: &Question<'_>) -> Result<Reply, VfioUserError> {
        self.ask_until(question, None)
    }

    /// The same, and not longer than until `end`: many questions can share one limit.
    pub(crate) fn ask_until(
        &self,
        question: &Question<'_>,
        end: Option<Instant>,
    ) -> Result<Reply, VfioUserError> {
        let (socket, act) = (self.socket.clone(), question.command.name());
        let mut turn = self.turn();
        if turn.given_up {
            return Err(VfioUserError::GivenUp { socket, act });
        }
        let id = turn.next;
        turn.next = id.wrapping_add(1);
        let own = Instant::now() + self.limit;
        let end = end.map_or(own, |end| end.min(own));
        let failure = match self.exchange(id, question, end) {
            Ok(Ok(reply)) => return Ok(reply),
            // A refusal is an answer: both sides know where they are.
            Ok(Err(source)) => return Err(VfioUserError::Refused { socket, act, source }),
            Err(failure) => failure,
        };
        turn.given_up = true;
        drop(turn);
        self.hang_up();
        let error = match failure {
            Failure::Io(source) => VfioUserError::Closed { socket, act, source },
            Failure::Late => VfioUserError::Silent {
                socket,
                act,
                limit_ms: self.limit.as_millis() as u64,
            },
            Failure::Broken(what) => VfioUserError::Broken { socket, act, what },
        };
        self.tell(&error);
        Err(error)
    }

    /// Ends the connection because of what an answer says. Returns the error that says so.
    pub(crate) fn give_up(&self, command: Command, what: String) -> VfioUserError {
        self.turn().given_up = true;
        self.hang_up();
        let error = VfioUserError::Broken {
            socket: self.socket.clone(),
            act: command.name(),
            what,
        };
        self.tell(&error);
        error
    }

    /// A guest that asked sees all ones and can tell nobody why.
    fn tell(&self, error: &VfioUserError) {
        if self.is_lent.load(Ordering::Relaxed) {
            tracing::warn!(%error, "the server is given up");
        }
    }

    fn hang_up(&self) {
        if let Err(error) = rustix::net::shutdown(&self.stream, Shutdown::Both) {
            tracing::debug!(socket = %self.socket.display(), %error, "the connection has ended already");
        }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exchange(
        &self,
        id: u16,
        question: &Question<'_>,
        end: Instant,
    ) -> Result<Result<Reply, io::Error>, Failure> {
        let mut bytes = request(id, question.command, question.payload.0.len());
        bytes.extend_from_slice(&question.payload.0);
        send(&self.stream, &bytes, question.fds, end)?;
        let mut fds = Vec::new();
        let mut header = [0; HEADER];
        receive(&self.stream, &mut header, &mut fds, end)?;
        let judged = answer(&header, id, question.command, &question.answer).map_err(Failure::Broken)?;
        let (Answer::Payload(length) | Answer::Refusal(_, length)) = judged;
        // Bounded by what the question allows.
        let mut payload = vec![0; length];
        receive(&self.stream, &mut payload, &mut fds, end)?;
        let most = usize::from(question.command == Command::RegionInfo);
        if fds.len() > most {
            let count = fds.len();
            return Err(Failure::Broken(format!(
                "it brings {count} descriptors, and at most {most} is due"
            )));
        }
        Ok(match judged {
            Answer::Payload(_) => Ok(Reply {
                payload,
                fd: fds.pop(),
            }),
            Answer::Refusal(number, _) => Err(errno(number)),
        })
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.socket.display())
    }
}

/// `SCM_MAX_FD` of the kernel: no message carries more.
const MOST_FDS: u32 = 253;
