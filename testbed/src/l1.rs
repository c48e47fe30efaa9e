//! L1: the emulated physical server, booted, with an agent in it that runs commands.
//! Output and exit status come over channels of their own; the console is only a log.

mod channel;
mod ending;
pub mod fault;
mod furnish;
mod job;
mod monitor;
mod running;

use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::stale::Watch;
use crate::{L1Error, Machine, Testbed};
use channel::Channels;
use ending::Answer;
pub use furnish::remove_stale_folders;
use furnish::{furnished, nonce, run_folder};
pub use job::Job;
pub use monitor::Monitor;
pub use running::{Next, Outcome, Running, Stream};

/// A physical server that runs. Ends when this is dropped.
#[derive(Debug)]
pub struct L1 {
    emulator: Child,
    channels: Channels,
    /// Ended before the emulator is.
    watch: Option<Watch>,
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
            watch: None,
            folder,
            jobs: 0,
            keep: true,
        };
        l1.connect()?;
        l1.watch = Some(Watch::start(l1.folder.join("debugger"), l1.channels.signs()));
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

    fn tell(&mut self, line: &str) -> Result<(), L1Error> {
        let path = self.folder.join("control");
        self.channels
            .tell(line)
            .map_err(|source| L1Error::io(path, source))
    }
}

const BOOT_LIMIT: Duration = Duration::from_secs(180);
