//! A machine without an emulator: listens at the sockets of a command line, plays the
//! agent and runs the jobs right here. So the channels are tested in milliseconds.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};

use pellucid_testbed::{L1, Machine, Testbed};

use crate::emulator::testbed_playing;
use crate::script;

/// How the machine behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should.
    Good,
    /// Aborts when a job starts, as QEMU does by a fault of its own.
    Aborts,
    /// Aborts so in its first two lives.
    AbortsTwice,
    /// Crashes when a job starts, in its first two lives.
    CrashesTwice,
    /// In its first life, a CPU sleeps with an interrupt in service, as its debugger tells.
    StuckOnce,
    /// Starts a job and then answers nothing.
    Deaf,
    /// Answers, but a task of the job waits for the kernel's own processors.
    Stalls,
}

/// Boots a scripted machine.
pub(crate) fn boot(manner: Manner) -> (tempfile::TempDir, L1) {
    let folder = tempfile::tempdir().unwrap();
    let l1 = L1::boot(&testbed(folder.path(), manner), &Machine::bare()).unwrap();
    (folder, l1)
}

/// A testbed whose emulator is this test binary, started once more.
pub(crate) fn testbed(folder: &Path, manner: Manner) -> Testbed {
    let play = format!(
        "echo >>'{lives}'\n\
         for word; do case $word in socket,id=monitor,*) path=${{word#*path=}} ;; esac; done\n\
         SCRIPTED_FOLDER=${{path%/monitor}} SCRIPTED_MANNER={manner:?} SCRIPTED_LIFE=$(wc -l <'{lives}') \
         exec '{this}' --exact --nocapture {ENTRY}",
        lives = folder.join("lives").display(),
        this = std::env::current_exe().unwrap().display()
    );
    testbed_playing(folder, &play)
}

/// How many machines were started in `folder`.
pub(crate) fn lives(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("lives"))
        .unwrap_or_default()
        .lines()
        .count()
}

/// Whether this is the second start of this binary, as an emulator.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os("SCRIPTED_FOLDER").is_some()
}

/// What that start does; the test named by `ENTRY` leads here.
pub(crate) fn play() {
    let folder = std::env::var_os("SCRIPTED_FOLDER").unwrap();
    let folder = PathBuf::from(folder);
    let life: u32 = std::env::var("SCRIPTED_LIFE").unwrap().trim().parse().unwrap();
    let manner = match std::env::var("SCRIPTED_MANNER").unwrap().as_str() {
        "AbortsTwice" if life <= 2 => "Aborts".to_owned(),
        "CrashesTwice" if life <= 2 => "Crashes".to_owned(),
        "StuckOnce" if life == 1 => "Stuck".to_owned(),
        "AbortsTwice" | "CrashesTwice" | "StuckOnce" => "Good".to_owned(),
        other => other.to_owned(),
    };
    let input = UnixListener::bind(folder.join("stdin")).unwrap();
    let listeners =
        ["control", "stdout", "stderr"].map(|name| UnixListener::bind(folder.join(name)).unwrap());
    let [control, stdout, stderr] = listeners.map(|listener| listener.accept().unwrap().0);
    let agent = Agent {
        folder,
        stdout,
        stderr,
        control: Mutex::new(control.try_clone().unwrap()),
        input,
    };
    if manner == "Stuck" {
        let debugger = UnixListener::bind(agent.folder.join("debugger")).unwrap();
        std::thread::spawn(move || {
            for stream in debugger.incoming() {
                // Whoever asks goes away when it has what it wants.
                let _ = debug(stream.unwrap());
            }
        });
    }
    agent.run(control, &manner);
}

