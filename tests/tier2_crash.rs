//! SIGKILL between every two steps of taking everything and giving it back (CPUs, huge pages, a real NVMe controller): once healed, the host
//! is byte for byte as it was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

#[path = "../partition/tests/crash/mod.rs"]
mod crash;
#[path = "../partition/tests/pool/mod.rs"]
mod pool;
#[path = "../partition/tests/sleeper/mod.rs"]
mod sleeper;
mod support;

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crash::{Mortal, child, files_below, kill_at_steps, kills, random, scene, scratch};
use pellucid_partition::{
    CgroupHealer, CpuHold, CpuRequest, HealOutcome, Healer, Inventory, PageSize, PartitionSpec, Plan,
    StateDir,
};
use pellucid_passthrough::{Inventory as PciInventory, IoSpace, PciHealer};
use pool::Pool;
use sleeper::Sleeper;
use support::eventually;
use support::host::{DATA, Pattern};
use support::state::{HostState, serial_of};

/// The pages behind the partition: all that the test's pool has.
const PAGES: u64 = 16;
/// Odd, so that one step is left before it and another after it.
const STRIDE: usize = 5;

/// A vCPU's thread under SCHED_FIFO takes its seat, and ends.
fn seat(cpus: &Arc<CpuHold>) {
    let (hold, (seated, taken)) = (Arc::clone(cpus), channel());
    let thread = std::thread::spawn(move || {
        let _seat = hold.seat(0).unwrap();
        seated.send(()).unwrap();
    });
    taken.recv().unwrap();
    thread.join().unwrap();
}

/// Takes of everything that a logical server can have, and gives all of it back.
fn take_everything_and_give_it_back(scene: &Path) {
    let state = StateDir::at(&scene.join("state")).unwrap();
    let spec = PartitionSpec::on(
        "db1",
        CpuRequest::list([1]).unwrap(),
        PAGES * PageSize::Size2M.bytes(),
    );
    let spec = spec.unwrap().dedicated().locked();
    let spec = spec.with_pages(PageSize::Size2M).unwrap();
    let plan = Plan::fit(&Inventory::survey().unwrap(), &spec).unwrap();
    let reserved = plan.reserve(&state).unwrap();
    reserved.cpus().use_realtime(Some(5)).unwrap();
    let populated = reserved.populate(&|_| {}).unwrap();
    seat(populated.reserved().cpus());
    let admitted = PciInventory::survey()
        .unwrap()
        .admit(DATA.parse().unwrap())
        .unwrap();
    let claimed = admitted.claim(&state, "db1").unwrap();
    let bound = claimed.bind(&IoSpace::open().unwrap()).unwrap();
    bound.release().unwrap();
    populated.release().unwrap();
}

#[test]
#[ignore = "not a test: the process that is killed at a step"]
fn taker() {
    take_everything_and_give_it_back(&scene());
}

#[test]
#[ignore = "not a test: the process that is killed at a random moment"]
fn restless_taker() {
    let scene = scene();
    println!("at work");
    loop {
        take_everything_and_give_it_back(&scene);
    }
}

/// The host before anything was taken, with bystanders, a pool of huge pages and a disk whose content is known.
struct Before {
    directory: tempfile::TempDir,
    pattern: Pattern,
    pool: Pool,
    _bystanders: [Sleeper; 3],
    state: HostState,
}

