//! The half that runs in the emulated server: starts each VMM, talks to the guest on its console, reads the counters.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::bench::BenchError;
use crate::bench::counters::{KvmCounters, resident_kib};
use crate::bench::sample::{Contender, Counters, Orders, Sample};

/// Does what `orders` (JSON) say and writes each sample as a line of JSON to `out`.
///
/// # Errors
/// The device cannot be prepared, or a VMM does not boot the guest.
pub fn measure(orders: &str, out: &mut dyn Write) -> Result<(), BenchError> {
    let orders: Orders = serde_json::from_str(orders).map_err(|source| BenchError::Answer {
        answer: orders.to_owned(),
        source,
    })?;
    lend(Path::new("/sys"), &orders.device)?;
    for round in 0..=orders.rounds {
        for contender in &orders.contenders {
            let mut boot = Boot::start(contender)?;
            let sample = boot
                .sample(&orders, round)
                .map_err(|problem| boot.failed(problem))?;
            let line = serde_json::to_string(&sample).unwrap_or_default();
            let written = writeln!(out, "{line}").and_then(|()| out.flush());
            written.map_err(|source| BenchError::file(Path::new("standard output"), source))?;
        }
    }
    Ok(())
}

/// Puts the device on vfio-pci, as any VMM finds it on a host that was prepared.
fn lend(sys: &Path, device: &str) -> Result<(), BenchError> {
    let folder = sys.join("bus/pci/devices").join(device);
    let write =
        |path: &Path, text: &str| fs::write(path, text).map_err(|source| BenchError::file(path, source));
    write(&folder.join("driver_override"), "vfio-pci")?;
    if folder.join("driver").exists() {
        write(&folder.join("driver/unbind"), device)?;
    }
    write(&sys.join("bus/pci/drivers_probe"), device)
}

/// A VMM under way. Ends when this is dropped.
struct Boot {
    contender: String,
    began: Instant,
    process: Child,
    input: Option<ChildStdin>,
    errors: Option<ChildStderr>,
    lines: Receiver<(Instant, String)>,
}

impl Boot {
    fn start(contender: &Contender) -> Result<Self, BenchError> {
        let (program, arguments) = contender
            .words
            .split_first()
            .map_or(("", &[][..]), |(p, a)| (p, a));
        let mut command = Command::new(program);
        command.args(arguments);
        command.envs(contender.variables.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let began = Instant::now();
        let mut process = command
            .spawn()
            .map_err(|source| BenchError::file(Path::new(program), source))?;
        let (sender, lines) = channel();
        if let Some(output) = process.stdout.take() {
            std::thread::spawn(move || {
                let mut output = BufReader::new(output);
                let mut line = Vec::new();
                while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                    let text = String::from_utf8_lossy(&line).trim().to_owned();
                    if sender.send((Instant::now(), text)).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
        if let Some((thread, cpu)) = &contender.pinned {
            pin(process.id(), thread, *cpu)?;
        }
        let (input, errors) = (process.stdin.take(), process.stderr.take());
        Ok(Self {
            contender: contender.name.clone(),
            began,
            process,
            input,
            errors,
            lines,
        })
    }

    fn sample(&mut self, orders: &Orders, round: u32) -> Result<Sample, String> {
        let kvm = KvmCounters::of(self.process.id());
        let reached = self.await_line("bench: init")?;
        let until_init = kvm.survey().ok_or("KVM counts nothing for it in debugfs")?;
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", self.process.id()));
        let resident_kib = resident_kib(&smaps.map_err(|error| error.to_string())?, orders.memory >> 10)?;
        self.await_line("bench: disk")?;
        // The guest now waits for a line: nothing else happens in it.
        std::thread::sleep(Duration::from_millis(300));
        let before = kvm.survey().unwrap_or_default();
        let told = Instant::now();
        let input = self.input.as_mut().ok_or("it has no input")?;
        let written = input.write_all(format!("{}\n", orders.reads).as_bytes());
        written
            .and_then(|()| input.flush())
            .map_err(|error| error.to_string())?;
        let read = self.await_line("bench: read 0")?;
        let during_reads = grown(&before, &kvm.survey().unwrap_or_default());
        self.await_end()?;
        Ok(Sample {
            contender: self.contender.clone(),
            round,
            start_ms: milliseconds(reached - self.began),
            until_init,
            resident_kib,
            reads_ms: milliseconds(read - told),
            reads: orders.reads,
            during_reads,
        })
    }

    /// Waits for the guest to say `wanted`, and returns when it did.
    fn await_line(&self, wanted: &str) -> Result<Instant, String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok((moment, line)) if line.ends_with(wanted) => return Ok(moment),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "the guest did not say {wanted:?} within {} s",
                        LIMIT.as_secs()
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("it ended before the guest said {wanted:?}"));
                }
            }
        }
    }

    fn await_end(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            match self.process.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(format!("it ended with {status} after the guest had powered off"));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        Err("it did not end after the guest had powered off".into())
    }

    fn failed(&mut self, problem: String) -> BenchError {
        let _ended_already = self.process.kill();
        let mut said = Vec::new();
        if let Some(errors) = self.errors.take() {
            let _what_came = errors.take(4096).read_to_end(&mut said);
        }
        BenchError::Measure {
            contender: self.contender.clone(),
            problem,
            said: String::from_utf8_lossy(&said).into_owned(),
        }
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped_already = self.process.wait();
    }
}

