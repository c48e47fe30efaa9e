//! Test binaries in emulated servers. Binaries share a boot as long as they want the same
//! machine and pass; a fault of the emulator costs a new boot and a rerun.

use std::io::Write;
use std::path::PathBuf;

use crate::l1::{Job, L1, Stream};
use crate::suite::Suite;
use crate::suite::build::Binary;
use crate::suite::libtest::Counter;
use crate::suite::table::Row;
use crate::suite::words::Wish;
use crate::{Fault, L1Error, Progress, Testbed};

/// A series of test binaries and the server they run in at the moment.
#[derive(Debug)]
pub struct Session<'a> {
    suite: &'a Suite,
    testbed: &'a Testbed,
    variables: Vec<(&'static str, String)>,
    disk: Option<PathBuf>,
    progress: Progress,
    running: Option<(Wish, L1)>,
}

impl<'a> Session<'a> {
    /// A session without a server; the first binary boots one.
    pub fn new(suite: &'a Suite, testbed: &'a Testbed, progress: Progress) -> Self {
        Self {
            suite,
            testbed,
            variables: Vec::new(),
            disk: None,
            progress,
            running: None,
        }
    }

    /// With these variables for each binary.
    #[must_use]
    pub fn variables(mut self, variables: Vec<(&'static str, String)>) -> Self {
        self.variables = variables;
        self
    }

    /// With this disk for the binaries that want one.
    #[must_use]
    pub fn disk(mut self, disk: PathBuf) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Runs `binary`, again if the emulator was at fault, at most three times.
    pub fn run(&mut self, binary: &Binary) -> Row {
        let wish = Wish::of(&binary.name);
        let mut row = Row::new(binary.tier, &binary.name, &wish.title());
        if self.progress != Progress::Quiet {
            println!("\n== tier {}: {} in {}", binary.tier, binary.name, wish.title());
        }
        loop {
            let mut counter = Counter::default();
            let error = match self.attempt(binary, wish, &mut counter) {
                Ok(status) => {
                    let failed = status != 0;
                    let seen = failed.then(|| self.look_back()).flatten();
                    let died = counter.is_of_dead_guests().then_some(Fault::GuestDeath);
                    if let Some(fault) = died.or(seen)
                        && row.reruns.len() < MOST_RERUNS
                    {
                        self.runs_again(binary, &mut row, fault);
                        continue;
                    }
                    let tally = counter.finish(!failed);
                    if tally.failed > 0 {
                        self.running = None;
                    }
                    return row.finish(tally, failed.then(|| format!("exit status {status}")));
                }
                Err(error) => error,
            };
            self.look_back();
            self.running = None;
            self.progress.say(format!("{}: {error}", binary.name));
            self.progress
                .say(format!("last on its console:\n{}", error.console_tail()));
            match error.fault() {
                Some(fault) if row.reruns.len() < MOST_RERUNS => self.runs_again(binary, &mut row, fault),
                fault => {
                    let kind = if fault.is_some() {
                        "the emulator failed three times"
                    } else {
                        "see above"
                    };
                    return row.finish(counter.finish(false), Some(kind.to_owned()));
                }
            }
        }
    }

    /// Says what the server's CPUs did in the longest silence while tests failed; returns the emulator's fault that showed then.
    fn look_back(&mut self) -> Option<Fault> {
        let (_, l1) = self.running.as_mut()?;
        let (looks, fault) = l1.silences();
        if !looks.is_empty() {
            self.progress.say(format!("the server {}", looks.join("\n")));
        }
        fault
    }

    /// Says and counts that `binary` is run once more, which it is in a new server.
    fn runs_again(&mut self, binary: &Binary, row: &mut Row, fault: Fault) {
        self.running = None;
        self.progress
            .say(format!("running {} again: {fault}", binary.name));
        row.reruns.push(fault);
    }

    fn attempt(&mut self, binary: &Binary, wish: Wish, counter: &mut Counter) -> Result<i32, L1Error> {
        let l1 = self.server(wish)?;
        let words = std::iter::once(binary.path.to_string_lossy().into_owned()).chain(self.suite.words());
        let folder = binary.folder.to_string_lossy();
        let guard = self.suite.guard;
        let mut job = Job::new(words).folder(&binary.folder);
        job = job
            .silence(guard)
            .guard(guard * MOST_SILENCES)
            .variable("CARGO_MANIFEST_DIR", folder)
            .variable("RUST_BACKTRACE", "1");
        for (name, value) in &self.variables {
            job = job.variable(*name, value);
        }
        let quiet = self.progress == Progress::Quiet;
        let (_, l1) = self.running.insert((wish, l1));
        l1.run_with(&job, |stream, bytes| {
            if stream == Stream::Stdout {
                counter.take(bytes);
            }
            if !quiet {
                show(stream, bytes);
            }
        })
    }

    /// The running server if it is the one wanted, else a new one.
    fn server(&mut self, wish: Wish) -> Result<L1, L1Error> {
        if let Some((found, l1)) = self.running.take()
            && found == wish
        {
            return Ok(l1);
        }
        let _step = self.progress.step(format!("booting {}", wish.title()));
        L1::boot(self.testbed, &wish.machine(self.disk.as_deref()))
    }
}

fn show(stream: Stream, bytes: &[u8]) {
    let _reader_is_gone = match stream {
        Stream::Stdout => std::io::stdout()
            .write_all(bytes)
            .and_then(|()| std::io::stdout().flush()),
        Stream::Stderr => std::io::stderr().write_all(bytes),
    };
}

const MOST_RERUNS: usize = 2;
/// A binary that goes on saying something takes no longer than this many of the silences that one may have.
const MOST_SILENCES: u32 = 4;
