//! Crash injection: a child process that SIGKILLs itself at the Nth event of its steps, and the state of the host around it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part, and ends where the host fails it"
)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use pellucid_partition::STEP_TARGET;
use rustix::process::{Signal, getpid, kill_process};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Where the child finds what it works on.
pub(crate) const SCENE: &str = "PELLUCID_TEST_SCENE";
const KILL_AT: &str = "PELLUCID_TEST_KILL_AT";
const ONLY: &str = "PELLUCID_TEST_KILL_ONLY";

/// Counts the events of steps, notes their names, and at one of them ends the process as nothing else does.
struct Executioner {
    seen: AtomicU64,
    kill_at: u64,
    /// The steps that count; empty: all.
    only: Vec<String>,
    names: Mutex<std::fs::File>,
}

impl Subscriber for Executioner {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == STEP_TARGET
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Name(String);
        impl Visit for Name {
            fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
            fn record_str(&mut self, _: &Field, value: &str) {
                self.0 = value.to_owned();
            }
        }
        let mut name = Name(String::new());
        event.record(&mut name);
        if !self.only.is_empty() && !self.only.contains(&name.0) {
            return;
        }
        let mut names = self.names.lock().unwrap();
        names.write_all(format!("{}\n", name.0).as_bytes()).unwrap();
        if self.seen.fetch_add(1, Ordering::SeqCst) == self.kill_at {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// In the child: the folder of the scene, and the executioner at work if the parent wants one.
pub(crate) fn scene() -> PathBuf {
    let scene = PathBuf::from(std::env::var_os(SCENE).unwrap());
    if let Ok(kill_at) = std::env::var(KILL_AT) {
        let executioner = Executioner {
            seen: AtomicU64::new(0),
            kill_at: kill_at.parse().unwrap(),
            only: std::env::var(ONLY)
                .map(|only| only.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            names: Mutex::new(std::fs::File::create(scene.join("steps")).unwrap()),
        };
        tracing::subscriber::set_global_default(executioner).unwrap();
    }
    scene
}

/// The child that runs the ignored test `name` of this binary.
pub(crate) fn child(name: &str, scene: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", name])
        .env(SCENE, scene)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// Runs `name` once for each event of its steps, killed there; `check` is told the event's number, and finds everything as it was.
/// Returns the steps in the order in which they came, each twice.
pub(crate) fn kill_at_every_step(name: &str, scene: &Path, check: impl FnMut(u64)) -> Vec<String> {
    kill_at_every_step_of(&[], name, scene, check)
}

/// The same, where only steps of these names count.
pub(crate) fn kill_at_every_step_of(
    only: &[&str],
    name: &str,
    scene: &Path,
    mut check: impl FnMut(u64),
) -> Vec<String> {
    let mut last = 0;
    let told = |event| {
        last = event;
        check(event);
    };
    let steps = kill_at_each(0.., only, name, scene, told);
    assert_eq!(steps.len() as u64, last, "it was killed at each event");
    steps
}

/// The same for one event of `stride`, and for steps of which there may be fewer in one run than in another: what waits for the kernel
/// tries again, and each try is a step.
pub(crate) fn kill_at_steps(
    name: &str,
    scene: &Path,
    stride: usize,
    mut check: impl FnMut(u64),
) -> Vec<String> {
    let mut last = 0;
    let told = |event| {
        last = event;
        check(event);
    };
    let steps = kill_at_each((0..).step_by(stride), &[], name, scene, told);
    assert!(steps.len() as u64 <= last, "it was killed up to its end");
    steps
}

/// Runs `name` once for each of `events`, until one is beyond its end. Returns its steps.
fn kill_at_each(
    events: impl Iterator<Item = u64>,
    only: &[&str],
    name: &str,
    scene: &Path,
    mut check: impl FnMut(u64),
) -> Vec<String> {
    for kill_at in events {
        let mut child = child(name, scene);
        if !only.is_empty() {
            child.env(ONLY, only.join(","));
        }
        let status = child.env(KILL_AT, kill_at.to_string()).status().unwrap();
        // Before the check, which may run such a child itself.
        let steps = std::fs::read_to_string(scene.join("steps")).unwrap();
        check(kill_at);
        if status.signal() == Some(Signal::KILL.as_raw()) {
            continue;
        }
        assert!(status.success(), "not killed at event {kill_at}, and {status}");
        return steps.lines().map(str::to_owned).collect();
    }
    unreachable!("the numbers do not end")
}

/// Runs `name` and kills it at that event.
pub(crate) fn kill_at(name: &str, scene: &Path, event: u64) {
    let status = child(name, scene)
        .env(KILL_AT, event.to_string())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()));
}

/// Runs `name` to its end. Returns its steps.
pub(crate) fn steps_of(name: &str, scene: &Path) -> Vec<String> {
    let status = child(name, scene)
        .env(KILL_AT, u64::MAX.to_string())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    let steps = std::fs::read_to_string(scene.join("steps")).unwrap();
    steps.lines().map(str::to_owned).collect()
}

/// Kills on drop, so that no child outlives a test that failed.
pub(crate) struct Mortal(pub(crate) Child);

impl Mortal {
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every file below `directory` with its content.
pub(crate) fn files_below(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files_below(&path)),
            false => drop(all.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    all
}

/// As many as the suite has time for, or as many as `PELLUCID_TEST_KILLS` says.
pub(crate) fn kills(in_the_suite: u32) -> u32 {
    std::env::var("PELLUCID_TEST_KILLS").map_or(in_the_suite, |text| text.parse().unwrap())
}

/// A folder in memory where there is one, as the system's state directory is: each record is synced.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = tempfile::tempdir_in(memory);
    made.or_else(|_| tempfile::tempdir()).unwrap()
}

/// A number below `end`, another each time.
pub(crate) fn random(end: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() % end
}
