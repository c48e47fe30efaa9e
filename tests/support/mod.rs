//! Shared by the tests of the reference VMM: starting it as a person would, its console, small guests, disks, the host's side.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test uses its part, and ends where the host fails it"
)]

pub(crate) mod disk;
pub(crate) mod engine;
pub(crate) mod holdings;
pub(crate) mod host;
pub(crate) mod initrd;
pub(crate) mod lent;
pub(crate) mod linux;
pub(crate) mod monitor;
pub(crate) mod plug;
pub(crate) mod rom;
pub(crate) mod server;
pub(crate) mod standing;
pub(crate) mod state;
pub(crate) mod tiny;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

pub(crate) use server::Server;

/// A reference VMM with a state directory of its own, which ends with the test.
pub(crate) struct Vmm {
    pub(crate) scratch: TempDir,
    pub(crate) program: PathBuf,
}

impl Vmm {
    pub(crate) fn new() -> Self {
        Self {
            scratch: tempfile::tempdir().unwrap(),
            program: program(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A file in the test's own folder.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The command, ready to be given more arguments.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words);
        self.furnish(&mut command);
        command
    }

    /// The command as `script` starts it: `$VMM` is the program, and the words follow as "$@".
    pub(crate) fn scripted(&self, before: &[&str], script: &str, words: &[&str]) -> Command {
        let mut command = Command::new(before[0]);
        command
            .args(&before[1..])
            .args(["sh", "-c", script, "sh"])
            .args(words)
            .env("VMM", &self.program);
        self.furnish(&mut command);
        command
    }

    fn furnish(&self, command: &mut Command) {
        command
            .env("PELLUCID_STATE_DIR", self.state())
            .env_remove("PELLUCID_LOG")
            .current_dir(self.scratch.path())
            .stdin(Stdio::null());
    }

    /// Runs it to its end.
    pub(crate) fn ask<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Answer {
        Answer::of(&mut self.command(words))
    }

    /// Starts a server under `name` with one vCPU.
    pub(crate) fn start(&self, name: &str, memory: &str, more: &[&str]) -> Server {
        let words = ["run", "--name", name, "--cpus", "1", "--memory", memory];
        Server::start(self.command(words.iter().chain(more)))
    }

    /// The claims that `vmm list --json` shows.
    pub(crate) fn claims(&self) -> Vec<serde_json::Value> {
        let answer = self.ask(["list", "--json"]);
        assert_eq!(answer.status, Some(0), "{answer:?}");
        serde_json::from_str(&answer.out).unwrap()
    }
}

/// A test that fails leaves no device behind for the next one to stumble over.
impl Drop for Vmm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _told_already = self.command(["heal"]).status();
        }
    }
}

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    pub(crate) fn of(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            status: status.code(),
            out: text(stdout),
            err: text(stderr)
                .split_inclusive('\n')
                .filter(|line| !server::is_nameless_host(line))
                .collect(),
        }
    }

    /// A refusal: status 1, nothing on standard output, and one line on standard error that has all of `parts`.
    #[track_caller]
    pub(crate) fn refuses(&self, parts: &[&str]) {
        assert_eq!(self.status, Some(1), "{self:?}");
        assert_eq!(self.out, "");
        assert_eq!(self.err.lines().count(), 1, "{self:?}");
        for part in parts.iter().chain(&["vmm: "]) {
            assert!(self.err.contains(part), "{part:?} is missing in {:?}", self.err);
        }
    }
}

/// The reference VMM: `PELLUCID_VMM`, or the one that Cargo built beside this test.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("PELLUCID_VMM") {
        return path.into();
    }
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().and_then(Path::parent).unwrap();
    let program = folder.join("examples/vmm");
    assert!(
        program.exists(),
        "no {}: `cargo build --example vmm`, or set PELLUCID_VMM",
        program.display()
    );
    program
}

/// Waits until `attempt` has something; the message of the failure says what never came.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + HANG_GUARD;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{what}: not within {HANG_GUARD:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a part of a test that this machine cannot do may be left out; in CI nothing is.
pub(crate) fn left_out(reason: &str) {
    let strict = std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false");
    assert!(!strict, "{reason}");
    eprintln!("left out: {reason}");
}

/// Nothing here takes this long. It is no measure of time: a test of 25 s took 100 s in an emulated server beside two others on two CPUs.
pub(crate) const HANG_GUARD: Duration = Duration::from_secs(240);
