//! Isolation on a real kernel: what a plan says is what is done, what others had stays theirs, and a delegated unit gets what it can.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod sleeper;
mod spinner;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pellucid_partition::{
    CgroupTree, CpuHold, CpuIsolation, CpuRequest, CpuTerms, Inventory, Isolation, PartitionSpec, Plan,
    StateDir,
};
use sleeper::Sleeper;
use spinner::{CPU, Spinner, alone, measure, own_group, share, state, tree};

const ROOT: &str = "/sys/fs/cgroup";

fn planned(cpus: &[usize]) -> Plan {
    let cpus = CpuRequest::list(cpus.iter().copied()).unwrap();
    let spec = PartitionSpec::on("db1", cpus, 64 << 20).unwrap().dedicated();
    Plan::fit(&Inventory::survey().unwrap(), &spec).unwrap()
}

/// What the plan says, after carrying it out has come to the same and all has come back.
#[track_caller]
fn done_as_planned(state: &StateDir, cpus: &[usize]) -> Isolation {
    let before = (tree(), own_group());
    let plan = planned(cpus);
    let said = plan.isolation().unwrap().clone();
    assert_eq!(
        CgroupTree::of_host().isolation(&plan.held_cpus()),
        said,
        "asked without a plan"
    );
    assert_eq!((tree(), own_group()), before, "nothing was touched");
    let reserved = plan.reserve(state).unwrap();
    let CpuTerms::Dedicated { isolation, .. } = reserved.cpus().terms() else {
        panic!("they are dedicated")
    };
    assert_eq!(isolation, said, "done");
    reserved.release().unwrap();
    assert_eq!((tree(), own_group()), before);
    said
}

/// A group of this test's, gone with it.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let path = Path::new(ROOT).join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.join(file), text).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} is still in use", self.0.display());
    }
}

/// Controllers are on for the root's children while a test that makes groups by hand runs.
struct Enabled;

impl Enabled {
    fn new() -> Self {
        std::fs::write(format!("{ROOT}/cgroup.subtree_control"), "+cpuset +cpu").unwrap();
        Self
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        let _ = std::fs::write(format!("{ROOT}/cgroup.subtree_control"), "-cpuset -cpu");
    }
}

#[test]
fn what_a_plan_says_of_isolation_is_what_reserve_does() {
    let (_alone, (_directory, state)) = (alone(), state());
    let said = done_as_planned(&state, &[CPU]);
    println!("planned and done: {said}");
    assert_eq!((said.level, said.reason.as_str()), (CpuIsolation::Isolated, ""));
    let said = done_as_planned(&state, &[0, 1, CPU]);
    println!("planned and done: {said}");
    assert_eq!(said.level, CpuIsolation::Affinity);
    assert!(said.reason.contains("one must stay with the host"), "{said}");
    // Whoever names CPUs beside a partition keeps the kernel from making it.
    let _enabled = Enabled::new();
    let slice = Group::new("machine.slice");
    slice.write("cpuset.cpus", "2");
    let said = done_as_planned(&state, &[CPU]);
    println!("planned and done: {said}");
    assert_eq!(said.level, CpuIsolation::Affinity);
    assert!(
        said.reason
            .contains("CPU 2 is in cpuset.cpus of /sys/fs/cgroup/machine.slice"),
        "{said}"
    );
    // And it is the kernel that forbids it, not only the judgement.
    let by_hand = Group::new("by-hand");
    by_hand.write("cpuset.cpus", "2");
    let partition = by_hand.0.join("cpuset.cpus.partition");
    let written = std::fs::write(&partition, "isolated");
    let state = std::fs::read_to_string(&partition).unwrap();
    assert!(written.is_err() || state.contains("invalid"), "{state}");
}

#[test]
fn tasks_of_the_host_keep_the_affinity_that_they_had() {
    let (_alone, (_directory, state)) = (alone(), state());
    let unit = Group::new("unit");
    let sleepers = [
        Sleeper::on(&[0]),
        Sleeper::on(&[CPU]),
        Sleeper::within(&unit.0, &[0]),
        Sleeper::within(&unit.0, &[CPU]),
        Sleeper::on(&[0, CPU]),
    ];
    let allowed = || sleepers.iter().map(Sleeper::allowed).collect::<Vec<_>>();
    let before = ["0", "2", "0", "2", "0,2"];
    assert_eq!(allowed(), before);
    let reserved = planned(&[CPU]).reserve(&state).unwrap();
    let off_it = ["0", "0-1", "0", "0-1", "0"];
    assert_eq!(allowed(), off_it, "the dedicated CPU is nobody else's");
    reserved.release().unwrap();
    assert_eq!(allowed(), before);
    // A second partition that goes first, and somebody who was told another place meanwhile.
    let hold = CpuHold::new(&CgroupTree::of_host(), &state, "one", 1, &[]);
    hold.dedicate(&[CPU]).unwrap();
    hold.share(share(300, None), None).unwrap();
    assert_eq!(allowed(), before, "the terms changed");
    hold.dedicate(&[CPU]).unwrap();
    hold.release().unwrap();
    assert_eq!(allowed(), before);
    drop(sleepers);
}

