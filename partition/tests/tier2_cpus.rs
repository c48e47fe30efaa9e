//! CPUs held on a real kernel with cgroup v2: shares measured from `cpu.stat`, isolation seen from outside, the tree as before afterwards.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod spinner;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pellucid_partition::{
    CgroupHealer, CgroupTree, CpuEvent, CpuHold, CpuInterval, CpuIsolation, CpuTerms, HealOutcome, StateDir,
    WatchLimits,
};
use spinner::{CPU, Spinner, alone, measure, near, own_group, parts, share, state, tree};

#[test]
fn two_busy_partitions_at_three_to_one_get_three_quarters_and_one() {
    let (_alone, (_directory, state)) = (alone(), state());
    let before = (tree(), own_group());
    let (one, two) = (Spinner::start(&state, "one"), Spinner::start(&state, "two"));
    one.hold.share(share(300, None), None).unwrap();
    two.hold.share(share(100, None), None).unwrap();
    let intervals = measure(&[&one, &two], Duration::from_secs(10));
    let got = parts(&intervals);
    println!("3:1 over 10 s: {got:.2?}; {} / {}", intervals[0], intervals[1]);
    assert!(near(got[0], 75.0, 2.0) && near(got[1], 25.0, 2.0), "{got:?}");
    // Both asked for all of it.
    assert!(
        intervals.iter().all(|interval| interval.asked_percent() > 85.0),
        "{intervals:?}"
    );
    // The other way round, from one second to the next.
    one.hold.share(share(100, None), None).unwrap();
    two.hold.share(share(300, None), None).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let got = parts(&measure(&[&one, &two], Duration::from_secs(3)));
    println!("1:3 a second after the change: {got:.2?}");
    assert!(near(got[0], 25.0, 4.0), "{got:?}");
    // What an idle one leaves goes to the other.
    two.idle(true);
    let got = parts(&measure(&[&one, &two], Duration::from_secs(2)));
    println!("the other idle: {got:.2?}");
    assert!(got[0] > 90.0, "{got:?}");
    drop((one, two));
    assert_eq!((tree(), own_group()), before);
}

/// One of some measurements in which a capped partition got just its cap. It gets less while the emulated server itself waits for a CPU of the
/// machine below, whose time its clock counts all the same, and more for one period, which the next ones pay, where that wait falls between
/// the end of its share and the tick that stops it.
fn held_to_cap(spinner: &Spinner, cap: f64, points: f64, time: Duration) -> CpuInterval {
    for _ in 0..4 {
        let interval = measure(&[spinner], time)[0];
        println!(
            "cap {cap}%: {interval}, held in {} of {} periods",
            interval.throttled_periods, interval.periods
        );
        if near(interval.got_percent(), cap, points) {
            return interval;
        }
    }
    panic!("never within {points} points of {cap}");
}

#[test]
fn a_cap_holds_and_a_change_takes_effect_within_a_second() {
    let (_alone, (_directory, state)) = (alone(), state());
    let one = Spinner::start(&state, "one");
    one.hold.share(share(100, Some("40")), None).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let interval = held_to_cap(&one, 40.0, 1.0, Duration::from_secs(10));
    assert!(
        interval.throttled_periods > 50 && !interval.throttled.is_zero(),
        "{interval:?}"
    );
    for (cap, wanted) in [("20", 20.0), ("21", 21.0), ("62.5", 62.5)] {
        one.hold.share(share(100, Some(cap)), None).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        held_to_cap(&one, wanted, 1.0, Duration::from_secs(3));
    }
}

#[test]
fn partitions_of_a_group_divide_among_themselves_what_the_group_gets() {
    let (_alone, (_directory, state)) = (alone(), state());
    let before = tree();
    let [one, two, other] = ["one", "two", "other"].map(|name| Spinner::start(&state, name));
    one.hold.share(share(100, None), Some("batch")).unwrap();
    two.hold.share(share(100, None), Some("batch")).unwrap();
    other.hold.share(share(100, None), None).unwrap();
    let got = parts(&measure(&[&one, &two, &other], Duration::from_secs(5)));
    println!("a group of two beside one: {got:.2?}");
    assert!(near(got[2], 50.0, 4.0) && near(got[0], 25.0, 4.0), "{got:?}");
    one.idle(true);
    let got = parts(&measure(&[&one, &two, &other], Duration::from_secs(3)));
    assert!(
        near(got[1], 50.0, 5.0),
        "the idle one's goes to its group first: {got:?}"
    );
    one.idle(false);
    two.hold.share_group(share(100, Some("30"))).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let (begun, time) = (Instant::now(), two.hold.group_time().unwrap());
    std::thread::sleep(Duration::from_secs(3));
    let percent =
        (two.hold.group_time().unwrap() - time).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    assert!(
        near(percent, 30.0, 3.0),
        "the group is capped at 30 %, and got {percent}"
    );
    drop((one, two, other));
    assert_eq!(tree(), before);
}

