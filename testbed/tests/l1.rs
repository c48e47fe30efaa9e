//! L1 and its jobs over the real channels, with a scripted machine at the other end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

#[path = "support/emulator.rs"]
mod emulator;
#[path = "support/program.rs"]
mod program;
#[path = "../src/script.rs"]
#[allow(dead_code, reason = "the library's own tests use the rest")]
mod script;
#[path = "l1/scripted.rs"]
mod scripted;

use std::io::Write;
use std::time::{Duration, Instant};

use pellucid_testbed::Progress;
use pellucid_testbed::l1::{Next, Running, Stream};
use pellucid_testbed::suite::{Binary, Row, Session, Suite, Tally};
use pellucid_testbed::{Fault, Job, L1Error};
use scripted::{Manner, boot};

fn shell(script: &str) -> Job {
    Job::new(["sh", "-c", script])
        .folder("/")
        .guard(Duration::from_secs(60))
}

fn all_output(running: &mut Running<'_>) -> (Vec<u8>, i32) {
    let mut output = Vec::new();
    loop {
        match running.next(Duration::from_secs(10)).unwrap() {
            Next::Output(_, bytes) => output.extend(bytes),
            Next::Ended(status) => return (output, status),
            Next::Quiet => panic!("nothing for ten seconds after {output:?}"),
        }
    }
}