/// Puts the thread called `name` of a process on `cpu`, as soon as it is there.
fn pin(process: u32, name: &str, cpu: usize) -> Result<(), BenchError> {
    let tasks = PathBuf::from(format!("/proc/{process}/task"));
    let called = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name);
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        let found = fs::read_dir(&tasks).map_err(|source| BenchError::file(&tasks, source))?;
        let thread = found.flatten().map(|task| task.path()).find(|task| called(task));
        let Some(thread) = thread else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let id = thread.file_name().and_then(|id| id.to_str()?.parse().ok());
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        let pinned = sched_setaffinity(id.and_then(Pid::from_raw), &cpus);
        return pinned.map_err(|source| BenchError::file(&thread, source.into()));
    }
    let missing = std::io::Error::new(std::io::ErrorKind::NotFound, format!("no thread {name:?}"));
    Err(BenchError::file(&tasks, missing))
}

/// By how much each counter grew.
fn grown(before: &Counters, after: &Counters) -> Counters {
    let growth = |(name, value): (&String, &u64)| {
        let old = before.get(name).copied().unwrap_or(0);
        (name.clone(), value.saturating_sub(old))
    };
    after.iter().map(growth).collect()
}

fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

/// Longer than any boot or series of reads takes, also on a loaded machine.
const LIMIT: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(script: &str) -> Contender {
        Contender {
            name: "shell".into(),
            words: ["sh", "-c", script].map(String::from).to_vec(),
            variables: vec![("WORD".into(), "init".into())],
            pinned: None,
        }
    }

    #[test]
    fn what_the_guest_says_is_found_among_other_lines() {
        let mut boot = Boot::start(&contender(
            "echo noise; echo \"[x] bench: $WORD\"; read -r x; exit 0",
        ))
        .unwrap();
        boot.await_line("bench: init").unwrap();
        boot.input.take();
        boot.await_end().unwrap();
    }

    #[test]
    fn a_vmm_that_fails_is_quoted() {
        let mut boot = Boot::start(&contender("echo 'no such device' >&2; exit 1")).unwrap();
        let problem = boot.await_line("bench: init").unwrap_err();
        let error = boot.failed(problem).to_string();
        assert!(
            error.contains("shell: it ended before") && error.contains("no such device"),
            "{error}"
        );
    }

    #[test]
    fn a_status_other_than_zero_is_a_failure() {
        let mut boot = Boot::start(&contender("exit 4")).unwrap();
        assert!(boot.await_end().unwrap_err().contains('4'));
    }

    #[test]
    fn a_thread_is_pinned_by_its_name_and_its_absence_is_told() {
        let mut asked = contender("echo 'bench: init'; read -r x; exit 0");
        let last = std::thread::available_parallelism().unwrap().get() - 1;
        asked.pinned = Some(("sh".into(), last));
        let mut boot = Boot::start(&asked).unwrap();
        boot.await_line("bench: init").unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", boot.process.id())).unwrap();
        let allowed = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        assert_eq!(allowed.map(str::trim), Some(last.to_string().as_str()));
        boot.input.take();
        boot.await_end().unwrap();
        assert!(pin(u32::MAX, "sh", 0).is_err());
    }

    #[test]
    fn counters_that_are_new_grow_from_zero() {
        let of = |pairs: &[(&str, u64)]| {
            pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), *v))
                .collect::<Counters>()
        };
        let (before, after) = (of(&[("exits", 5)]), of(&[("exits", 9), ("halt_exits", 2)]));
        assert_eq!(grown(&before, &after), of(&[("exits", 4), ("halt_exits", 2)]));
    }

    #[test]
    fn a_device_is_taken_off_its_driver_and_probed_again() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("bus/pci/devices/0000:02:00.0");
        fs::create_dir_all(device.join("driver")).unwrap();
        lend(sys.path(), "0000:02:00.0").unwrap();
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(text(&device.join("driver_override")), "vfio-pci");
        assert_eq!(text(&device.join("driver/unbind")), "0000:02:00.0");
        assert_eq!(text(&sys.path().join("bus/pci/drivers_probe")), "0000:02:00.0");
        assert!(lend(sys.path(), "0000:09:00.0").is_err());
    }
}
