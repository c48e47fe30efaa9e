//! L1: the emulated physical server, booted, with an agent in it that runs commands.
//! Output and exit status come over channels of their own; the console is only a log.

mod channel;
pub mod fault;
mod job;
mod monitor;
mod running;

use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::machine::{Boot, Chardev, Share};
use crate::setup::program::last_lines;
use crate::{L1Error, Machine, Testbed};
use channel::{Channels, Event};
use fault::Fault;
pub use job::Job;
pub use monitor::Monitor;
pub use running::{Next, Outcome, Running, Stream};

/// A physical server that runs. Ends when this is dropped.
#[derive(Debug)]
pub struct L1 {
    emulator: Child,
    channels: Channels,
    folder: PathBuf,
    jobs: u32,
    keep: bool,
}

impl L1 {
    /// Starts `machine` and waits until its agent answers. The root of this machine is
    /// its root, read-only; its folder `/run/testbed` is `folder()/share` here.
    ///
    /// # Errors
    /// The machine cannot be emulated, or does not come up within three minutes.
    pub fn boot(testbed: &Testbed, machine: &Machine) -> Result<Self, L1Error> {
        let folder = run_folder()?;
        let machine = furnished(testbed, machine.clone(), &folder);
        let mut command = machine.command(&testbed.emulator, &folder)?;
        let log = folder.join("emulator.log");
        let output = fs::File::create(&log).map_err(|source| L1Error::io(&log, source))?;
        let errors = output.try_clone().map_err(|source| L1Error::io(&log, source))?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let emulator = command
            .spawn()
            .map_err(|source| L1Error::io(&testbed.emulator.program, source))?;
        let mut l1 = Self {
            emulator,
            channels: Channels::default(),
            folder,
            jobs: 0,
            keep: true,
        };
        l1.connect()?;
        l1.await_ready()?;
        l1.keep = false;
        Ok(l1)
    }

    /// The folder of this run: console log, emulator's log, sockets, share.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that is `/run/testbed` in the machine, writable from both sides.
    pub fn share(&self) -> PathBuf {
        self.folder.join("share")
    }

    /// What the machine's kernel said on its serial console.
    pub fn console_log(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    /// Leaves the folder of this run in place when the machine ends.
    pub fn keep_folder(&mut self) {
        self.keep = true;
    }

    /// Runs `job` to its end and returns what it wrote.
    ///
    /// # Errors
    /// The machine ended, or the job took longer than its guard allows.
    pub fn run(&mut self, job: &Job) -> Result<Outcome, L1Error> {
        let mut outcome = Outcome::default();
        outcome.status = self.run_with(job, |stream, bytes| match stream {
            Stream::Stdout => outcome.stdout.extend_from_slice(bytes),
            Stream::Stderr => outcome.stderr.extend_from_slice(bytes),
        })?;
        Ok(outcome)
    }

    /// Runs `job` to its end, hands on its output as it comes, returns its exit status.
    ///
    /// # Errors
    /// The machine ended, or the job took longer than its guard allows.
    pub fn run_with(&mut self, job: &Job, mut sink: impl FnMut(Stream, &[u8])) -> Result<i32, L1Error> {
        let mut running = self.start(job)?;
        running.close_input();
        loop {
            match running.next(Duration::from_secs(1))? {
                Next::Output(stream, bytes) => sink(stream, &bytes),
                Next::Ended(status) => return Ok(status),
                Next::Quiet => {}
            }
        }
    }

    /// Starts `job`; its input, if it has one, is open.
    ///
    /// # Errors
    /// The machine ended or a channel is broken.
    pub fn start(&mut self, job: &Job) -> Result<Running<'_>, L1Error> {
        self.jobs += 1;
        let id = format!("{}-{:08x}", self.jobs, nonce());
        let script = self.share().join(format!("job-{id}.sh"));
        fs::write(&script, job.script()).map_err(|source| L1Error::io(&script, source))?;
        let input = if job.has_input() {
            let path = self.folder.join("stdin");
            let mut stream = UnixStream::connect(&path).map_err(|source| L1Error::io(&path, source))?;
            stream
                .write_all(b"go\n")
                .map_err(|source| L1Error::io(&path, source))?;
            Some(stream)
        } else {
            None
        };
        self.tell(&format!("run {id} {}", job.source()))?;
        Ok(Running::new(self, job, id, input))
    }

    /// The machine's own terminal (`/dev/hvc0`), for interactive jobs.
    ///
    /// # Errors
    /// The socket cannot be opened a second time.
    pub fn terminal(&self) -> Result<UnixStream, L1Error> {
        let path = self.folder.join("terminal");
        UnixStream::connect(&path).map_err(|source| L1Error::io(path, source))
    }

    /// The emulator's monitor.
    ///
    /// # Errors
    /// It does not answer.
    pub fn monitor(&self) -> Result<Monitor, L1Error> {
        Monitor::connect(&self.folder.join("monitor"))
    }

    /// Lets the machine write back its disks, powers it off and waits for the end.
    ///
    /// # Errors
    /// It does not end within half a minute.
    pub fn power_off(mut self) -> Result<(), L1Error> {
        self.channels.close_control(Shutdown::Both);
        let limit = Duration::from_secs(30);
        if self.wait_for_end(limit) {
            return Ok(());
        }
        Err(self.hung("powering off", limit))
    }