#[test]
fn a_dedicated_cpu_is_isolated_until_it_is_given_back() {
    let (_alone, (_directory, state)) = (alone(), state());
    let before = (tree(), own_group());
    let expected = CgroupTree::of_host().isolation(&[CPU]);
    assert_eq!(
        (expected.level, tree()),
        (CpuIsolation::Isolated, before.0.clone()),
        "asked without touching"
    );
    let one = Spinner::start(&state, "one");
    assert_eq!(one.hold.dedicate(&[CPU]).unwrap(), expected);
    let elsewhere = std::fs::read_to_string("/proc/1/status").unwrap();
    assert!(
        elsewhere.contains("Cpus_allowed_list:\t0-1\n"),
        "others are off it"
    );
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(own.contains("Cpus_allowed_list:\t1\n"), "housekeeping too");
    let interval = measure(&[&one], Duration::from_secs(2))[0];
    println!("dedicated: {interval}");
    assert!(interval.got_percent() > 90.0, "{interval}");
    // Another's dedicated CPU, and all that are left.
    let two = CpuHold::new(&CgroupTree::of_host(), &state, "two", 1, &[]);
    let refusal = two.dedicate(&[CPU]).unwrap_err().to_string();
    assert!(
        refusal.contains("cpu 2 is in use by logical server \"one\""),
        "{refusal}"
    );
    let last = CgroupTree::of_host().isolation(&[0, 1]);
    assert_eq!(last.level, CpuIsolation::Affinity);
    assert!(last.reason.contains("one must stay with the host"), "{last}");
    // To and fro while it runs.
    one.hold.share(share(200, Some("50")), None).unwrap();
    assert!(matches!(one.hold.terms(), CpuTerms::Shared { .. }));
    assert!(
        state
            .records()
            .unwrap()
            .iter()
            .all(|(record, _)| record.resource.kind != "cpu")
    );
    one.hold.dedicate(&[CPU]).unwrap();
    one.hold.use_realtime(Some(1)).unwrap();
    one.idle(true);
    one.hold.use_realtime(None).unwrap();
    drop((one, two));
    assert_eq!((tree(), own_group()), before);
    assert!(state.records().unwrap().is_empty());
}

#[test]
fn the_watch_tells_of_a_lost_partition_a_lost_pin_and_foreign_tasks() {
    let (_alone, (_directory, state)) = (alone(), state());
    let one = Spinner::start(&state, "one");
    one.hold.dedicate(&[CPU]).unwrap();
    one.idle(true);
    let mut watch = one.hold.watch(WatchLimits {
        foreign_percent: 20.0,
        ..WatchLimits::default()
    });
    assert_eq!(watch.check(), [], "as promised");
    assert_eq!(watch.check(), [], "not twice within a second");
    // A foreign task comes in as root can bring it: into the very group.
    let foreign = spin();
    let group = Path::new("/sys/fs/cgroup/pellucid.one");
    std::fs::write("/sys/fs/cgroup/cgroup.procs", foreign.0.id().to_string()).unwrap();
    std::fs::write(group.join("cgroup.threads"), foreign.0.id().to_string()).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let events = watch.check();
    println!("{events:?}");
    let seen = events.iter().any(|event| matches!(event, CpuEvent::Foreign { cpu: CPU, percent, tasks } if *percent > 50.0 && tasks.iter().any(|task| task == "sh")));
    assert!(seen, "{events:?}");
    drop(foreign);
    std::fs::write(group.join("cpuset.cpus.partition"), "member").unwrap();
    std::fs::write(group.join("cpuset.cpus"), "1-2").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let events = watch.check();
    println!("{events:?}");
    assert!(
        events
            .iter()
            .any(|event| matches!(event, CpuEvent::Unisolated { state } if state == "member"))
    );
    assert!(
        events.iter().any(|event| matches!(
            event,
            CpuEvent::Unpinned {
                vcpu: 0,
                cpu: CPU,
                ..
            }
        )),
        "{events:?}"
    );
}

