//! Tests that run on this machine itself: tier 0 under Cargo, and tier 1 binaries.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::suite::build::{Binary, Built, SuiteError, cargo_program};
use crate::suite::libtest::Counter;
use crate::suite::table::Row;
use crate::suite::{Suite, Tally};

/// Runs `cargo test --workspace`, doctests included.
pub(crate) fn workspace(suite: &Suite) -> Result<Row, SuiteError> {
    let program = cargo_program();
    let mut command = Command::new(&program);
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(&suite.filter);
    let row = Row::new(0, "cargo test --workspace", "this machine");
    let ran = watched(command, WORKSPACE_LIMIT, &mut show);
    let (tally, note) = ran.map_err(|source| SuiteError::Start { program, source })?;
    Ok(row.finish(tally, note))
}

/// Runs a tier 1 binary on this machine's /dev/kvm.
pub(crate) fn binary(suite: &Suite, binary: &Binary, built: &Built) -> Row {
    let row = Row::new(binary.tier, &binary.name, "this machine");
    println!("\n== tier {}: {} on this machine", binary.tier, binary.name);
    let mut command = Command::new(&binary.path);
    command
        .args(suite.words())
        .current_dir(&binary.folder)
        .env("CARGO_MANIFEST_DIR", &binary.folder);
    if let Some(vmm) = &built.vmm {
        command.env("PELLUCID_VMM", vmm);
    }
    match watched(command, suite.guard, &mut show) {
        Ok((tally, note)) => row.finish(tally, note),
        Err(error) => row.finish(
            Tally {
                failed: 1,
                ..Tally::default()
            },
            Some(error.to_string()),
        ),
    }
}

fn show(bytes: &[u8]) {
    let mut stdout = std::io::stdout();
    let _reader_is_gone = stdout.write_all(bytes).and_then(|()| stdout.flush());
}

/// Runs `command`, hands on and counts what it writes, and ends it with all its children
/// when it takes longer than `limit`.
fn watched(
    mut command: Command,
    limit: Duration,
    sink: &mut dyn FnMut(&[u8]),
) -> std::io::Result<(Tally, Option<String>)> {
    let deadline = Instant::now() + limit;
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let (sender, chunks) = channel();
    if let Some(mut output) = child.stdout.take() {
        thread::spawn(move || {
            let mut chunk = vec![0_u8; 16 << 10];
            while let Ok(length @ 1..) = output.read(&mut chunk) {
                if sender.send(chunk[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
    }
    let mut counter = Counter::default();
    loop {
        match chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => {
                sink(&bytes);
                counter.take(&bytes);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                end_group(&child);
                child.wait()?;
                let note = format!("ended by the guard after {} s", limit.as_secs());
                return Ok((counter.finish(false), Some(note)));
            }
        }
    }
    let status = child.wait()?;
    Ok((
        counter.finish(status.success()),
        (!status.success()).then(|| status.to_string()),
    ))
}

fn end_group(child: &Child) {
    if let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
        let _gone_already = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

const WORKSPACE_LIMIT: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> (Tally, Option<String>) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        // Not shown: this very suite counts the results in what its tests write.
        watched(command, limit, &mut |_| {}).unwrap()
    }

    #[test]
    fn a_harness_is_counted_and_its_status_kept() {
        let script = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'";
        let minute = Duration::from_secs(60);
        assert_eq!(
            shell(script, minute),
            (
                Tally {
                    passed: 2,
                    failed: 0,
                    ignored: 0
                },
                None
            )
        );
        let (tally, note) = shell("exit 3", minute);
        assert_eq!(tally.failed, 1);
        assert!(note.unwrap().contains('3'));
    }

    #[test]
    fn a_harness_that_hangs_is_ended_with_its_children() {
        let began = Instant::now();
        let (tally, note) = shell("sleep 600 & sleep 600", Duration::from_millis(200));
        assert_eq!(tally.failed, 1);
        assert!(note.unwrap().contains("guard"));
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
