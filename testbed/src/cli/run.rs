//! `run` and `shell`: one command, or a person, in the emulated server.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use clap::Args;
use pellucid_testbed::l1::{Next, Running, Stream};
use pellucid_testbed::{Job, L1, L1Error, Progress, Testbed};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::Acted;
use super::options::MachineOptions;

/// Runs a command in the emulated server.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    machine: MachineOptions,
    /// Give the command no input
    #[arg(long)]
    no_input: bool,
    /// Show the emulated server's console log afterwards
    #[arg(long)]
    console: bool,
    /// The command and its arguments
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

/// Opens a shell in the emulated server.
#[derive(Debug, Args)]
pub(crate) struct Shell {
    #[command(flatten)]
    machine: MachineOptions,
}

impl Run {
    pub(crate) fn act(&self, progress: Progress) -> Acted {
        let testbed = Testbed::ready(progress)?;
        let machine = self.machine.machine();
        let mut l1 = booted(&testbed, &machine, progress)?;
        let mut job = Job::new(&self.command).guard(self.machine.guard());
        for (name, value) in testbed.variables()? {
            job = job.variable(name, value);
        }
        if !self.no_input {
            job = job.with_input();
        }
        let mut running = l1.start(&job)?;
        if let Some(input) = running.input() {
            feed(input.try_clone()?);
        }
        let status = match relay(&mut running) {
            Ok(status) => status,
            Err(error) => {
                show_console(&error, progress);
                return Err(error.into());
            }
        };
        drop(running);
        if self.console {
            progress.say(std::fs::read_to_string(l1.console_log()).unwrap_or_default());
        }
        Ok(u8::try_from(status).unwrap_or(u8::MAX))
    }
}

impl Shell {
    pub(crate) fn act(&self, progress: Progress) -> Acted {
        let testbed = Testbed::ready(progress)?;
        let mut l1 = booted(&testbed, &self.machine.machine(), progress)?;
        let size = tcgetwinsize(std::io::stdin()).map(|size| (size.ws_row, size.ws_col));
        let (rows, columns) = size.unwrap_or((24, 80));
        let start = format!("stty rows {rows} cols {columns}; exec ${{SHELL:-sh}} -i");
        let job = Job::new(["sh", "-c", &start]).guard(Duration::from_secs(7 * 86_400));
        let mut job = job.on_terminal();
        for (name, value) in testbed.variables()? {
            job = job.variable(name, value);
        }
        let terminal = l1.terminal()?;
        let mut output = terminal.try_clone()?;
        let mut running = l1.start(&job)?;
        let _raw = RawMode::enter();
        feed(terminal);
        thread::spawn(move || copy_all(&mut output, &mut std::io::stdout()));
        let status = relay(&mut running)?;
        Ok(u8::try_from(status).unwrap_or(u8::MAX))
    }
}

fn booted(testbed: &Testbed, machine: &pellucid_testbed::Machine, progress: Progress) -> Result<L1, L1Error> {
    let _step = progress.step("booting the emulated server");
    L1::boot(testbed, machine).inspect_err(|error| show_console(error, progress))
}

/// Hands the job's output on until it ends.
fn relay(running: &mut Running<'_>) -> Result<i32, L1Error> {
    loop {
        match running.next(Duration::from_secs(1))? {
            Next::Output(stream, bytes) => hand_on(stream, &bytes),
            Next::Quiet => {}
            Next::Ended(status) => return Ok(status),
        }
    }
}

/// What a job wrote goes to this program's own stream of that name.
pub(super) fn hand_on(stream: Stream, bytes: &[u8]) {
    let write = |out: &mut dyn Write| {
        let _reader_is_gone = out.write_all(bytes).and_then(|()| out.flush());
    };
    match stream {
        Stream::Stdout => write(&mut std::io::stdout()),
        Stream::Stderr => write(&mut std::io::stderr()),
    }
}

/// Copies standard input to `target` and ends it when the input ends.
fn feed(mut target: UnixStream) {
    thread::spawn(move || {
        copy_all(&mut std::io::stdin().lock(), &mut target);
        let _closed_already = target.shutdown(std::net::Shutdown::Write);
    });
}

fn copy_all(from: &mut impl Read, to: &mut impl Write) {
    let mut chunk = [0_u8; 4096];
    while let Ok(length) = from.read(&mut chunk) {
        if length == 0 || to.write_all(&chunk[..length]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// Shows the end of the console log of a machine that failed.
fn show_console(error: &L1Error, progress: Progress) {
    let (L1Error::Ended { log, fault, .. } | L1Error::Hung { log, fault, .. }) = error else {
        return;
    };
    if let Some(fault) = fault {
        progress.say(format!(
            "this is a fault of the emulator, not of the command: {fault}"
        ));
    }
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(25)..] {
        eprintln!("console | {line}");
    }
}

/// The person's terminal without line editing, echo and signals, until dropped.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> Self {
        let stdin = std::io::stdin();
        let Ok(before) = tcgetattr(stdin.as_fd()) else {
            return Self(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        let _not_a_terminal = tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw);
        Self(Some(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _not_a_terminal = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, before);
        }
    }
}