impl Before {
    fn new() -> Self {
        let directory = scratch();
        // So that a controller that was off before is off again.
        let _ = std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "-cpuset -cpu");
        let pool = Pool::with(PageSize::Size2M, PAGES).unwrap();
        let pattern = Pattern::write(DATA, directory.path());
        let bystanders = [Sleeper::on(&[0]), Sleeper::on(&[1]), Sleeper::fifo(3, &[0, 1])];
        StateDir::at(&directory.path().join("state")).unwrap();
        Self {
            directory,
            pattern,
            pool,
            _bystanders: bystanders,
            state: HostState::now(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Heals, and proves that everything is as before. Returns how many records the dead had left.
    #[track_caller]
    fn is_back(&self, moment: &str) -> usize {
        let state = StateDir::at(&self.path().join("state")).unwrap();
        let mut found = 0;
        eventually("what the dead still had in the kernel", || {
            let healers: [&dyn Healer; 2] = [&CgroupHealer::new(&state), &PciHealer::new()];
            let report = state.heal(&healers, false).unwrap();
            // A driver that is being moved stays claimed until the kernel has moved it.
            let (held, done): (Vec<_>, Vec<_>) = report
                .into_iter()
                .partition(|entry| matches!(entry.outcome, HealOutcome::InUse));
            found += done.len();
            for entry in done {
                let fine = matches!(entry.outcome, HealOutcome::Healed | HealOutcome::NothingToUndo);
                assert!(fine, "{moment}: {entry:?}");
            }
            held.is_empty().then_some(())
        });
        self.state.is_now(moment);
        let left = files_below(state.path());
        assert!(left.is_empty(), "{moment}: left in the state directory: {left:?}");
        assert_eq!(self.pool.free(), PAGES, "{moment}");
        self.pattern.begins(moment);
        assert_eq!(serial_of(DATA), "PELLUCID-DATA", "{moment}");
        found
    }
}

#[test]
fn killed_at_any_step_of_taking_everything_the_host_is_as_before_once_healed() {
    let before = Before::new();
    let mut left = 0;
    let begun = Instant::now();
    // All of them take an emulated server ten minutes, which not every run of the suite has.
    let stride = match std::env::var_os("PELLUCID_TEST_KILLS") {
        None => STRIDE,
        Some(_) => 1,
    };
    let steps = kill_at_steps("taker", before.path(), stride, |event| {
        left += usize::from(before.is_back(&format!("killed at event {event}")) > 0);
        if event.is_multiple_of(30) {
            println!("event {event} after {:?}", begun.elapsed());
        }
    });
    before.pattern.is_back();
    println!(
        "{} steps, killed at each event of {stride} in {:?}; {left} deaths left a record",
        steps.len() / 2,
        begun.elapsed()
    );
    for (step, least) in [
        ("write to a control group", 5),
        ("make a control group", 1),
        ("remove a control group", 1),
        ("override the driver", 1),
        ("unbind", 2),
        ("restore the override", 1),
        ("map guest memory", 1),
        ("populate guest memory", 1),
        ("unmap guest memory", 1),
        ("pin a vCPU thread", 1),
        ("change the scheduling policy", 1),
        ("keep a thread off", 1),
        ("replace the record", 4),
        ("remove a file", 8),
    ] {
        let count = steps.iter().filter(|name| *name == step).count() / 2;
        assert!(count >= least, "{step}: {count} in {steps:?}");
    }
    let deaths = steps.len() / stride;
    assert!(left > deaths / 2, "{left} of {deaths} deaths left a record");
}

#[test]
fn killed_at_random_moments_of_taking_everything_the_host_is_as_before_once_healed() {
    let before = Before::new();
    let kills = kills(12);
    let mut left = 0;
    for kill in 0..kills {
        let mut command = child("restless_taker", before.path());
        let mut taker = Mortal(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut said = [0; 256];
        let mut out = taker.0.stdout.take().unwrap();
        while !said.windows(7).any(|words| words == b"at work") {
            assert!(out.read(&mut said).unwrap() > 0, "the taker ended by itself");
        }
        std::thread::sleep(Duration::from_micros(random(1_500_000)));
        taker.kill();
        left += u32::from(before.is_back(&format!("kill {kill}")) > 0);
    }
    before.pattern.is_back();
    println!("{kills} kills, {left} of which left a record");
    assert!(left > kills / 4, "{left} of {kills} deaths left a record");
}
