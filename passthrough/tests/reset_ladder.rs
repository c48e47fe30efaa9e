//! What a function may do wrong when it is taken back from a guest, one after the other: each is told, and none is given back sick.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod patient;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patient::{DEVICE, NEIGHBOUR, Patient, Sick, function, shared};
use pellucid_passthrough::{Check, IrqKind, ResetAct, ResetLadder, ResetOutcome, ResetReport};
use rustix::event::{EventfdFlags, eventfd};

fn climb(patient: Patient) -> (Arc<Patient>, ResetReport) {
    let (patient, transport) = shared(patient.used_by_a_guest());
    let report = ladder(&function()).climb(&transport);
    (patient, report)
}

fn ladder(function: &pellucid_passthrough::Function) -> ResetLadder<'_> {
    ResetLadder::of(function)
        .limited_to(Duration::from_millis(500))
        .answering_within(Duration::from_millis(200))
}

fn sick(sick: &[Sick]) -> ResetReport {
    climb(Patient::with(sick)).1
}

fn outcome(report: &ResetReport, act: ResetAct) -> &ResetOutcome {
    let step = report.steps.iter().rev().find(|step| step.act == act);
    &step.unwrap().outcome
}

#[track_caller]
fn assert_told(report: &ResetReport, words: &[&str]) {
    assert!(!report.is_well(), "{report}");
    let fault = report.fault().unwrap();
    for word in words {
        assert!(fault.contains(word), "{word}: {fault}");
    }
}

#[test]
fn a_healthy_function_is_stopped_reset_once_and_proved_in_every_point() {
    let (patient, report) = climb(Patient::with(&[]));
    assert!(report.is_well(), "{report}");
    assert_eq!(patient.asked(), ["unwire", "reset", "unwire"]);
    assert_eq!(report.reset_by().unwrap().act, ResetAct::Function);
    let checks: Vec<Check> = report.proof.iter().map(|finding| finding.check).collect();
    assert_eq!(
        checks,
        [
            Check::Answers,
            Check::Identity,
            Check::Bars,
            Check::Messages,
            Check::Line,
            Check::Stops
        ]
    );
    assert_eq!(patient.command() & 7, 0);
    let text = report.to_string();
    assert!(text.contains(DEVICE) && text.contains("bus master off"), "{text}");
}

#[test]
fn a_report_is_read_back_as_it_was_written() {
    let report = sick(&[Sick::ResetRefused, Sick::NoSoftReset]);
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<ResetReport>(&text).unwrap(), report);
}

#[test]
fn a_reset_that_is_refused_is_followed_by_the_next_method() {
    let (patient, report) = climb(Patient::with(&[Sick::ResetRefused]));
    assert!(report.is_well(), "{report}");
    assert!(
        matches!(outcome(&report, ResetAct::Function), ResetOutcome::Failed { why } if why.contains("timed out"))
    );
    assert_eq!(report.reset_by().unwrap().act, ResetAct::Power);
    assert!(patient.asked().contains(&"D3hot"));
}

#[test]
fn a_reset_refused_because_the_host_takes_the_driver_is_told_from_one_that_failed() {
    let busy = sick(&[Sick::Busy, Sick::NoSoftReset]);
    assert!(busy.is_busy(), "{busy}");
    assert_eq!(*outcome(&busy, ResetAct::Function), ResetOutcome::Busy);
    assert_told(&busy, &["the host is taking its driver"]);
    let refused = sick(&[Sick::ResetRefused, Sick::NoSoftReset]);
    assert!(!refused.is_busy() && !refused.is_well(), "{refused}");
    // Another rung that is proved is enough.
    let cured = sick(&[Sick::Busy]);
    assert!(cured.is_well() && !cured.is_busy(), "{cured}");
}

