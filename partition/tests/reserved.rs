//! Reserving a plan: all of its claims or none, and given back in the opposite order.
#![allow(clippy::unwrap_used, reason = "a test")]

mod fixture;

use fixture::{Host, MIB};
use pellucid_partition::{CpuMode, CpuRequest, PartitionSpec, Plan, Siblings, StateDir};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tempfile::TempDir;

fn state() -> (TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    (directory, state)
}

fn spec(name: &str, cpus: &[usize]) -> PartitionSpec {
    let cpus = CpuRequest::list(cpus.iter().copied()).unwrap();
    PartitionSpec::on(name, cpus, 64 * MIB).unwrap()
}

fn plan(name: &str, mode: CpuMode, cpus: &[usize]) -> Plan {
    let spec = spec(name, cpus).with_mode(mode).with_siblings(Siblings::Shared);
    Plan::fit(&Host::one_socket().survey(), &spec).unwrap()
}

fn held(state: &StateDir) -> Vec<String> {
    let records = state.records().unwrap();
    records
        .iter()
        .map(|(record, held)| format!("{} {held} {}", record.resource, record.partition))
        .collect()
}

/// The records removed from the state directory while `act` runs, in order.
fn removed(state: &StateDir, act: impl FnOnce()) -> Vec<String> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, state.path(), WatchFlags::DELETE).unwrap();
    act();
    let mut space = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&watch, &mut space);
    let mut names = Vec::new();
    while let Ok(event) = reader.next() {
        names.extend(event.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    names.retain(|name| name.ends_with(".json"));
    names
}

#[test]
fn a_dedicated_partition_also_holds_the_siblings_that_it_withholds() {
    let (_directory, state) = state();
    let spec = spec("db1", &[3]).dedicated();
    let plan = Plan::fit(&Host::one_socket().survey(), &spec).unwrap();
    let _reserved = plan.reserve(&state).unwrap();
    assert_eq!(
        held(&state),
        ["cpu 1 true db1", "cpu 3 true db1", "partition db1 true db1"]
    );
}

#[test]
fn a_plan_goes_around_what_the_records_say_is_held() {
    let (_directory, state) = state();
    let _reserved = plan("db1", CpuMode::Dedicated, &[1]).reserve(&state).unwrap();
    let host = Host::two_nodes().survey().with_claims(&state.records().unwrap());
    assert_eq!(host.cpu_holder(1).unwrap().partition, "db1");
    let one = PartitionSpec::new("db2", 1, 64 * MIB).unwrap().dedicated();
    let pinned = Plan::fit(&host, &one).unwrap().pinned().to_vec();
    assert_ne!(pinned, [1]);
    let pid = std::process::id();
    let refusal = Plan::fit(&host, &spec("db2", &[1])).unwrap_err().to_string();
    assert_eq!(
        refusal,
        format!("CPU 1 is held by logical server \"db1\" (pid {pid}); free: 0,2-3")
    );
    let refusal = Plan::fit(&host, &spec("db1", &[2])).unwrap_err().to_string();
    assert!(
        refusal.starts_with("partition db1 is held by logical server \"db1\""),
        "{refusal}"
    );
}

#[test]
fn a_dedicated_partition_holds_its_name_and_its_cpus() {
    let (_directory, state) = state();
    let reserved = plan("db1", CpuMode::Dedicated, &[2, 3]).reserve(&state).unwrap();
    assert_eq!(
        held(&state),
        ["cpu 2 true db1", "cpu 3 true db1", "partition db1 true db1"]
    );
    assert_eq!(reserved.plan().pinned(), [2, 3]);
    assert_eq!(reserved.state().path(), state.path());
    reserved.release().unwrap();
    assert!(held(&state).is_empty());
}

#[test]
fn shared_partitions_hold_their_names_only_and_may_share_cpus() {
    let (_directory, state) = state();
    let _one = plan("db1", CpuMode::Shared, &[2, 3]).reserve(&state).unwrap();
    let _two = plan("db2", CpuMode::Shared, &[3]).reserve(&state).unwrap();
    assert_eq!(held(&state), ["partition db1 true db1", "partition db2 true db2"]);
}

#[test]
fn reserving_a_claimed_cpu_names_its_holder_and_keeps_nothing() {
    let (_directory, state) = state();
    let _one = plan("db1", CpuMode::Dedicated, &[3]).reserve(&state).unwrap();
    let refusal = plan("db2", CpuMode::Dedicated, &[1, 2, 3])
        .reserve(&state)
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("cpu 3 is in use by logical server \"db1\""),
        "{refusal}"
    );
    assert_eq!(held(&state), ["cpu 3 true db1", "partition db1 true db1"]);
}

#[test]
fn a_name_is_one_partitions_at_a_time() {
    let (_directory, state) = state();
    let _one = plan("db1", CpuMode::Shared, &[1]).reserve(&state).unwrap();
    let refusal = plan("db1", CpuMode::Shared, &[2])
        .reserve(&state)
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("partition db1 is in use by logical server \"db1\""),
        "{refusal}"
    );
}

#[test]
fn the_name_goes_last_whether_released_or_dropped() {
    let (_directory, state) = state();
    let expected = ["cpu-1.json", "cpu-3.json", "partition-db1.json"];
    let reserved = plan("db1", CpuMode::Dedicated, &[3, 1]).reserve(&state).unwrap();
    assert_eq!(removed(&state, || reserved.release().unwrap()), expected);
    let reserved = plan("db1", CpuMode::Dedicated, &[3, 1]).reserve(&state).unwrap();
    assert_eq!(removed(&state, || drop(reserved)), expected);
}

#[test]
fn one_claim_that_cannot_be_given_back_keeps_no_other() {
    let (_directory, state) = state();
    let reserved = plan("db1", CpuMode::Dedicated, &[1, 2]).reserve(&state).unwrap();
    let stuck = state.path().join("cpu-2.json");
    std::fs::remove_file(&stuck).unwrap();
    std::fs::create_dir(&stuck).unwrap();
    let refusal = reserved.release().unwrap_err().to_string();
    assert!(
        refusal.contains("cpu-2.json") && refusal.contains("cannot be removed"),
        "{refusal}"
    );
    std::fs::remove_dir(&stuck).unwrap();
    assert!(held(&state).is_empty());
}
