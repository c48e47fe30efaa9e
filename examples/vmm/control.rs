//! The socket by which a running server is asked to unplug and plug: one line of JSON each way, for its owner and root only.
//!
//! It is in the state directory, which nobody else can enter, and who is at the other end is asked of the kernel besides. What is read
//! is bounded in size and time; one connection holds up no other and never the server.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pellucid::partition::{Bdf, Peer};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use crate::wake::Wake;

/// What is asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    pub(crate) act: Act,
    pub(crate) device: Bdf,
    /// How long the guest has for its part.
    pub(crate) seconds: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Act {
    Unplug,
    UnplugByForce,
    Plug,
}

/// Done, or why not.
pub(crate) type Answer = Result<(), String>;

/// A request, and where its answer goes. Dropping it tells that the server has ended.
pub(crate) struct Request {
    pub(crate) asked: Asked,
    pub(crate) answer: Sender<Answer>,
}

/// The listening end.
pub(crate) struct Control {
    path: PathBuf,
    stop: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
    requests: Receiver<Request>,
}

impl Control {
    /// Listens for the server `name`, whose name this process holds; `wake` is rung with each request.
    pub(crate) fn listen(state: &Path, name: &str, wake: &Arc<Wake>) -> io::Result<Self> {
        let path = socket_in(state, name);
        // Whose it was is dead: the name is ours.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = short(&path, |short| UnixListener::bind(short))?;
        let (sender, requests) = channel();
        let (stop, wake) = (Arc::new(Wake::new()?), Arc::clone(wake));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .stack_size(STACK)
            .spawn(move || serve(&listener, &stopped, &sender, &wake))?;
        Ok(Self {
            path,
            stop,
            thread: Some(thread),
            requests,
        })
    }

    /// The next request, if there is one.
    pub(crate) fn next(&self) -> Option<Request> {
        self.requests.try_recv().ok()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.path);
        self.stop.ring();
        let _told_by_its_panic = self.thread.take().map(JoinHandle::join);
    }
}

/// Asks the server whose process is `pid`.
pub(crate) fn ask(state: &Path, name: &str, pid: u32, asked: Asked) -> Result<Answer, io::Error> {
    let stream = short(&socket_in(state, name), |short| UnixStream::connect(short))?;
    let peer = Peer::of(&stream)?.pid;
    if peer != Some(pid) {
        let other = peer.map_or("one in another pid namespace".to_owned(), |peer| peer.to_string());
        return Err(io::Error::other(format!("its socket is that of process {other}")));
    }
    let mut line = serde_json::to_vec(&asked)?;
    line.push(b'\n');
    (&stream).write_all(&line)?;
    let answer = read_line(&stream, LONGEST_ANSWER, Instant::now() + PATIENCE)?;
    let ended = || Err("the server has ended meanwhile".to_owned());
    Ok(match answer.is_empty() {
        true => ended(),
        false => serde_json::from_slice(&answer)?,
    })
}

/// The sockets in a state directory, by the names of their servers.
pub(crate) fn sockets(state: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(state)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(SUFFIX));
        let name = name.map(str::to_owned);
        found.extend(name.map(|name| (name, path)));
    }
    Ok(found)
}

/// Takes connections until `stop` is rung.
fn serve(listener: &UnixListener, stop: &Wake, requests: &Sender<Request>, wake: &Arc<Wake>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return tell!("vmm: nobody can ask for devices any more: {error}\r"),
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        let Ok((stream, _)) = listener.accept() else {
            // Out of descriptors: whoever waits may wait a little longer.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        if open.fetch_add(1, Ordering::SeqCst) >= MOST_CONNECTIONS {
            let _gone = tell(&stream, &Err("too many requests at once; ask again".to_owned()));
            open.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (held, requests, wake) = (Arc::clone(&open), requests.clone(), Arc::clone(wake));
        let spawned = std::thread::Builder::new()
            .name("control-request".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                // Who went away without an answer wants none.
                let _gone = converse(&stream, &requests, &wake);
                held.fetch_sub(1, Ordering::SeqCst);
            });
        if spawned.is_err() {
            open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// One request and its answer.
fn converse(stream: &UnixStream, requests: &Sender<Request>, wake: &Wake) -> io::Result<()> {
    let peer = Peer::of(stream)?.uid;
    if peer != geteuid().as_raw() && peer != ROOT {
        return Ok(());
    }
    stream.set_write_timeout(Some(LINE_COMES))?;
    let line = read_line(stream, LONGEST_REQUEST, Instant::now() + LINE_COMES)?;
    let asked = match serde_json::from_slice(&line) {
        Ok(asked) => asked,
        Err(error) => return tell(stream, &Err(format!("not a request: {error}"))),
    };
    let (answer, answered) = channel();
    let ended = || Err("the server has ended meanwhile".to_owned());
    let answer = match requests.send(Request { asked, answer }) {
        Ok(()) => {
            wake.ring();
            answered.recv().unwrap_or_else(|_| ended())
        }
        Err(_) => ended(),
    };
    tell(stream, &answer)
}

fn tell(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// A line without its end, of at most `longest` bytes, which is whole before `deadline`; empty if the other end has gone before.
fn read_line(mut stream: &UnixStream, longest: usize, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut chunk = [0; 256];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        line.extend_from_slice(&chunk[..count]);
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok(line);
        }
        if line.len() > longest {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

fn socket_in(state: &Path, name: &str) -> PathBuf {
    state.join(format!("{name}{SUFFIX}"))
}

/// Has `act` use a path of few characters to the same place: a socket's has at most 107.
fn short<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let folder = std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?;
    let name = path.file_name().unwrap_or_default();
    act(&Path::new("/proc/self/fd")
        .join(folder.as_raw_fd().to_string())
        .join(name))
}

const ROOT: u32 = 0;
const SUFFIX: &str = ".control";
const MOST_CONNECTIONS: usize = 8;
const LONGEST_REQUEST: usize = 1024;
const LONGEST_ANSWER: usize = 64 << 10;
/// How long a request may take to arrive.
const LINE_COMES: Duration = Duration::from_secs(5);
/// A guest has an hour at most, and a device that does not want to be reset some minutes.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);
const STACK: usize = 256 << 10;