#[test]
fn a_reset_that_does_not_come_back_ends_the_climb_in_time() {
    let begun = Instant::now();
    let (patient, report) = climb(Patient::with(&[Sick::ResetHangs]));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(report.is_stuck());
    assert_told(&report, &["no end after"]);
    assert!(
        report.proof.is_empty(),
        "nothing is proved on a device that hangs"
    );
    assert!(!patient.asked().contains(&"D3hot"), "nor is anything else tried");
}

#[test]
fn a_function_that_is_all_ones_after_its_reset_is_not_well() {
    assert_told(&sick(&[Sick::GoneAfterReset]), &["all ones"]);
}

#[test]
fn a_function_that_answers_late_is_waited_for_and_one_that_is_too_late_is_not_well() {
    let report = sick(&[Sick::LateAfterReset(100)]);
    assert!(report.is_well(), "{report}");
    assert!(
        report.proof_us >= 50_000,
        "the wait is on record: {} us",
        report.proof_us
    );
    assert_told(&sick(&[Sick::LateAfterReset(60_000)]), &["all ones"]);
}

#[test]
fn a_function_that_answers_as_another_is_not_well() {
    assert_told(
        &sick(&[Sick::OtherAfterReset, Sick::NoSoftReset]),
        &["00111b36 instead of 00101b36"],
    );
}

#[test]
fn a_function_whose_class_is_another_after_its_reset_is_not_well() {
    assert_told(
        &sick(&[Sick::ClassAfterReset, Sick::NoSoftReset]),
        &["class 010002 instead of 010802"],
    );
}

#[test]
fn a_lost_bar_is_named_with_both_addresses() {
    assert_told(
        &sick(&[Sick::BarLost, Sick::NoSoftReset]),
        &["BAR 0 is at 0x0 instead of 0x2fe600000"],
    );
}

#[test]
fn a_bus_master_that_stays_on_is_not_well_whatever_is_tried() {
    let report = sick(&[Sick::MasterSticks]);
    assert_told(&report, &["bus master"]);
    for act in [ResetAct::Function, ResetAct::Power] {
        assert!(
            matches!(outcome(&report, act), ResetOutcome::Unproved { .. }),
            "{report:?}"
        );
    }
}

#[test]
fn decoding_that_stays_on_is_not_well() {
    assert_told(&sick(&[Sick::DecodingSticks]), &["decoding"]);
}

#[test]
fn messages_that_stay_enabled_are_not_well() {
    assert_told(&sick(&[Sick::MessagesStick]), &["MSI-X is still enabled"]);
}

#[test]
fn a_line_that_stays_asserted_is_not_well() {
    assert_told(&sick(&[Sick::LineSticks]), &["interrupt line"]);
}

#[test]
fn interrupts_that_go_on_after_they_were_disconnected_need_a_reset() {
    let storm = |sick: &[Sick]| {
        let (patient, transport) = shared(Patient::with(sick).used_by_a_guest());
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        transport.wire(IrqKind::Msix, 0, &[Some(event.as_fd())]).unwrap();
        let report = ladder(&function()).climb(&transport);
        assert!(
            rustix::io::read(&event, &mut [0_u8; 8]).is_ok(),
            "it did signal after it was told to stop"
        );
        assert!(patient.asked().contains(&"unwire"));
        report
    };
    assert!(storm(&[Sick::Storms]).is_well());
    assert_told(
        &storm(&[Sick::Storms, Sick::NoReset, Sick::NoSoftReset]),
        &["MSI-X is still enabled"],
    );
}

#[test]
fn a_function_that_does_not_leave_d3hot_is_not_well() {
    let report = sick(&[Sick::ResetRefused, Sick::StaysAsleep]);
    assert_told(&report, &["does not enter D0", "timed out"]);
}

#[test]
fn a_function_that_does_not_enter_d3hot_was_not_reset_by_it() {
    assert_told(
        &sick(&[Sick::ResetRefused, Sick::StaysAwake]),
        &["does not enter D3hot"],
    );
}