/// Answers as QEMU's debugger does for a machine of one CPU that sleeps with an interrupt in service.
fn debug(stream: UnixStream) -> std::io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?).split(b'#');
    let mut stream = stream;
    let (registers, controller) = (
        script::request("info registers -a"),
        script::request("info lapic 0"),
    );
    while let Some(request) = requests.next().transpose()? {
        let request = String::from_utf8_lossy(&request);
        let request = request.rsplit('$').next().unwrap_or_default();
        let answers = match request {
            request if request == registers => {
                script::printed("CPU#0\nRIP=ffffffff95e4e8cb RFL=00000206 CPL=0 HLT=1\n")
            }
            request if request == controller => script::printed("ISR\t 251 \nIRR\t 236 \n"),
            request if request.starts_with("qRcmd,") => script::says("E01"),
            "D" => script::says("OK"),
            _ => script::says("T05thread:01;"),
        };
        for answer in answers {
            stream.write_all(format!("+${answer}#00").as_bytes())?;
        }
    }
    Ok(())
}

struct Agent {
    folder: PathBuf,
    stdout: UnixStream,
    stderr: UnixStream,
    control: Mutex<UnixStream>,
    input: UnixListener,
}

impl Agent {
    fn run(self, control: UnixStream, manner: &str) {
        self.answer("ready");
        let agent = Arc::new(self);
        let group = Arc::new(AtomicI32::new(0));
        for line in BufReader::new(control).lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            match (words[0], manner) {
                ("run", "Aborts") => {
                    eprintln!("ERROR:cpus.c:504:tcg_handle_interrupt: assertion failed: (bql_locked())");
                    std::process::abort();
                }
                ("run", "Crashes") => std::process::abort(),
                ("run", _) => {
                    let (agent, group) = (Arc::clone(&agent), Arc::clone(&group));
                    let (id, source) = (words[1].to_owned(), words[2].to_owned());
                    std::thread::spawn(move || agent.job(&id, &source, &group));
                }
                (_, "Deaf") => {}
                ("where", manner) => {
                    let stands: &[u8] = match manner {
                        "Stalls" => {
                            b"task 1: vmm\n  thread 1 (vmm): rcu_barrier+0x1f6/0x2d0 kvm_destroy_vm+0x1/0x2\n"
                        }
                        _ => b"task 1: stands at the crossing\n",
                    };
                    (&agent.stderr).write_all(stands).unwrap();
                    agent.answer(&format!("told {}", words[1]));
                }
                ("kill", _) => end(group.load(Ordering::SeqCst)),
                _ => agent.answer(&format!("pong {}", words[1])),
            }
        }
        end(group.load(Ordering::SeqCst));
        std::process::exit(0);
    }

    fn job(&self, id: &str, source: &str, group: &AtomicI32) {
        let script = self.folder.join(format!("share/job-{id}.sh"));
        let mut command = Command::new("sh");
        command
            .arg(script)
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.stdin(if source == "stdin" {
            self.opened_input()
        } else {
            Stdio::null()
        });
        let mut child = command.spawn().unwrap();
        group.store(child.id().cast_signed(), Ordering::SeqCst);
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let mark = format!("\u{1e}end of job {id}\u{1e}");
        std::thread::scope(|scope| {
            scope.spawn(|| relay(&mut out, &self.stdout, &mark));
            scope.spawn(|| relay(&mut err, &self.stderr, &mark));
        });
        let status = child.wait().unwrap();
        self.answer(&format!("exit {id} {}", status.code().unwrap_or(137)));
    }

    /// The job's input after the word by which the other side says that it is open.
    fn opened_input(&self) -> Stdio {
        let (mut stream, _) = self.input.accept().unwrap();
        let mut word = [0; 3];
        stream.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"go\n");
        std::os::fd::OwnedFd::from(stream).into()
    }

    fn answer(&self, line: &str) {
        self.control
            .lock()
            .unwrap()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }
}

fn relay(from: &mut impl Read, mut to: &UnixStream, mark: &str) {
    std::io::copy(from, &mut to).unwrap();
    to.write_all(mark.as_bytes()).unwrap();
}

fn end(group: i32) {
    if let Some(group) = rustix::process::Pid::from_raw(group) {
        let _gone_already = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

const ENTRY: &str = "a_machine_that_is_switched_off_leaves_no_folder";