const DIRECTORY: &str = "PELLUCID_TEST_STATE_OF_CHILD";
/// Nobody in particular.
const USER: u32 = 65_534;

/// What a process finds in the unit that it was started in; each line is an answer to the tests below.
#[test]
#[ignore = "not a test: the process in a unit that the others start"]
fn unit_process() {
    let mut go = String::new();
    std::io::stdin().read_line(&mut go).unwrap();
    let state = StateDir::at(Path::new(&std::env::var_os(DIRECTORY).unwrap())).unwrap();
    let said = CgroupTree::of_host().isolation(&[CPU]);
    println!("isolation: {said}");
    let before = own_group();
    let one = Spinner::start(&state, "one");
    println!(
        "shared: {:?}",
        one.hold.share(share(300, Some("40")), Some("batch"))
    );
    let got = measure(&[&one], Duration::from_secs(4))[0];
    println!("got: {:.1}", got.got_percent());
    let done = one.hold.dedicate(&[CPU]).unwrap();
    println!("as said: {}", done == said);
    println!("left its unit: {}", own_group() != before);
    let hold = std::sync::Arc::clone(&one.hold);
    drop(one);
    hold.release().unwrap();
    println!("back in it: {}", own_group() == before);
    println!("records: {}", state.records().unwrap().len());
}

/// Runs the process in `group` as that user, and returns what it said.
fn said_in(group: &Group, user: u32) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    chown(directory.path(), Some(user), Some(user)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", "unit_process"])
        .env(DIRECTORY, directory.path().join("state"))
        .uid(user)
        .gid(user)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    group.write("cgroup.procs", &child.id().to_string());
    drop(child.stdin.take());
    let said = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .collect();
    child.wait().unwrap();
    said
}

#[track_caller]
fn answer<'s>(said: &'s [String], to: &str) -> &'s str {
    let found = said.iter().find_map(|line| line.strip_prefix(to));
    found.unwrap_or_else(|| panic!("no {to:?} in {said:#?}"))
}

#[test]
fn in_a_delegated_unit_an_ordinary_user_has_weights_and_caps_and_no_partition() {
    let _alone = alone();
    let _enabled = Enabled::new();
    let unit = Group::new("vmm.service");
    for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        chown(unit.0.join(file), Some(USER), Some(USER)).unwrap();
    }
    let before = tree();
    let said = said_in(&unit, USER);
    println!("{said:#?}");
    let isolation = answer(&said, "isolation: ");
    assert!(
        isolation.starts_with("affinity (/sys/fs/cgroup/vmm.service is no cpuset partition itself"),
        "{isolation}"
    );
    assert_eq!(answer(&said, "shared: "), "Ok(())");
    let got: f64 = answer(&said, "got: ").parse().unwrap();
    assert!(got <= 42.0, "{got}");
    assert!(got > 20.0, "{got}");
    assert_eq!(answer(&said, "as said: "), "true");
    assert_eq!(answer(&said, "left its unit: "), "false");
    assert_eq!(answer(&said, "records: "), "0");
    assert_eq!(tree(), before);
}

#[test]
fn in_a_unit_root_has_partitions_too_and_is_back_in_its_unit_afterwards() {
    let _alone = alone();
    let _enabled = Enabled::new();
    let unit = Group::new("vmm.service");
    let before = tree();
    let said = said_in(&unit, 0);
    println!("{said:#?}");
    assert_eq!(answer(&said, "isolation: "), "isolated cpuset partition");
    assert_eq!(answer(&said, "shared: "), "Ok(())");
    assert_eq!(answer(&said, "as said: "), "true");
    assert_eq!(answer(&said, "left its unit: "), "true");
    assert_eq!(answer(&said, "back in it: "), "true");
    assert_eq!(answer(&said, "records: "), "0");
    assert_eq!(tree(), before);
}

#[test]
fn in_a_unit_that_was_not_delegated_an_ordinary_user_is_told_what_is_missing() {
    let _alone = alone();
    let _enabled = Enabled::new();
    let unit = Group::new("vmm.service");
    let before = tree();
    let said = said_in(&unit, USER);
    println!("{said:#?}");
    for line in ["isolation: ", "shared: "] {
        let reason = answer(&said, line);
        assert!(
            reason.contains("/sys/fs/cgroup/vmm.service may not be written to; run as root, or in a unit with Delegate=yes"),
            "{reason}"
        );
    }
    assert_eq!(answer(&said, "as said: "), "true");
    assert_eq!(tree(), before);
}