#[test]
fn a_function_that_keeps_its_state_over_d3hot_is_not_said_to_be_reset_by_it() {
    let report = sick(&[Sick::ResetRefused, Sick::NoSoftReset]);
    assert!(
        matches!(outcome(&report, ResetAct::Power), ResetOutcome::Absent { why } if why.contains("keeps its state"))
    );
    assert_told(&report, &["timed out"]);
}

#[test]
fn a_function_without_any_reset_is_proved_as_it_stands_and_that_is_said() {
    let report = sick(&[Sick::NoReset, Sick::NoSoftReset]);
    assert!(report.is_well() && report.reset_by().is_none(), "{report}");
    assert!(report.to_string().contains("not reset"), "{report}");
    let report = sick(&[Sick::NoReset, Sick::NoSoftReset, Sick::MessagesStick]);
    assert_eq!(
        report.fault().as_deref(),
        Some("MSI-X is still enabled"),
        "no reset is blamed that was not tried"
    );
}

#[test]
fn registers_that_cannot_be_read_are_told_with_the_errno() {
    assert_told(&sick(&[Sick::Unreadable]), &["Input/output error"]);
}

#[test]
fn a_function_that_disappears_between_two_steps_is_told_and_nothing_panics() {
    let (patient, report) = climb(Patient::with(&[Sick::Unplugged]));
    assert_told(&report, &["No such device"]);
    assert_eq!(
        patient.asked().iter().filter(|asked| **asked == "reset").count(),
        1
    );
}

#[test]
fn what_its_own_reset_does_not_cure_a_power_cycle_may() {
    let report = sick(&[Sick::NeedsPower]);
    assert!(report.is_well(), "{report}");
    assert!(
        matches!(outcome(&report, ResetAct::Function), ResetOutcome::Unproved { why } if why.contains("bus master"))
    );
    assert_eq!(report.reset_by().unwrap().act, ResetAct::Power);
}

#[test]
fn a_hot_reset_is_the_last_resort_when_all_that_it_reaches_is_ours() {
    let patient = || Patient::with(&[Sick::NeedsHot]).behind_a_bridge_with(&[DEVICE, NEIGHBOUR]);
    let (patient, transport) = shared(patient());
    let function = function();
    let report = ladder(&function)
        .together_with([NEIGHBOUR.parse().unwrap()])
        .climb(&transport);
    assert!(report.is_well(), "{report}");
    assert_eq!(report.reset_by().unwrap().act, ResetAct::Hot);
    assert!(patient.asked().contains(&"hot reset"));
}

#[test]
fn a_hot_reset_that_would_reach_a_stranger_is_not_done_and_the_stranger_is_named() {
    let (patient, report) =
        climb(Patient::with(&[Sick::NeedsHot]).behind_a_bridge_with(&[DEVICE, NEIGHBOUR]));
    assert!(!report.is_well());
    assert!(
        matches!(outcome(&report, ResetAct::Hot), ResetOutcome::Absent { why } if why.contains(NEIGHBOUR))
    );
    assert!(!patient.asked().contains(&"hot reset"));
}

#[test]
fn the_kernels_order_of_methods_names_the_steps_and_leaves_out_what_it_does_not_trust() {
    let mut function = function();
    function.reset_methods = vec!["flr".to_owned(), "bus".to_owned()];
    let (patient, transport) = shared(Patient::with(&[Sick::ResetRefused]));
    let report = ladder(&function).climb(&transport);
    assert_told(&report, &["reset by flr"]);
    assert!(
        !patient.asked().contains(&"D3hot"),
        "the kernel has no `pm` for it"
    );
}

#[test]
fn looking_alone_resets_nothing() {
    let (patient, transport) = shared(Patient::with(&[Sick::Storms, Sick::NoSoftReset]).used_by_a_guest());
    assert!(transport.resettable());
    let report = ladder(&function()).inspect(&transport);
    assert_told(&report, &["MSI-X is still enabled"]);
    assert!(!patient.asked().contains(&"reset"));
}
