//! 64 processes race for overlapping CPUs for 10 seconds, and until each has had some. A log that they all append to is the witness: its
//! order is the kernel's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod crash;
mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crash::{Mortal, child, random, scene, scratch};
use fixture::{Host, MIB};
use pellucid_partition::{ClaimError, CpuRequest, Inventory, PartitionSpec, Plan, Siblings, StateDir};

const RACERS: usize = 64;
const CPUS: u64 = 6;
const LENGTH: Duration = Duration::from_secs(10);

/// Appends one line in one write: lines come in the order of the writes, whole.
fn tell(mut witness: &File, line: &str) {
    witness.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Some CPUs, in any order: the next racer takes the same ones the other way round.
fn some_cpus() -> Vec<usize> {
    let mut left: Vec<usize> = (1..=CPUS as usize).collect();
    (0..=random(3))
        .map(|_| left.swap_remove(random(left.len() as u64) as usize))
        .collect()
}

#[test]
#[ignore = "not a test: one of the 64"]
fn racer() {
    let scene = scene();
    let state = StateDir::at(&scene.join("state")).unwrap();
    let witness = OpenOptions::new()
        .append(true)
        .open(scene.join("witness"))
        .unwrap();
    let host: Inventory = serde_json::from_slice(&fs::read(scene.join("host")).unwrap()).unwrap();
    let own = std::process::id();
    let name = format!("racer-{own}");
    // They start together, when the last of them is there.
    while !scene.join("go").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (end, mut served) = (Instant::now() + LENGTH, false);
    // A claim never waits, so nobody is promised a turn while others ask as fast as they can. But who goes on asking gets one once they stop.
    while Instant::now() < end || !served {
        let cpus = CpuRequest::list(some_cpus()).unwrap();
        let spec = PartitionSpec::on(&name, cpus, 64 * MIB)
            .unwrap()
            .dedicated()
            .with_siblings(Siblings::Shared);
        match Plan::fit(&host, &spec).unwrap().reserve(&state) {
            Ok(reserved) => {
                let cpus = reserved.plan().pinned().to_vec();
                tell(&witness, &format!("{own} takes {cpus:?}"));
                std::thread::sleep(Duration::from_micros(random(2_000)));
                tell(&witness, &format!("{own} gives {cpus:?}"));
                reserved.release().unwrap();
                served = true;
            }
            Err(ClaimError::Held {
                resource,
                holder,
                pid,
            }) => {
                tell(&witness, &format!("{own} refused {resource} {holder} {pid}"));
            }
            Err(other) => panic!("{other}"),
        }
    }
    let late = if Instant::now() > end + LENGTH / 10 {
        " late"
    } else {
        ""
    };
    tell(&witness, &format!("{own} ends{late}"));
}

#[derive(Default)]
struct Judge {
    owners: BTreeMap<String, String>,
    takes: BTreeMap<String, u32>,
    refusals: u32,
    unnamed: u32,
    ended: BTreeSet<String>,
    late: u32,
}

impl Judge {
    fn hears(&mut self, line: &str) {
        let (racer, said) = line.split_once(' ').unwrap();
        let (verb, rest) = said.split_once(' ').unwrap_or((said, ""));
        let cpus = rest.trim_matches(['[', ']']).split(", ").map(str::to_owned);
        match verb {
            "takes" => {
                *self.takes.entry(racer.to_owned()).or_default() += 1;
                for cpu in cpus {
                    let before = self.owners.insert(cpu.clone(), racer.to_owned());
                    assert_eq!(before, None, "CPU {cpu} had an owner: {line}");
                }
            }
            "gives" => {
                for cpu in cpus {
                    let before = self.owners.remove(&cpu);
                    assert_eq!(before.as_deref(), Some(racer), "CPU {cpu} was lost: {line}");
                }
            }
            "refused" => {
                self.refusals += 1;
                let words: Vec<_> = rest.split(' ').collect();
                let [kind, cpu, holder, pid] = words[..] else {
                    panic!("{line}")
                };
                assert!(
                    kind == "cpu" && (1..=CPUS).contains(&cpu.parse().unwrap()),
                    "{line}"
                );
                match pid {
                    "0" => self.unnamed += 1,
                    pid => assert_eq!(holder, format!("racer-{pid}"), "{line}"),
                }
            }
            "ends" => {
                assert!(self.ended.insert(racer.to_owned()), "{line}");
                self.late += u32::from(rest == "late");
            }
            _ => panic!("{line}"),
        }
    }
}

fn start(scene: &Path) -> Vec<Mortal> {
    fs::write(scene.join("witness"), "").unwrap();
    let host = serde_json::to_vec(&Host::hybrid().survey()).unwrap();
    fs::write(scene.join("host"), host).unwrap();
    let racers = (0..RACERS).map(|_| Mortal(child("racer", scene).spawn().unwrap()));
    let racers = racers.collect();
    fs::write(scene.join("go"), "").unwrap();
    racers
}

#[test]
fn of_64_processes_each_cpu_has_one_owner_and_every_loser_is_told_whom() {
    let directory = scratch();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    let mut racers = start(directory.path());
    let pids: Vec<_> = racers.iter().map(|racer| racer.0.id().to_string()).collect();
    for racer in &mut racers {
        // A deadlock hangs here, and the suite's guard ends it.
        assert!(racer.0.wait().unwrap().success());
    }
    let mut judge = Judge::default();
    for line in fs::read_to_string(directory.path().join("witness"))
        .unwrap()
        .lines()
    {
        judge.hears(line);
    }
    assert!(judge.owners.is_empty(), "not given back: {:?}", judge.owners);
    assert_eq!(judge.ended.len(), RACERS);
    for racer in &pids {
        assert!(judge.takes.contains_key(racer), "{racer} never got anything");
    }
    let takes: u32 = judge.takes.values().sum();
    let fewest = judge.takes.values().min().unwrap();
    println!(
        "{takes} takes, at least {fewest} each, {} refusals, {} of them unnamed, {} racers waited for the others to stop",
        judge.refusals, judge.unnamed, judge.late
    );
    assert!(judge.refusals > 0);
    assert!(
        judge.unnamed <= judge.refusals / 100,
        "losers are told the holder"
    );
    let left: Vec<_> = fs::read_dir(state.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
