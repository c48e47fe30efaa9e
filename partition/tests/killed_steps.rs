//! SIGKILL between every two steps of reserving, lending, releasing and healing: one `heal` later every byte is as it was.
#![allow(clippy::unwrap_used, reason = "a test")]

mod crash;
mod fixture;

use std::error::Error;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crash::{
    Mortal, child, files_below, kill_at, kill_at_every_step, kills, random, scene, scratch, steps_of,
};
use fixture::{Host, MIB};
use pellucid_partition::{
    CpuRequest, HealOutcome, Healer, PartitionSpec, Plan, Resource, Siblings, StateDir, step,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A host of one device, whose driver is a word in a file, and a state directory; both start empty but for the driver.
struct Scene {
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = scratch();
        let host = Host::one_socket().survey();
        let cpus = CpuRequest::list([1, 2]).unwrap();
        let spec = PartitionSpec::on("db1", cpus, 64 * MIB)
            .unwrap()
            .dedicated()
            .with_siblings(Siblings::Shared);
        let plan = Plan::fit(&host, &spec).unwrap();
        fs::write(directory.path().join("plan"), serde_json::to_vec(&plan).unwrap()).unwrap();
        fs::create_dir(directory.path().join("host")).unwrap();
        fs::write(directory.path().join("host/driver"), HOST_DRIVER).unwrap();
        let scene = Self { directory };
        scene.state();
        scene
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn state(&self) -> StateDir {
        state(self.path())
    }

    /// Heals, and proves that everything is as at the start. Returns how many records there were.
    #[track_caller]
    fn heals(&self, moment: &str) -> usize {
        let state = self.state();
        let healer = DriverHealer(self.path().to_owned());
        let report = state.heal(&[&healer], false).unwrap();
        for entry in &report {
            let fine = matches!(entry.outcome, HealOutcome::Healed | HealOutcome::NothingToUndo);
            assert!(fine, "{moment}: {entry:?}");
        }
        let left = files_below(state.path());
        assert!(left.is_empty(), "{moment}: left in the state directory: {left:?}");
        let driver = fs::read_to_string(self.path().join("host/driver")).unwrap();
        assert_eq!(driver, HOST_DRIVER, "{moment}");
        report.len()
    }
}

fn state(scene: &Path) -> StateDir {
    StateDir::at(&scene.join("state")).unwrap()
}

/// Puts the host's driver back, in two steps, either of which may be the healer's last.
struct DriverHealer(PathBuf);

impl Healer for DriverHealer {
    fn kind(&self) -> &str {
        "driver"
    }

    fn undo(&self, _: &str, data: &Value) -> Result<(), Box<dyn Error + Send + Sync>> {
        let driver = data["driver"].as_str().ok_or("no driver")?;
        step("unbind", || fs::write(self.0.join("host/driver"), ""))?;
        step("bind", || fs::write(self.0.join("host/driver"), driver))?;
        Ok(())
    }
}

/// Everything that a partition does with claims: taken, a device lent in two stages, all given back.
fn lend(scene: &Path) {
    let state = state(scene);
    let plan: Plan = serde_json::from_slice(&fs::read(scene.join("plan")).unwrap()).unwrap();
    let reserved = plan.reserve(&state).unwrap();
    let mut device = state
        .claim(Resource::new("device", "0000:01:00.0"), "db1")
        .unwrap();
    for stage in ["vfio-pci", "guest"] {
        let undo = json!({ "driver": HOST_DRIVER, "stage": stage });
        device.record_undo("driver", &undo).unwrap();
        step("bind", || fs::write(scene.join("host/driver"), stage)).unwrap();
    }
    step("bind", || fs::write(scene.join("host/driver"), HOST_DRIVER)).unwrap();
    device.release().unwrap();
    reserved.release().unwrap();
}

#[test]
#[ignore = "not a test: the process that is killed at a step"]
fn lender() {
    lend(&scene());
}

#[test]
#[ignore = "not a test: the process that is killed at a random moment"]
fn restless_lender() {
    let scene = scene();
    println!("at work");
    loop {
        lend(&scene);
    }
}

#[test]
#[ignore = "not a test: the healer that is killed at a step"]
fn healer() {
    let scene = scene();
    for entry in state(&scene)
        .heal(&[&DriverHealer(scene.clone())], false)
        .unwrap()
    {
        assert!(!matches!(entry.outcome, HealOutcome::Failed(_)), "{entry:?}");
    }
}

#[test]
fn killed_at_any_step_of_taking_and_giving_back_everything_is_restored() {
    let scene = Scene::new();
    let mut left = 0;
    let steps = kill_at_every_step("lender", scene.path(), |event| {
        left += usize::from(scene.heals(&format!("killed at event {event}")) > 0);
    });
    // Name, two CPUs and a device, each: locked, recorded, removed.
    for (step, least) in [
        ("create the lock", 4),
        ("lock", 4),
        ("replace the record", 6),
        ("bind", 3),
        ("remove a file", 12),
    ] {
        let count = steps.iter().filter(|name| *name == step).count() / 2;
        assert!(count >= least, "{step}: {count} in {steps:?}");
    }
    assert!(
        left > steps.len() / 2,
        "{left} of {} deaths left a record",
        steps.len()
    );
}

#[test]
fn a_healer_killed_at_any_step_leaves_enough_for_the_next() {
    let scene = Scene::new();
    let lent = steps_of("lender", scene.path());
    let lent = lent.iter().rposition(|step| step == "bind").unwrap() as u64 - 2;
    let leave = || {
        kill_at("lender", scene.path(), lent);
        assert_eq!(scene.state().records().unwrap().len(), 4);
    };
    leave();
    let mut begun = 0;
    let steps = kill_at_every_step("healer", scene.path(), |event| {
        begun += usize::from(scene.state().records().unwrap().len() < 4);
        scene.heals(&format!("the healer was killed at event {event}"));
        leave();
    });
    assert!(steps.iter().any(|step| step == "unbind"), "{steps:?}");
    assert!(
        begun > steps.len() / 2,
        "{begun} of {} had healed something",
        steps.len()
    );
}

#[test]
fn killed_at_random_moments_everything_is_restored_each_time() {
    let scene = Scene::new();
    let kills = kills(1000);
    let mut left = 0;
    for kill in 0..kills {
        let mut command = child("restless_lender", scene.path());
        let mut lender = Mortal(command.stdout(Stdio::piped()).spawn().unwrap());
        // One in ten is killed before it has done anything, or nearly so.
        if !kill.is_multiple_of(10) {
            let mut said = [0; 64];
            let mut out = lender.0.stdout.take().unwrap();
            while !said.windows(7).any(|words| words == b"at work") {
                assert!(out.read(&mut said).unwrap() > 0, "the lender ended by itself");
            }
        }
        std::thread::sleep(Duration::from_micros(random(6_000)));
        lender.kill();
        left += u32::from(scene.heals(&format!("kill {kill}")) > 0);
    }
    assert!(left > kills / 4, "{left} of {kills} deaths left a record");
    println!("{kills} kills, {left} of which left a record");
}

const HOST_DRIVER: &str = "nvme";
