//! The watch over dedicated CPUs, on a host made of files: what its counters come to, and what is still no breach.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod fixture;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fixture::Host;
use pellucid_partition::{CgroupTree, CpuEvent, CpuHold, CpuSeat, CpuWatch, StateDir, WatchLimits};

/// A partition on CPU 0 whose vCPU is the calling thread, on a host without control groups.
struct Watched {
    host: Host,
    watch: CpuWatch,
    looked: Instant,
    counters: Counters,
    _seat: CpuSeat,
    _directory: tempfile::TempDir,
}

/// Counters of the CPU and its vCPU since boot.
#[derive(Default)]
struct Counters {
    idle: Duration,
    stolen: Duration,
    ran: Duration,
    switches: u64,
}

/// What happened between two looks: parts of the time in percent, and involuntary switches.
#[derive(Default)]
struct Happened {
    idle: u32,
    stolen: u32,
    ran: u32,
    switches: u64,
}

impl Watched {
    fn new() -> Self {
        let (host, directory) = (Host::one_socket(), tempfile::tempdir().unwrap());
        let state = StateDir::at(&directory.path().join("state")).unwrap();
        let hold = Arc::new(CpuHold::new(&CgroupTree::at(host.root()), &state, "db1", 1, &[]));
        hold.dedicate(&[0]).unwrap();
        let seat = hold.seat(0).unwrap();
        // A test's own time between what it writes and what is read stays well below.
        let limits = WatchLimits {
            foreign_percent: 20.0,
            ..WatchLimits::default()
        };
        let mut watched = Self {
            host,
            watch: hold.watch(limits),
            looked: Instant::now(),
            counters: Counters::default(),
            _seat: seat,
            _directory: directory,
        };
        watched.write();
        assert_eq!(
            watched.watch.check(),
            [],
            "the first look has nothing to compare with"
        );
        watched.looked = Instant::now();
        watched
    }

    /// What the kernel says from now on.
    fn write(&self) {
        let thread = rustix::thread::gettid().as_raw_nonzero();
        let Counters {
            idle,
            stolen,
            ran,
            switches,
        } = &self.counters;
        let ticks = |time: &Duration| time.as_millis() / 10;
        let cpu = format!("cpu0 7 0 7 {} 0 0 0 {} 0 0\n", ticks(idle), ticks(stolen));
        self.host
            .write("proc/stat", &format!("cpu  1 2 3 4 5 6 7 8 9 10\n{cpu}"));
        let status = format!("Cpus_allowed_list:\t0\nnonvoluntary_ctxt_switches:\t{switches}\n");
        self.host
            .write(&format!("proc/self/task/{thread}/status"), &status);
        let ran = ran.as_nanos();
        self.host.write(
            &format!("proc/self/task/{thread}/schedstat"),
            &format!("{ran} 0 9\n"),
        );
    }

    /// What the watch says a second or more later, after that.
    fn after(&mut self, happened: &Happened) -> Vec<CpuEvent> {
        std::thread::sleep(CpuWatch::INTERVAL + Duration::from_millis(20));
        let elapsed = self.looked.elapsed();
        let part = |percent: u32| elapsed * percent / 100;
        self.counters.idle += part(happened.idle);
        self.counters.stolen += part(happened.stolen);
        self.counters.ran += part(happened.ran);
        self.counters.switches += happened.switches;
        self.write();
        let events = self.watch.check();
        self.looked = Instant::now();
        events
    }
}

#[test]
fn time_that_a_hypervisor_took_is_told_and_is_not_called_foreign() {
    let mut watched = Watched::new();
    let events = watched.after(&Happened {
        stolen: 30,
        ran: 70,
        ..Happened::default()
    });
    let [CpuEvent::Stolen { cpu: 0, percent }] = events[..] else {
        panic!("{events:?}")
    };
    assert!((20.0..=31.0).contains(&percent), "{percent}");
    assert!(events[0].to_string().contains("hypervisor took"), "{}", events[0]);
    let nothing_more = watched.after(&Happened {
        idle: 40,
        ran: 60,
        ..Happened::default()
    });
    assert_eq!(nothing_more, []);
}

#[test]
fn a_vcpu_that_is_pushed_off_is_told_with_how_often() {
    let mut watched = Watched::new();
    let busy = |switches| Happened {
        switches,
        ran: 100,
        ..Happened::default()
    };
    assert_eq!(watched.after(&busy(19)), [], "an undisturbed Linux does that");
    assert_eq!(
        watched.after(&busy(9_000)),
        [CpuEvent::Switched {
            vcpu: 0,
            times: 9_000
        }]
    );
}

#[test]
fn time_that_is_neither_the_vcpus_nor_idle_nor_stolen_was_somebody_elses() {
    let mut watched = Watched::new();
    let events = watched.after(&Happened {
        idle: 20,
        ran: 30,
        ..Happened::default()
    });
    let [CpuEvent::Foreign { cpu: 0, percent, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!((49.0..=65.0).contains(percent), "{percent}");
}
