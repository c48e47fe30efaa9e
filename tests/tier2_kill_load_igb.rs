//! SIGKILL at random moments while a server with an NVMe controller, an e1000e and a virtual function of an igb is started, runs and gives
//! them back, beside two disks that are read: once healed, every device is on its driver and works.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

#[path = "../partition/tests/crash/mod.rs"]
mod crash;
mod support;

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crash::{kills, random};
use rustix::process::Signal;
use support::host::{BOOT, DATA, Pattern, disk_of};
use support::lent::Card;
use support::state::HostState;
use support::{Server, Vmm, tiny};

/// A server whose guest greets and then waits to be told to power off.
fn start(vmm: &Vmm, devices: &[String]) -> Server {
    let kernel = vmm.path("tiny").to_string_lossy().into_owned();
    let mut words = vec!["--kernel", &kernel];
    words.extend(devices.iter().flat_map(|device| ["--device", device]));
    vmm.start("db1", "64M", &words)
}

/// How long one takes until its guest runs, and to give everything back, where nobody disturbs it.
fn measured(vmm: &Vmm, devices: &[String]) -> [u64; 2] {
    let begun = Instant::now();
    let mut server = start(vmm, devices);
    server.says(tiny::GREETING.trim_end());
    let taken = begun.elapsed();
    server.types("q");
    let (status, said) = server.ends();
    assert_eq!((status, said.as_str()), (Some(0), ""));
    [taken, begun.elapsed() - taken].map(|time| time.as_micros() as u64)
}

/// Starts a server and kills it: by turns while it takes, while its guest runs, while it gives back.
fn killed(vmm: &Vmm, devices: &[String], kill: u32, [take, give]: [u64; 2]) {
    let mut server = start(vmm, devices);
    let longest = match kill % 3 {
        0 => take,
        1 => {
            server.says(tiny::GREETING.trim_end());
            RUNS_US
        }
        _ => {
            server.says(tiny::GREETING.trim_end());
            server.types("q");
            give
        }
    };
    std::thread::sleep(Duration::from_micros(random(longest)));
    server.signal(Signal::KILL);
    // One that had given everything back has ended by itself.
    let (status, said) = server.ends();
    assert!(status.is_none() || status == Some(0), "kill {kill}: {said}");
}

/// Reads a disk for as long as there is one, past the page cache.
fn reads(device: &str, stop: &AtomicBool, count: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let Some(disk) = disk_now(device) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        while !stop.load(Ordering::Relaxed)
            && rustix::fs::fadvise(&disk, 0, None, rustix::fs::Advice::DontNeed).is_ok()
            && disk.read_exact_at(&mut [0; 4096], random(256) * 4096).is_ok()
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A controller's disk, if it is there.
fn disk_now(device: &str) -> Option<std::fs::File> {
    let folder = format!("/sys/bus/pci/devices/{device}/nvme");
    let controller = std::fs::read_dir(folder).ok()?.flatten().next()?.file_name();
    std::fs::File::open(Path::new("/dev").join(format!("{}n1", controller.to_string_lossy()))).ok()
}

/// Heals, and proves that every device is where it was and works. Returns what was restored.
fn healed(vmm: &Vmm, before: &HostState, pattern: &Pattern, cards: &[Card; 2], moment: &str) -> usize {
    let heal = vmm.ask(["heal"]);
    assert_eq!(
        (heal.status, heal.err.as_str()),
        (Some(0), ""),
        "{moment}: {heal:?}"
    );
    assert!(vmm.claims().is_empty(), "{moment}");
    before.is_now(moment);
    std::thread::scope(|scope| {
        for card in cards {
            scope.spawn(|| card.is_back());
        }
        pattern.begins(moment);
    });
    before.is_now(moment);
    heal.out
        .lines()
        .filter(|line| line.contains(": restored"))
        .count()
}

#[test]
fn killed_at_random_moments_under_load_a_server_with_every_kind_of_device_loses_none() {
    let vmm = Vmm::new();
    vmm.file("tiny", &tiny::kernel());
    let _ = std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", "-cpuset -cpu");
    let pattern = Pattern::write(DATA, vmm.scratch.path());
    let cards = [
        Card::of("0x8086", "0x10d3", None),
        Card::of("0x8086", "0x10c9", Some(PORT)),
    ];
    // By force: the disk is read, and a card that was brought up may have a route.
    let devices = [
        format!("{DATA},force"),
        format!("{},force", cards[0].at),
        format!("{},vf=1,vfs=2,mac=52:54:00:0a:0b:0c", cards[1].at),
    ];
    for card in &cards {
        card.is_back();
    }
    disk_of(BOOT);
    let before = HostState::now();
    let times = measured(&vmm, &devices);
    before.is_now("after a life that nobody ended");
    println!(
        "to its guest {} ms, to its end {} ms",
        times[0] / 1000,
        times[1] / 1000
    );

    let (kills, begun) = (kills(6), Instant::now());
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut left = [0; 3];
    std::thread::scope(|scope| {
        for disk in [DATA, BOOT] {
            scope.spawn(|| reads(disk, &stop, &count));
        }
        let _stopped = Stop(&stop);
        for kill in 0..kills {
            killed(&vmm, &devices, kill, times);
            let moment = format!("kill {kill}");
            left[kill as usize % 3] += u32::from(healed(&vmm, &before, &pattern, &cards, &moment) > 0);
            if kill % 3 == 2 {
                // At once, as a sign of life: what is printed is kept until the end.
                let seconds = begun.elapsed().as_secs();
                writeln!(
                    std::io::stderr(),
                    "{} kills after {seconds} s: {left:?}",
                    kill + 1
                )
                .unwrap();
            }
        }
    });
    pattern.is_back();
    println!(
        "{kills} kills in {} s; of those while it took, ran, gave back: {left:?} left something to restore; {} reads meanwhile",
        begun.elapsed().as_secs(),
        count.load(Ordering::Relaxed)
    );
    assert!(left.iter().sum::<u32>() > kills / 2, "{left:?} of {kills}");
    assert!(count.load(Ordering::Relaxed) > u64::from(kills));
}

/// Ends the load with the test, also where it fails.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The longest that a guest runs before it is killed.
const RUNS_US: u64 = 300_000;
const PORT: &str = "0000:00:04.0";
