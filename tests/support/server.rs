//! A running `vmm run`: its console as a person sees it, its standard error, its end. Killed at the latest when dropped.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::HANG_GUARD;
use super::standing::standing;

/// A logical server in a process of its own.
pub(crate) struct Server {
    child: Child,
    out: Arc<Screen>,
    err: Arc<Screen>,
    seen: usize,
}

/// Everything that a stream has said so far.
#[derive(Default)]
struct Screen {
    said: Mutex<(Vec<u8>, bool)>,
    news: Condvar,
}

impl Server {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Screen::of(child.stdout.take().unwrap());
        let err = Screen::of(child.stderr.take().unwrap());
        Self {
            child,
            out,
            err,
            seen: 0,
        }
    }

    /// Waits until the guest has said `text` after what was waited for before; returns all that it said until then.
    #[track_caller]
    pub(crate) fn says(&mut self, text: &str) -> String {
        let from = self.seen;
        match self.out.find(text, from) {
            Ok(end) => {
                self.seen = end;
                self.out.text(from..end)
            }
            Err(said) => panic!(
                "the guest never said {text:?}, but:\n{said}\n{}\n{}",
                self.err.text(0..usize::MAX),
                standing(self.pid())
            ),
        }
    }

    /// Waits until the VMM has said `text` on standard error.
    #[track_caller]
    pub(crate) fn reports(&self, text: &str) {
        if let Err(said) = self.err.find(text, 0) {
            panic!(
                "the VMM never said {text:?}, but:\n{said}\n{}",
                standing(self.pid())
            );
        }
    }

    /// What the VMM said on standard error between `mark` and the end of that line.
    pub(crate) fn reported(&self, mark: &str) -> String {
        let err = self.err.text(0..usize::MAX);
        let (_, rest) = err.split_once(mark).unwrap_or_default();
        rest.lines().next().unwrap_or_default().to_owned()
    }

    /// Everything on the guest's console so far.
    pub(crate) fn console(&self) -> String {
        self.out.text(0..usize::MAX)
    }

    /// Types at the guest's console.
    pub(crate) fn types(&mut self, text: &str) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// Types a command at the prompt of the guest's shell; returns what it printed.
    #[track_caller]
    pub(crate) fn asks(&mut self, command: &str) -> String {
        // The shell echoes what is typed, so the marks are typed in another way than they will be printed.
        self.types(&format!("echo be''gin; {command}; echo en''d\n"));
        self.says("begin\r\n");
        let said = self.says("end\r\n");
        self.says("# ");
        said.trim_end_matches("end\r\n")
            .replace('\r', "")
            .trim()
            .to_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; returns the exit status (`None` after a signal) and standard error.
    #[track_caller]
    pub(crate) fn ends(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + HANG_GUARD;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status.code(),
                None if Instant::now() > deadline => panic!(
                    "the VMM does not end; the guest said:\n{}\nand the VMM:\n{}\n{}",
                    self.console(),
                    self.err.text(0..usize::MAX),
                    standing(self.pid())
                ),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        (status, without_good_news(&self.err.whole()))
    }
}

/// What was said, but for the lines of devices that were reset and are well, and that came or went as asked; and for the warning
/// that a host without SMBIOS has none to give.
fn without_good_news(said: &str) -> String {
    let good = |line: &str| {
        let Some(told) = line.strip_prefix("vmm: ") else {
            return false;
        };
        let asked = told.trim_end().ends_with(": plugged") || told.trim_end().ends_with(": unplugged");
        // Memory is told of only where it takes its time.
        told.starts_with("device ") && (told.contains(", and well: ") || asked)
            || told.starts_with("populating guest memory: ")
            || told.starts_with("mapping guest memory for DMA: ")
            || is_nameless_host(line)
    };
    let rest = said.split_inclusive('\n').filter(|line| !good(line));
    rest.collect()
}

/// Whether a line warns of the missing SMBIOS tables of a host that has none, as virtual machines and containers often have not.
pub(crate) fn is_nameless_host(line: &str) -> bool {
    line.starts_with("vmm: warning: the guest will have no SMBIOS tables") && !Path::new(TABLE).exists()
}

const TABLE: &str = "/sys/firmware/dmi/tables/DMI";

impl Drop for Server {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _waited_already = self.child.wait();
    }
}

impl Screen {
    fn of(mut stream: impl Read + Send + 'static) -> Arc<Self> {
        let screen = Arc::new(Self::default());
        let filled = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                let count = stream.read(&mut chunk).unwrap_or(0);
                let mut said = filled.said.lock().unwrap();
                said.0.extend_from_slice(&chunk[..count]);
                said.1 = count == 0;
                filled.news.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        screen
    }

    /// Where `text` ends; all that was said instead when it does not come.
    fn find(&self, text: &str, from: usize) -> Result<usize, String> {
        let deadline = Instant::now() + HANG_GUARD;
        let mut said = self.said.lock().unwrap();
        loop {
            let found = said.0[from..]
                .windows(text.len())
                .position(|part| part == text.as_bytes());
            if let Some(at) = found {
                return Ok(from + at + text.len());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.1 || left.is_zero() {
                return Err(String::from_utf8_lossy(&said.0).into_owned());
            }
            said = self.news.wait_timeout(said, left).unwrap().0;
        }
    }

    fn text(&self, range: std::ops::Range<usize>) -> String {
        let said = self.said.lock().unwrap();
        let end = range.end.min(said.0.len());
        String::from_utf8_lossy(&said.0[range.start..end]).into_owned()
    }

    /// Everything, once the stream has ended.
    fn whole(&self) -> String {
        let said = self.said.lock().unwrap();
        let (said, _) = self
            .news
            .wait_timeout_while(said, HANG_GUARD, |said| !said.1)
            .unwrap();
        String::from_utf8_lossy(&said.0).into_owned()
    }
}
