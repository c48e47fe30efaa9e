//! The logical server of the demo: the reference VMM in the emulated host, its standard streams the guest's console.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::error::DemoError;
use super::phases::Lent;
use crate::console::{Console, ConsoleError};
use crate::l1::{Next, Running, Stream};
use crate::{Fault, Job, L1, L1Error};

/// What a conversation came to.
type Talked<T> = Result<T, ConsoleError>;

/// The VMM's exit status, unless it could not be ended; what it wrote to standard error; what the conversation came
/// to, if it is over.
type Pumped<T> = (Result<Option<i32>, L1Error>, Vec<u8>, Option<Talked<T>>);

/// Runs the reference VMM by `command` in the host and lets `talk` talk to its guest until the guest is off.
/// The VMM has then ended with success; the exits of each vCPU are those that it reports (`--json`).
pub(crate) fn run<T: Send>(
    l1: &mut L1,
    command: &[&str],
    copies: Vec<Box<dyn Write + Send>>,
    talk: impl FnOnce(&mut Console) -> Talked<T> + Send,
) -> Result<(T, Vec<u64>), DemoError> {
    let job = Job::new(command).folder("/").guard(GUARD).with_input();
    let streams = |source| L1Error::io("the console's streams", source);
    let mut running = l1.start(&job)?;
    let (near, far) = UnixStream::pair().map_err(streams)?;
    let keyboard = running
        .input()
        .ok_or_else(|| streams(io::ErrorKind::NotConnected.into()))?;
    let keyboard = keyboard.try_clone().map_err(streams)?;

    let (report, result) = mpsc::channel();
    let (ended, stderr, talked) = thread::scope(|scope| {
        scope.spawn(move || {
            let mut console = Console::over(near, keyboard, copies);
            let talked = talk(&mut console);
            // The receiver outlives the scope.
            drop(report.send(talked));
        });
        let (ended, stderr, talked) = pump(&mut running, far, &result);
        // With the far end closed the talker comes to an end, whatever it waits for.
        let talked = talked.or_else(|| result.recv().ok());
        (ended, stderr, talked)
    });
    drop(running);
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    match (ended, talked) {
        (Err(error), _) => Err(error.into()),
        (Ok(Some(0)), Some(Ok(value))) => Ok((value, reported_exits(&stderr))),
        // The VMM's own refusal says more than the silence of its guest.
        (Ok(Some(status)), Some(Err(ConsoleError::Ended { .. })) | Some(Ok(_)) | None) => {
            Err(DemoError::Vmm { status, stderr })
        }
        (Ok(_), Some(Err(source))) => {
            let spinning = !l1.answers(Duration::from_secs(20));
            let fault = spinning.then_some(Fault::Hang { spinning });
            Err(DemoError::Console {
                place: "logical server",
                source,
                note: stderr,
                fault,
            })
        }
        (Ok(None), _) => Err(DemoError::Vmm { status: -1, stderr }),
    }
}

/// Carries the guest's output to the talker until the VMM ends; a talker that fails ends the VMM.
fn pump<T>(running: &mut Running<'_>, mut far: UnixStream, result: &mpsc::Receiver<Talked<T>>) -> Pumped<T> {
    let (mut stderr, mut talked, mut killed) = (Vec::new(), None, None::<Instant>);
    loop {
        match running.next(Duration::from_millis(300)) {
            // A talker that has given up reads no more; the VMM is then ended below.
            Ok(Next::Output(Stream::Stdout, bytes)) => drop(far.write_all(&bytes)),
            Ok(Next::Output(Stream::Stderr, bytes)) => stderr.extend(bytes),
            Ok(Next::Ended(status)) => return (Ok(Some(status)), stderr, talked),
            Ok(Next::Quiet) => {}
            Err(error) => return (Err(error), stderr, talked),
        }
        talked = talked.or_else(|| result.try_recv().ok());
        if matches!(talked, Some(Err(_))) && killed.is_none() {
            killed = Some(Instant::now());
            if let Err(error) = running.kill() {
                return (Err(error), stderr, talked);
            }
        }
        if killed.is_some_and(|moment| moment.elapsed() > Duration::from_secs(30)) {
            return (Ok(None), stderr, talked);
        }
    }
}

/// The exits of each vCPU in the report that the VMM ends with; none if there is no report.
fn reported_exits(stderr: &str) -> Vec<u64> {
    let reports = stderr
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let counts = |report: serde_json::Value| {
        let vcpus = report.get("exits")?.as_array()?.clone();
        vcpus
            .iter()
            .map(|vcpu| vcpu.get("total")?.as_u64())
            .collect::<Option<Vec<_>>>()
    };
    reports.filter_map(counts).next_back().unwrap_or_default()
}

/// Asks the host whether a device is on its own driver again and, if it is a disk's controller, can be read.
pub(crate) fn check_returned(l1: &mut L1, device: &Lent) -> Result<(), DemoError> {
    let words = ["/bin/sh", "-c", RETURNED, "sh", device.address, device.driver];
    let outcome = l1.run(&Job::new(words).folder("/").guard(Duration::from_secs(60)))?;
    if outcome.status == 0 {
        return Ok(());
    }
    let found = [outcome.stdout, outcome.stderr].concat();
    let found = String::from_utf8_lossy(&found)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    Err(DemoError::NotReturned {
        address: device.address,
        found,
    })
}

/// Succeeds when the device `$1` is on the driver `$2` and, as an NVMe controller, its disk can be read.
const RETURNED: &str = r#"
device=/sys/bus/pci/devices/$1
for try in 1 2 3 4 5 6 7 8 9 10; do
    driver=$(basename "$(readlink "$device/driver")")
    [ "$driver" = "$2" ] && break
    sleep 1
done
[ "$driver" = "$2" ] || { echo "its driver is '$driver', not '$2'"; exit 1; }
[ "$driver" = nvme ] || exit 0
for try in 1 2 3 4 5 6 7 8 9 10; do
    controller=$(basename "$device"/nvme/nvme*)
    [ -b "/dev/${controller}n1" ] && break
    sleep 1
done
exec dd if="/dev/${controller}n1" of=/dev/null bs=1M count=16 status=none
"#;

/// A logical server that runs longer than this does not do what the demo asks of it.
const GUARD: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_read_from_the_last_report() {
        let stderr = "vmm: warning: {\n{\"end\":\"PoweredOff\",\"exits\":[{\"vcpu\":0,\"total\":7},{\"vcpu\":1,\"total\":5}]}\n";
        assert_eq!(reported_exits(stderr), [7, 5]);
        assert!(reported_exits("vmm: no report\n{}\n").is_empty());
    }

    #[test]
    fn the_script_is_valid_shell() {
        let status = std::process::Command::new("sh")
            .args(["-n", "-c", RETURNED])
            .status()
            .expect("sh");
        assert!(status.success());
    }
}