#[test]
fn the_watch_counts_how_often_a_competing_task_pushes_a_vcpu_off_its_cpu() {
    let (_alone, (_directory, state)) = (alone(), state());
    let one = Spinner::start(&state, "one");
    one.hold.dedicate(&[CPU]).unwrap();
    let mut watch = one.hold.watch(WatchLimits {
        switches: 5,
        ..WatchLimits::default()
    });
    assert_eq!(watch.check(), []);
    std::thread::sleep(Duration::from_secs(2));
    let undisturbed = watch.check();
    println!("alone: {undisturbed:?}");
    let switched = |events: &[CpuEvent]| {
        let times = events.iter().find_map(|event| match event {
            CpuEvent::Switched { vcpu: 0, times } => Some(*times),
            _ => None,
        });
        times.unwrap_or(0)
    };
    assert_eq!(switched(&undisturbed), 0, "{undisturbed:?}");
    // Another task that wants the same CPU, in the very group, as root can bring it.
    let competitor = spin();
    std::fs::write("/sys/fs/cgroup/cgroup.procs", competitor.0.id().to_string()).unwrap();
    std::fs::write(
        "/sys/fs/cgroup/pellucid.one/cgroup.threads",
        competitor.0.id().to_string(),
    )
    .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let events = watch.check();
    println!("with a competitor: {events:?}");
    assert!(switched(&events) > 10, "{events:?}");
    // One of higher priority that wakes up again and again.
    drop(competitor);
    let mut command = Command::new("chrt");
    command.args(["-f", "10", "sh", "-c", "while :; do sleep 0.004; done"]);
    let urgent = Foreign(command.spawn().unwrap());
    std::fs::write("/sys/fs/cgroup/cgroup.procs", urgent.0.id().to_string()).unwrap();
    std::fs::write(
        "/sys/fs/cgroup/pellucid.one/cgroup.threads",
        urgent.0.id().to_string(),
    )
    .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let _ = watch.check();
    std::thread::sleep(Duration::from_secs(2));
    let events = watch.check();
    println!("with a real-time task: {events:?}");
    assert!(switched(&events) > 10, "{events:?}");
}

/// Killed at the latest when dropped.
struct Foreign(Child);

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spin() -> Foreign {
    let mut command = Command::new("/bin/sh");
    Foreign(command.args(["-c", "while :; do :; done"]).spawn().unwrap())
}

const DIRECTORY: &str = "PELLUCID_TEST_STATE_OF_CHILD";

/// The process that the test below kills: it goes from one terms to the other.
#[test]
#[ignore = "not a test: the process that the other starts and kills"]
fn owner() {
    let state = StateDir::at(Path::new(&std::env::var_os(DIRECTORY).unwrap())).unwrap();
    let one = Spinner::start(&state, "one");
    one.idle(true);
    loop {
        one.hold.share(share(300, Some("40")), Some("batch")).unwrap();
        one.hold.dedicate(&[CPU]).unwrap();
        one.hold.share(share(300, None), None).unwrap();
    }
}

#[test]
fn whenever_it_is_killed_the_tree_is_as_before_after_healing() {
    let (_alone, (_directory, state)) = (alone(), state());
    // So that a controller that was off before is off again.
    let _ = std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "-cpuset");
    let before = tree();
    let (mut healed, rounds) = (0, 12);
    for round in 0..rounds {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "owner"])
            .env(DIRECTORY, state.path());
        let mut owner = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let patience = Instant::now() + Duration::from_secs(30);
        while state
            .records()
            .unwrap()
            .iter()
            .all(|(record, _)| record.undo.is_none())
        {
            assert!(Instant::now() < patience, "the owner did not start");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(round * 7));
        owner.kill().unwrap();
        owner.wait().unwrap();
        for entry in state.heal(&[&CgroupHealer::new(&state)], false).unwrap() {
            assert!(
                matches!(entry.outcome, HealOutcome::Healed | HealOutcome::NothingToUndo),
                "{entry:?}"
            );
            healed += u64::from(matches!(entry.outcome, HealOutcome::Healed));
        }
        assert_eq!(tree(), before, "round {round}");
        assert!(state.records().unwrap().is_empty());
    }
    println!("{healed} of {rounds} were killed with something to undo");
    assert!(healed >= rounds / 2);
    std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset").unwrap();
}
