//! How the end of an emulator is told: scripts that stand in for one end as it does.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/emulator.rs"]
mod emulator;
#[path = "support/program.rs"]
mod program;

use emulator::testbed_playing;
use pellucid_testbed::{Fault, L1, L1Error, Machine};

fn end_of(ending: &str) -> L1Error {
    let folder = tempfile::tempdir().unwrap();
    let error = L1::boot(&testbed_playing(folder.path(), ending), &Machine::bare()).unwrap_err();
    if let L1Error::Ended { log, .. } = &error {
        std::fs::remove_dir_all(log.parent().unwrap()).unwrap();
    }
    error
}

#[test]
fn the_emulators_abort_is_its_own_fault() {
    let error = end_of("echo 'tcg_handle_interrupt: assertion failed: (bql_locked())' >&2; kill -ABRT $$");
    assert_eq!(error.fault(), Some(Fault::LockAssertion));
    assert!(error.to_string().contains("SIGABRT"), "{error}");
}

#[test]
fn an_option_the_emulator_refuses_is_quoted_and_no_fault() {
    let error = end_of("echo \"qemu: -device nvme: drive property not set\" >&2; exit 1");
    assert_eq!(error.fault(), None);
    let text = error.to_string();
    assert!(
        text.contains("drive property not set") && text.contains("starting"),
        "{text}"
    );
}

#[test]
fn a_dead_kernel_is_read_from_the_console_that_the_machine_was_given() {
    let script = "for word; do case $word in file,id=serial,path=*) log=${word#file,id=serial,path=} ;; esac; done\n\
                  echo '[ 9.1] Kernel panic - not syncing: Fatal exception in interrupt' >\"$log\"";
    assert_eq!(end_of(script).fault(), Some(Fault::KernelPanic));
}

#[test]
fn an_emulator_that_cannot_be_started_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut testbed = testbed_playing(folder.path(), "");
    testbed.emulator.program = "/no/such/qemu".into();
    let error = L1::boot(&testbed, &Machine::bare()).unwrap_err();
    assert!(error.to_string().contains("/no/such/qemu"), "{error}");
}
