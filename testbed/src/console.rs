//! A person at a serial console: waits for words, logs in, asks questions, powers the system off.
//! Works over any pair of byte streams; knows nothing of what is at the other end.

mod error;
mod plain;
mod session;
mod shown;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

pub use error::ConsoleError;
use plain::Plain;
pub use session::Answer;
pub use shown::Shown;

/// A serial console. What arrives is shown as it comes and kept as plain text until it is waited for.
pub struct Console {
    arriving: Receiver<Vec<u8>>,
    sending: Box<dyn Write + Send>,
    plain: Plain,
    /// Plain text that no wait has consumed yet.
    unread: Vec<u8>,
    /// The end of all plain text so far, for error messages.
    tail: Vec<u8>,
    questions: u32,
}

impl Console {
    /// A console over a stream in each direction. Whatever arrives also goes to `copies`, unchanged.
    pub fn over(
        mut from: impl Read + Send + 'static,
        to: impl Write + Send + 'static,
        mut copies: Vec<Box<dyn Write + Send>>,
    ) -> Console {
        let (sender, arriving) = mpsc::channel();
        // Ends with the stream or with the console, whichever ends first.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                for copy in &mut copies {
                    // A copy that cannot be written is no reason to stop the conversation.
                    let _ = copy.write_all(&buffer[..count]).and_then(|()| copy.flush());
                }
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Console {
            arriving,
            sending: Box::new(to),
            plain: Plain::default(),
            unread: Vec::new(),
            tail: Vec::new(),
            questions: 0,
        }
    }

    /// A console at a Unix socket, which may take up to `limit` to appear.
    pub fn connect(
        socket: &Path,
        limit: Duration,
        copies: Vec<Box<dyn Write + Send>>,
    ) -> Result<Console, ConsoleError> {
        let end = Instant::now() + limit;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() >= end => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        Ok(Console::over(stream.try_clone()?, stream, copies))
    }

    /// Waits until one of `words` appears, consumes all text up to its end, and returns which of them it was and
    /// the text before it. A system that says that it cannot go on ends the wait.
    pub fn wait_for(&mut self, words: &[&str], limit: Duration) -> Result<(usize, String), ConsoleError> {
        let awaited = words.join(" or ");
        let end = Instant::now() + limit;
        loop {
            if let Some((index, before, after)) = first_of(&self.unread, words) {
                let text = String::from_utf8_lossy(&self.unread[..before]).into_owned();
                self.unread.drain(..after);
                return Ok((index, text));
            }
            if let Some((index, _, after)) = first_of(&self.unread, &LAST_WORDS) {
                self.unread.drain(..after);
                // What follows says why.
                self.absorb(Instant::now() + Duration::from_millis(500));
                return Err(ConsoleError::GaveUp {
                    awaited,
                    words: LAST_WORDS[index],
                    tail: self.tail(),
                });
            }
            match self.receive(end) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(ConsoleError::Late {
                        awaited,
                        limit,
                        tail: self.tail(),
                    });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ConsoleError::Ended {
                        awaited,
                        tail: self.tail(),
                    });
                }
            }
        }
    }

    /// Waits until the other side closes the line.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<(), ConsoleError> {
        if self.absorb(Instant::now() + limit) {
            return Ok(());
        }
        Err(ConsoleError::Late {
            awaited: "the end of the line".into(),
            limit,
            tail: self.tail(),
        })
    }

    /// Types `text`, not faster than a serial port takes it in.
    pub fn send(&mut self, text: &str) -> Result<(), ConsoleError> {
        for chunk in text.as_bytes().chunks(FIFO) {
            self.sending.write_all(chunk)?;
            self.sending.flush()?;
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The last lines that were seen.
    pub fn tail(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Takes in what arrives until `end` or until the line is closed; true if it is closed.
    fn absorb(&mut self, end: Instant) -> bool {
        loop {
            match self.receive(end) {
                Ok(()) => {}
                Err(error) => return error == RecvTimeoutError::Disconnected,
            }
        }
    }

    fn receive(&mut self, end: Instant) -> Result<(), RecvTimeoutError> {
        let bytes = self
            .arriving
            .recv_timeout(end.saturating_duration_since(Instant::now()))?;
        let old = self.unread.len();
        self.plain.push(&bytes, &mut self.unread);
        self.tail.extend_from_slice(&self.unread[old..]);
        keep_end(&mut self.tail, TAIL_BYTES);
        keep_end(&mut self.unread, UNREAD_BYTES);
        Ok(())
    }
}

/// The first place in `text` at which one of `words` stands: which one, where it begins and where it ends.
fn first_of(text: &[u8], words: &[&str]) -> Option<(usize, usize, usize)> {
    let find = |word: &str| {
        text.windows(word.len())
            .position(|window| window == word.as_bytes())
    };
    let places = words
        .iter()
        .enumerate()
        .filter_map(|(index, word)| Some((index, find(word)?, word.len())));
    places
        .min_by_key(|&(_, place, _)| place)
        .map(|(index, place, length)| (index, place, place + length))
}

/// Drops the beginning of `text` if it is longer than `most` bytes.
fn keep_end(text: &mut Vec<u8>, most: usize) {
    let excess = text.len().saturating_sub(most);
    text.drain(..excess);
}

/// What a system says that will never come to a login prompt.
const LAST_WORDS: [&str; 3] = [
    "Kernel panic - not syncing",
    "You are in emergency mode",
    "Dropping to a shell!",
];

/// A 16550 takes in this many bytes without being served.
const FIFO: usize = 16;
const TAIL_LINES: usize = 25;
const TAIL_BYTES: usize = 8 << 10;
const UNREAD_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests;
