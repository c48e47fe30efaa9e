//! The channels to the agent: one thread per port turns what comes into events of one
//! bounded queue, so that a slow reader slows the machine instead of filling memory.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::l1::Stream;
use crate::stale::Signs;

/// What came from the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A line on the control port.
    Control(String),
    /// Bytes of a job.
    Output(Stream, Vec<u8>),
    /// A port was closed: the emulator is gone.
    Closed,
}

/// The connected ports.
#[derive(Debug)]
pub(crate) struct Channels {
    events: Receiver<Event>,
    sender: SyncSender<Event>,
    control: HashMap<&'static str, UnixStream>,
    signs: Signs,
}

impl Default for Channels {
    fn default() -> Self {
        let (sender, events) = sync_channel(64);
        Self {
            events,
            sender,
            control: HashMap::new(),
            signs: Signs::new(),
        }
    }
}

impl Channels {
    /// Adds the connected port `name` and begins to read it.
    pub(crate) fn attach(&mut self, name: &'static str, stream: UnixStream) -> io::Result<()> {
        let sender = self.sender.clone();
        let reader = Heard {
            port: stream.try_clone()?,
            signs: self.signs.clone(),
        };
        self.control.insert(name, stream);
        thread::spawn(move || match name {
            "stdout" => forward(Stream::Stdout, reader, &sender),
            "stderr" => forward(Stream::Stderr, reader, &sender),
            _ => forward_lines(reader, &sender),
        });
        Ok(())
    }

    /// When something last came through them.
    pub(crate) fn signs(&self) -> Signs {
        self.signs.clone()
    }

    /// Writes a line to the control port.
    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        let port = self
            .control
            .get_mut("control")
            .ok_or(io::ErrorKind::NotConnected)?;
        port.write_all(format!("{line}\n").as_bytes())
    }

    /// The next event, or none within `limit`.
    pub(crate) fn next(&self, limit: Duration) -> Option<Event> {
        match self.events.recv_timeout(limit) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Event::Closed),
        }
    }

    /// Closes the control port, by which the agent knows that nobody is there.
    pub(crate) fn close_control(&mut self, how: Shutdown) {
        if let Some(port) = self.control.get("control") {
            let _closed_already = port.shutdown(how);
        }
    }
}

impl Drop for Channels {
    /// Ends the threads: their reads return, and their sends fail once the queue goes.
    fn drop(&mut self) {
        for port in self.control.values() {
            let _closed_already = port.shutdown(Shutdown::Both);
        }
    }
}

/// A port whose machine is known to live when something comes through it.
struct Heard {
    port: UnixStream,
    signs: Signs,
}

impl Read for Heard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.port.read(buffer)?;
        self.signs.heard();
        Ok(length)
    }
}

fn forward(stream: Stream, mut port: Heard, sender: &SyncSender<Event>) {
    let mut chunk = vec![0_u8; 32 << 10];
    loop {
        let event = match port.read(&mut chunk) {
            Ok(0) | Err(_) => Event::Closed,
            Ok(length) => Event::Output(stream, chunk[..length].to_vec()),
        };
        let last = event == Event::Closed;
        if sender.send(event).is_err() || last {
            return;
        }
    }
}

fn forward_lines(port: Heard, sender: &SyncSender<Event>) {
    let mut port = BufReader::new(port);
    let mut line = Vec::new();
    loop {
        line.clear();
        let event = match port.by_ref().take(4096).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => Event::Closed,
            Ok(_) => Event::Control(String::from_utf8_lossy(&line).trim_end().to_owned()),
        };
        let last = event == Event::Closed;
        if sender.send(event).is_err() || last {
            return;
        }
    }
}

/// Finds the end of a job's output in the stream and holds nothing else back.
#[derive(Debug)]
pub(crate) struct EndMark {
    mark: Vec<u8>,
    held: Vec<u8>,
}

impl EndMark {
    /// Looks for the mark that the agent writes after the job `id`.
    pub(crate) fn of(id: &str) -> Self {
        Self {
            mark: format!("\u{1e}end of job {id}\u{1e}").into_bytes(),
            held: Vec::new(),
        }
    }

    /// Takes bytes; returns those that are the job's and whether the mark was found.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        self.held.extend_from_slice(bytes);
        if let Some(at) = self
            .held
            .windows(self.mark.len())
            .position(|window| window == self.mark)
        {
            let output = self.held[..at].to_vec();
            self.held.clear();
            return (output, true);
        }
        let begun = (1..self.mark.len())
            .rev()
            .find(|&length| self.held.ends_with(&self.mark[..length]));
        let kept = self.held.split_off(self.held.len() - begun.unwrap_or(0));
        (std::mem::replace(&mut self.held, kept), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_found_across_chunks_and_nothing_else_is_held_back() {
        let mut mark = EndMark::of("1-a");
        assert_eq!(mark.pass(b"line\n"), (b"line\n".to_vec(), false));
        assert_eq!(mark.pass(b"more\x1eend of"), (b"more".to_vec(), false));
        assert_eq!(mark.pass(b" nothing"), (b"\x1eend of nothing".to_vec(), false));
        assert_eq!(mark.pass(b"last\x1eend of job 1"), (b"last".to_vec(), false));
        assert_eq!(mark.pass(b"-a\x1e"), (Vec::new(), true));
    }

    #[test]
    fn the_mark_of_another_job_is_output() {
        let mut mark = EndMark::of("2-b");
        assert_eq!(
            mark.pass(b"\x1eend of job 1-a\x1e"),
            (b"\x1eend of job 1-a".to_vec(), false)
        );
        assert_eq!(mark.pass(b"x"), (b"\x1ex".to_vec(), false));
    }

    #[test]
    fn a_closed_port_is_an_event_and_lines_are_read_whole() {
        let mut channels = Channels::default();
        let (mut far, near) = UnixStream::pair().unwrap();
        channels.attach("control", near).unwrap();
        far.write_all(b"rea").unwrap();
        far.write_all(b"dy\n").unwrap();
        assert_eq!(
            channels.next(Duration::from_secs(5)),
            Some(Event::Control("ready".into()))
        );
        assert_eq!(channels.next(Duration::from_millis(1)), None);
        channels.tell("ping 1").unwrap();
        let mut line = [0; 7];
        far.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"ping 1\n");
        drop(far);
        assert_eq!(channels.next(Duration::from_secs(5)), Some(Event::Closed));
    }
}
