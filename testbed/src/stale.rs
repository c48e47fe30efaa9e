//! A fault of the emulator, and its cure. While one CPU writes over an instruction, as kernels do for their static branches, the
//! emulator's thread of another CPU can translate the old one and keep that: memory holds a `nop`, the CPU goes on to execute
//! the breakpoint that stood there for a moment, forever. QEMU forgets every translation when its debugger has made a step, which
//! nothing in the machine can see. That is done here whenever a machine has shown no sign of life for a while.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// When something was last heard of a machine. As a writer, it hears what is written.
#[derive(Debug, Clone)]
pub(crate) struct Signs(Arc<Mutex<Instant>>);

/// Has a silent machine translated anew, until dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Its drop ends the thread.
    ends: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A connection to the emulator's debugger. The machine stands still from its beginning to [`Debugger::leave`].
struct Debugger(UnixStream);

impl Signs {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Something was heard.
    pub(crate) fn heard(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Signs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Watch {
    /// Watches the machine whose debugger listens at `socket`.
    pub(crate) fn start(socket: PathBuf, signs: Signs) -> Self {
        let (ends, ended) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut patience = Patience::new();
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                if patience.is_over(signs.last(), Instant::now()) {
                    // What cannot be helped is reported as what it is by those who wait for the machine.
                    let _ = retranslate(&socket);
                }
            }
        });
        Self {
            ends: Some(ends),
            thread: Some(thread),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends = None;
        // It only ever waits for the debugger, which answers or is gone within seconds.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// How long a silence is borne: longer each time, since most of those that last are a program at work.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    /// The sign of life that was the last when it ended, and when that was.
    spent: Option<(Instant, Instant)>,
}

impl Patience {
    fn new() -> Self {
        Self {
            limit: FIRST,
            spent: None,
        }
    }

    fn is_over(&mut self, last: Instant, now: Instant) -> bool {
        let since = match self.spent {
            Some((sign, when)) if sign == last => when,
            _ => {
                *self = Self::new();
                last
            }
        };
        if now.saturating_duration_since(since) < self.limit {
            return false;
        }
        if self.spent.is_some() {
            self.limit *= 2;
        }
        self.spent = Some((last, now));
        true
    }
}

/// Has the machine whose debugger listens at `socket` translated anew. It stands still for some milliseconds.
///
/// # Errors
/// No debugger listens there, or it does not answer as QEMU's does; the machine then goes on as it was.
fn retranslate(socket: &Path) -> io::Result<()> {
    let mut debugger = Debugger(UnixStream::connect(socket)?);
    let stepped = debugger.step();
    let left = debugger.leave();
    stepped.and(left)
}

impl Debugger {
    /// One instruction of the first CPU. It is the only one that is asked: another's step would stop the machine once more, when
    /// nobody is there to let it go.
    fn step(&mut self) -> io::Result<()> {
        self.0.set_read_timeout(Some(STEP))?;
        self.ask("?")?;
        let stepped = self.ask("vCont;s:1");
        if stepped.is_err() {
            // It sleeps. The interrupt of the debugger's protocol stops the machine again.
            self.0.write_all(&[3])?;
            self.answer()?;
        }
        stepped.map(drop)
    }

    /// Lets the machine go on.
    fn leave(&mut self) -> io::Result<()> {
        match self.ask("D")?.as_str() {
            "OK" => Ok(()),
            other => Err(io::Error::other(format!("the debugger did not leave: {other:?}"))),
        }
    }

    fn ask(&mut self, request: &str) -> io::Result<String> {
        let sum = request.bytes().fold(0_u8, u8::wrapping_add);
        self.0.write_all(format!("+${request}#{sum:02x}").as_bytes())?;
        self.answer()
    }

    /// What stands between `$` and `#`; two digits of a sum follow.
    fn answer(&mut self) -> io::Result<String> {
        while self.byte()? != b'$' {}
        let mut answer = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte if answer.len() < LONGEST => answer.push(byte),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        self.byte()?;
        self.byte()?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

const TICK: Duration = Duration::from_secs(1);
/// Longer than what runs here is silent when it works, shorter than what waits for it would bear.
const FIRST: Duration = Duration::from_secs(15);
/// Until the next interrupt of a machine that sleeps, on a host that is busy.
const STEP: Duration = Duration::from_secs(5);
/// Far more than a stop is told in.
const LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A debugger that takes these requests, each with its answer, and returns what it was asked.
    fn scripted(
        answers: &'static [(&'static str, &'static str)],
    ) -> (tempfile::TempDir, PathBuf, JoinHandle<Vec<String>>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut debugger = Debugger(stream);
            let mut asked = Vec::new();
            for (request, answer) in answers {
                let found = if *request == "\u{3}" {
                    while debugger.byte().unwrap() != 3 {}
                    "\u{3}".to_owned()
                } else {
                    debugger.answer().unwrap()
                };
                asked.push(found);
                if !answer.is_empty() {
                    debugger.0.write_all(format!("+${answer}#00").as_bytes()).unwrap();
                }
            }
            asked
        });
        (folder, path, thread)
    }

    #[test]
    fn a_step_is_made_and_the_machine_let_go() {
        let (_folder, path, asked) = scripted(&[("?", "T05"), ("vCont;s:1", "T05thread:01;"), ("D", "OK")]);
        retranslate(&path).unwrap();
        assert_eq!(asked.join().unwrap(), ["?", "vCont;s:1", "D"]);
    }

    #[test]
    fn a_machine_that_sleeps_is_let_go_too() {
        let (_folder, path, asked) =
            scripted(&[("?", "T05"), ("vCont;s:1", ""), ("\u{3}", "T02"), ("D", "OK")]);
        assert!(retranslate(&path).is_err(), "no step was made");
        assert_eq!(asked.join().unwrap(), ["?", "vCont;s:1", "\u{3}", "D"]);
    }

    #[test]
    fn no_debugger_and_one_that_talks_nonsense_are_errors() {
        assert!(retranslate(Path::new("/nonexistent/d")).is_err());
        let (_folder, path, _asked) = scripted(&[("?", "T05"), ("vCont;s:1", "T05"), ("D", "E22")]);
        assert!(retranslate(&path).unwrap_err().to_string().contains("E22"));
    }

    #[test]
    fn patience_grows_with_a_silence_and_is_new_after_a_sign_of_life() {
        let (mut patience, start) = (Patience::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let over: Vec<u64> = (0..=120)
            .filter(|&now| patience.is_over(start, at(now)))
            .collect();
        assert_eq!(over, [15, 30, 60, 120]);
        let over: Vec<u64> = (121..=160)
            .filter(|&now| patience.is_over(at(121), at(now)))
            .collect();
        assert_eq!(over, [136, 151]);
    }

    #[test]
    fn what_is_written_is_a_sign_of_life() {
        let mut signs = Signs::new();
        let first = signs.last();
        std::thread::sleep(Duration::from_millis(2));
        signs.write_all(b"x").unwrap();
        assert!(signs.last() > first);
    }
}