    fn connect(&mut self) -> Result<(), L1Error> {
        let deadline = Instant::now() + Duration::from_secs(20);
        for name in ["control", "stdout", "stderr"] {
            let path = self.folder.join(name);
            let stream = loop {
                match UnixStream::connect(&path) {
                    Ok(stream) => break stream,
                    Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                    Err(source) => return Err(L1Error::io(path, source)),
                }
                if let Ok(Some(_)) = self.emulator.try_wait() {
                    return Err(self.ended("starting"));
                }
            };
            self.channels
                .attach(name, stream)
                .map_err(|source| L1Error::io(path, source))?;
        }
        Ok(())
    }

    fn await_ready(&mut self) -> Result<(), L1Error> {
        match self.await_answer("ready", BOOT_LIMIT) {
            Answer::Came => Ok(()),
            Answer::Silence => Err(self.hung("booting", BOOT_LIMIT)),
            Answer::Ended => Err(self.ended("booting")),
        }
    }

    /// Waits for the control line `line`; what comes on the other channels is dropped.
    fn await_answer(&mut self, line: &str, limit: Duration) -> Answer {
        let deadline = Instant::now() + limit;
        loop {
            match self
                .channels
                .next(deadline.saturating_duration_since(Instant::now()))
            {
                Some(Event::Control(found)) if found == line => return Answer::Came,
                Some(Event::Closed) => return Answer::Ended,
                Some(_) => {}
                None => return Answer::Silence,
            }
        }
    }

    fn tell(&mut self, line: &str) -> Result<(), L1Error> {
        let path = self.folder.join("control");
        self.channels
            .tell(line)
            .map_err(|source| L1Error::io(path, source))
    }

    fn wait_for_end(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if !matches!(self.emulator.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Why the machine is gone, from the emulator's last words and the kernel's.
    fn ended(&mut self, during: &str) -> L1Error {
        self.keep = true;
        self.wait_for_end(Duration::from_secs(10));
        let status = match self.emulator.try_wait() {
            Ok(Some(status)) => status.to_string(),
            _ => "its channels closed".to_owned(),
        };
        let emulator = self.log("emulator.log");
        let console = self.log("console.log");
        let fault = fault::in_logs(&emulator, &console);
        let detail = if emulator.trim().is_empty() {
            last_lines(&console, 4)
        } else {
            last_lines(&emulator, 3)
        };
        L1Error::Ended {
            during: during.to_owned(),
            status,
            detail,
            log: self.console_log(),
            fault,
        }
    }

    /// The machine does not answer: says what it was last seen doing.
    fn hung(&mut self, during: &str, limit: Duration) -> L1Error {
        self.keep = true;
        let console = self.log("console.log");
        let spinning = fault::is_spinning(self.emulator.id());
        let fault = fault::in_logs(&self.log("emulator.log"), &console).or(Some(Fault::Hang { spinning }));
        let detail = format!("last on the console: {}", last_lines(&console, 3));
        L1Error::Hung {
            during: during.to_owned(),
            limit,
            detail,
            log: self.console_log(),
            fault,
        }
    }

    fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for L1 {
    /// The emulator first, then, if nothing went wrong, the folder it used.
    fn drop(&mut self) {
        if matches!(self.emulator.try_wait(), Ok(None)) {
            if let Some(process) = rustix::process::Pid::from_raw(self.emulator.id().cast_signed()) {
                let _gone_already = rustix::process::kill_process(process, rustix::process::Signal::TERM);
            }
            if !self.wait_for_end(Duration::from_secs(5)) {
                let _gone_already = self.emulator.kill();
            }
            let _reaped = self.emulator.wait();
        }
        if !self.keep {
            let _left_behind = fs::remove_dir_all(&self.folder);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Came,
    Silence,
    Ended,
}

/// Adds to a machine what the agent in it needs.
fn furnished(testbed: &Testbed, mut machine: Machine, folder: &Path) -> Machine {
    if let Boot::Kernel { image, initrd, .. } = &mut machine.boot {
        *image = testbed.kernel.image.clone();
        *initrd = testbed.initramfs.clone();
    }
    machine.console = Chardev::File(folder.join("console.log"));
    machine.terminal = Some(folder.join("terminal"));
    machine.monitor = Some(folder.join("monitor"));
    machine.ports = ["control", "stdout", "stderr", "stdin"]
        .map(|name| (format!("pellucid.{name}"), folder.join(name)))
        .to_vec();
    machine.shares = vec![
        Share {
            tag: "host".into(),
            path: "/".into(),
            writable: false,
        },
        Share {
            tag: "share".into(),
            path: folder.join("share"),
            writable: true,
        },
    ];
    machine
}

/// A folder with a short name, because the path of a Unix socket must be short.
fn run_folder() -> Result<PathBuf, L1Error> {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let name = format!(
        "pellucid-testbed.{}.{run}.{:04x}",
        std::process::id(),
        nonce() & 0xffff
    );
    let folder = std::env::temp_dir().join(name);
    let share = folder.join("share");
    fs::create_dir_all(&share).map_err(|source| L1Error::io(share, source))?;
    Ok(folder)
}

fn nonce() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.subsec_nanos())
}

const BOOT_LIMIT: Duration = Duration::from_secs(180);