#[test]
fn output_error_and_status_come_back_apart_and_jobs_share_a_boot() {
    let (_folder, mut l1) = boot(Manner::Good);
    let outcome = l1.run(&shell("echo out; echo err >&2; exit 7")).unwrap();
    assert_eq!(outcome.status, 7);
    assert_eq!(
        (outcome.stdout.as_slice(), outcome.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    for round in 0..20 {
        let outcome = l1.run(&shell(&format!("echo {round}"))).unwrap();
        assert_eq!(outcome.stdout, format!("{round}\n").into_bytes());
    }
    assert!(l1.answers(Duration::from_secs(5)));
}

#[test]
fn much_binary_output_arrives_whole_before_the_status() {
    let (_folder, mut l1) = boot(Manner::Good);
    let outcome = l1
        .run(&shell(
            "head -c 8000000 /dev/zero; printf '\\036end of job 1-x\\036'",
        ))
        .unwrap();
    assert_eq!(outcome.stdout.len(), 8_000_016);
    assert!(
        outcome.stdout.ends_with(b"\x1eend of job 1-x\x1e"),
        "another job's mark is output"
    );
}

#[test]
fn input_flows_while_the_job_runs_and_its_end_is_seen() {
    let (_folder, mut l1) = boot(Manner::Good);
    let mut running = l1
        .start(&shell("read word; echo got $word; cat").with_input())
        .unwrap();
    running.input().unwrap().write_all(b"one\n").unwrap();
    assert_eq!(
        running.next(Duration::from_secs(10)).unwrap(),
        Next::Output(Stream::Stdout, b"got one\n".to_vec())
    );
    assert_eq!(running.next(Duration::from_millis(50)).unwrap(), Next::Quiet);
    running.input().unwrap().write_all(b"the rest").unwrap();
    running.close_input();
    assert_eq!(all_output(&mut running), (b"the rest".to_vec(), 0));
}

#[test]
fn a_job_that_is_killed_ends_and_the_machine_goes_on() {
    let (_folder, mut l1) = boot(Manner::Good);
    let mut running = l1.start(&shell("echo up; sleep 600")).unwrap();
    assert!(matches!(
        running.next(Duration::from_secs(10)).unwrap(),
        Next::Output(..)
    ));
    running.kill().unwrap();
    assert_eq!(all_output(&mut running).1, 137);
    drop(running);
    assert_eq!(l1.run(&shell("true")).unwrap().status, 0);
}

#[test]
fn a_job_left_alone_is_ended_before_the_next_one() {
    let (_folder, mut l1) = boot(Manner::Good);
    let mut running = l1.start(&shell("echo up; sleep 600")).unwrap();
    assert!(matches!(
        running.next(Duration::from_secs(10)).unwrap(),
        Next::Output(..)
    ));
    drop(running);
    let outcome = l1.run(&shell("echo next")).unwrap();
    assert_eq!(outcome.stdout, b"next\n");
}

#[test]
fn a_job_that_hangs_is_ended_by_its_guard_which_says_where_it_stood() {
    let (_folder, mut l1) = boot(Manner::Good);
    let began = Instant::now();
    let error = l1
        .run(&shell("sleep 600").guard(Duration::from_millis(300)))
        .unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(
        error.fault(),
        None,
        "a product that hangs is no fault of the emulator"
    );
    let text = error.to_string();
    assert!(
        text.contains("stands at the crossing") && text.contains("sleep 600"),
        "{text}"
    );
    assert_eq!(
        l1.run(&shell("true")).unwrap().status,
        0,
        "the machine itself is well"
    );
    std::fs::remove_dir_all(l1.folder()).unwrap();
}

#[test]
fn a_job_that_says_something_now_and_then_is_slow_and_no_hang() {
    let (_folder, mut l1) = boot(Manner::Good);
    let slow = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.4; echo $i; done";
    let outcome = l1.run(&shell(slow).silence(Duration::from_secs(4))).unwrap();
    assert!(outcome.status == 0 && outcome.stdout.ends_with(b"11\n12\n"));
    let mute = shell("echo begun; sleep 600").silence(Duration::from_millis(500));
    assert!(
        l1.run(&mute)
            .unwrap_err()
            .to_string()
            .contains("stands at the crossing")
    );
    let forever = shell("while sleep 0.1; do echo; done");
    let forever = forever
        .silence(Duration::from_secs(30))
        .guard(Duration::from_millis(500));
    assert!(l1.run(&forever).is_err(), "who babbles for ever is ended too");
    std::fs::remove_dir_all(l1.folder()).unwrap();
}

#[test]
fn a_machine_that_aborts_under_a_job_is_a_fault_of_the_emulator() {
    let (_folder, mut l1) = boot(Manner::Aborts);
    let error = l1.run(&shell("true")).unwrap_err();
    assert_eq!(error.fault(), Some(Fault::LockAssertion), "{error}");
    assert!(matches!(error, L1Error::Ended { .. }));
    assert!(l1.folder().exists(), "the logs of a failed run are kept");
    std::fs::remove_dir_all(l1.folder()).unwrap();
}

#[test]
fn a_machine_whose_kernel_waits_for_its_own_processors_is_a_fault_of_the_emulator() {
    let (_folder, mut l1) = boot(Manner::Stalls);
    let error = l1
        .run(&shell("sleep 600").guard(Duration::from_millis(300)))
        .unwrap_err();
    assert_eq!(error.fault(), Some(Fault::Stall), "{error}");
    std::fs::remove_dir_all(l1.folder()).unwrap();
}

#[test]
fn a_machine_that_stops_answering_is_a_fault_of_the_emulator() {
    let (_folder, mut l1) = boot(Manner::Deaf);
    let error = l1
        .run(&shell("sleep 600").guard(Duration::from_millis(300)))
        .unwrap_err();
    assert_eq!(error.fault(), Some(Fault::Hang { spinning: false }), "{error}");
    std::fs::remove_dir_all(l1.folder()).unwrap();
}

#[test]
fn a_machine_that_is_switched_off_leaves_no_folder() {
    if scripted::is_asked_for() {
        return scripted::play();
    }
    let (_folder, l1) = boot(Manner::Good);
    let folder = l1.folder().to_owned();
    assert!(folder.join("share").is_dir());
    l1.power_off().unwrap();
    assert!(!folder.exists());
    let (_folder, l1) = boot(Manner::Good);
    let folder = l1.folder().to_owned();
    drop(l1);
    assert!(!folder.exists());
}

/// Runs scripts as test binaries in scripted machines; returns the rows and the boots.
fn session(manner: Manner, scripts: &[&str]) -> (Vec<Row>, usize) {
    session_for(manner, Duration::from_secs(2), scripts)
}

/// The same, where a binary may say nothing for `guard`.
fn session_for(manner: Manner, guard: Duration, scripts: &[&str]) -> (Vec<Row>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let testbed = scripted::testbed(folder.path(), manner);
    let suite = Suite {
        filter: None,
        tiers: Vec::new(),
        target: None,
        emulated: true,
        guard,
        strict: true,
    };
    let mut session = Session::new(&suite, &testbed, Progress::Quiet);
    let mut rows = Vec::new();
    for (index, script) in scripts.iter().enumerate() {
        let path = folder.path().join(format!("binary{index}"));
        program::write(&path, &format!("#!/bin/sh\n{script}\n"));
        let name = format!("tier2_{index}");
        rows.push(session.run(&Binary {
            tier: 2,
            name,
            path,
            folder: "/".into(),
        }));
    }
    let boots = scripted::lives(folder.path());
    (rows, boots)
}

const PASSES: &str = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'";

#[test]
fn binaries_that_pass_share_one_boot() {
    let (rows, boots) = session(Manner::Good, &[PASSES, PASSES, PASSES]);
    assert!(rows.iter().all(|row| row.tally
        == Tally {
            passed: 3,
            failed: 0,
            ignored: 0
        }));
    assert_eq!(boots, 1);
}

#[test]
fn a_binary_that_fails_is_not_run_again_and_the_next_one_gets_a_fresh_server() {
    let (rows, boots) = session(Manner::Good, &["exit 101", PASSES]);
    assert_eq!((rows[0].tally.failed, rows[0].reruns.len()), (1, 0));
    assert_eq!(rows[1].tally.passed, 3);
    assert_eq!(boots, 2);
}

#[test]
fn a_binary_that_hangs_is_a_failure_and_not_run_again() {
    let (rows, boots) = session(Manner::Good, &["sleep 600"]);
    assert_eq!((rows[0].tally.failed, rows[0].reruns.len(), boots), (1, 0, 1));
}

#[test]
fn the_death_of_a_guest_is_run_again_in_a_fresh_server_and_a_failure_beside_it_is_not() {
    let death = "echo '---- a stdout ----'; echo 'vmm: the guest crashed: vCPU 0 at 0xfff0: triple fault'";
    let end =
        "echo 'test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out'; exit 101";
    let (rows, boots) = session(Manner::Good, &[&format!("{death}; {end}")]);
    assert_eq!((rows[0].tally.failed, boots), (1, 3), "the third time counts");
    assert_eq!(rows[0].reruns, [Fault::GuestDeath; 2]);
    let (rows, boots) = session(Manner::Good, &[&format!("echo '---- a stdout ----'; {end}")]);
    assert_eq!((rows[0].tally.failed, rows[0].reruns.len(), boots), (1, 0, 1));
}

#[test]
fn a_fault_of_the_emulator_is_rerun_and_counted() {
    let (rows, boots) = session(Manner::AbortsTwice, &[PASSES]);
    assert_eq!(
        rows[0].tally,
        Tally {
            passed: 3,
            failed: 0,
            ignored: 0
        }
    );
    assert_eq!(rows[0].reruns, [Fault::LockAssertion; 2]);
    assert_eq!(boots, 3);
}

#[test]
fn a_crash_of_the_emulator_is_rerun_and_counted() {
    let (rows, boots) = session(Manner::CrashesTwice, &[PASSES]);
    assert_eq!((rows[0].tally.passed, rows[0].tally.failed, boots), (3, 0, 3));
    assert_eq!(rows[0].reruns, [Fault::Crash; 2]);
}

/// Takes the 31 seconds in which a silent machine is looked at a second time.
#[test]
fn what_waits_beside_a_processor_that_sleeps_with_an_interrupt_in_service_is_ended_and_rerun() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("waited");
    let mark = mark.display();
    let once = format!("if test -e {mark}; then {PASSES}; else touch {mark}; sleep 600; fi");
    let guard = Duration::from_secs(300);
    let (rows, boots) = session_for(Manner::StuckOnce, guard, &[&once]);
    assert_eq!((rows[0].tally.passed, rows[0].tally.failed, boots), (3, 0, 2));
    assert_eq!(rows[0].reruns, [Fault::LostInterrupt]);
    assert!(rows[0].took < guard, "it was waited for to its guard");
}

#[test]
fn the_third_fault_in_a_row_is_a_failure() {
    let (rows, boots) = session(Manner::Aborts, &[PASSES]);
    assert_eq!((rows[0].tally.failed, rows[0].reruns.len(), boots), (1, 2, 3));
}
