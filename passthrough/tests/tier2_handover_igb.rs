//! SIGKILL between every two steps of claiming, binding and releasing, and at random moments under load: afterwards every device is on its
//! driver and works. An NVMe controller, an e1000e, and virtual functions of an igb.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "../../partition/tests/crash/mod.rs"]
mod crash;
#[path = "scene/mod.rs"]
mod scene;

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crash::{Mortal, child, kill_at_every_step_of, kills, random};
use pellucid_partition::{HealOutcome, StateDir};
use pellucid_passthrough::{Claimant, Inventory, IoSpace, PciHealer, SriovHealer, VfSettings, Wanted};
use scene::{bdf, disk_of, first_block};

const DATA: &str = "0000:02:00.0";
const NETWORK: &str = "0000:00:19.0";

/// The physical function of the card with SR-IOV.
fn physical() -> String {
    let host = Inventory::survey().unwrap();
    let igb = |function: &&pellucid_passthrough::Function| function.driver.bound.as_deref() == Some("igb");
    host.functions.values().find(igb).unwrap().bdf.to_string()
}

fn attribute(device: &str, name: &str) -> String {
    let path = format!("/sys/bus/pci/devices/{device}/{name}");
    fs::read_to_string(path).unwrap().trim().to_owned()
}

/// The name and the address of a card's interface, once its driver has made it.
fn interface(device: &str) -> (String, String) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let listing = fs::read_dir(format!("/sys/bus/pci/devices/{device}/net"));
        if let Some(entry) = listing.into_iter().flatten().flatten().next() {
            let address = fs::read_to_string(entry.path().join("address")).unwrap();
            return (entry.file_name().to_string_lossy().into_owned(), address);
        }
        assert!(Instant::now() < end, "{device} has no interface");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Brings a card up and waits for its link: its driver has programmed it, and it answers.
fn link_comes_up(device: &str) {
    let (name, _) = interface(device);
    let up = std::process::Command::new("ip")
        .args(["link", "set", "dev", &name, "up"])
        .status();
    assert!(up.unwrap().success());
    let end = Instant::now() + Duration::from_secs(20);
    let carrier = format!("/sys/class/net/{name}/carrier");
    while fs::read_to_string(&carrier).unwrap_or_default().trim() != "1" {
        assert!(Instant::now() < end, "{device} has no link");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The devices as they were found.
struct Found {
    directory: tempfile::TempDir,
    block: Vec<u8>,
    physical: String,
    addresses: [String; 2],
    autoprobe: String,
}

impl Found {
    fn now() -> Found {
        let physical = physical();
        Found {
            directory: crash::scratch(),
            block: first_block(DATA),
            addresses: [interface(NETWORK).1, interface(&physical).1],
            autoprobe: attribute(&physical, "sriov_drivers_autoprobe"),
            physical,
        }
    }

    fn lends(&self, device: &str) -> &Path {
        fs::write(self.directory.path().join("device"), device).unwrap();
        self.directory.path()
    }

    /// Heals, and looks whether everything is as it was found and works. Returns how many records there were.
    fn heals(&self, moment: &str) -> usize {
        let state = StateDir::at(&self.directory.path().join("state")).unwrap();
        let (functions, virtual_functions) = (PciHealer::new(), SriovHealer::of(&state));
        let end = Instant::now() + Duration::from_secs(60);
        // A driver's remove that its owner did not live to see is waited for: the child that is in it holds the claim.
        let report = loop {
            let report = state.heal(&[&functions, &virtual_functions], false).unwrap();
            let in_use = |entry: &pellucid_partition::HealEntry| matches!(entry.outcome, HealOutcome::InUse);
            if !report.iter().any(in_use) {
                break report;
            }
            assert!(Instant::now() < end, "{moment}: {report:?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        for entry in &report {
            let fine = matches!(entry.outcome, HealOutcome::Healed | HealOutcome::NothingToUndo);
            assert!(fine, "{moment}: {entry:?}");
        }
        assert!(crash::files_below(state.path()).is_empty(), "{moment}");
        for (device, driver) in [(DATA, "nvme"), (NETWORK, "e1000e"), (&self.physical, "igb")] {
            let bound = fs::read_link(format!("/sys/bus/pci/devices/{device}/driver"));
            assert!(
                bound.is_ok_and(|bound| bound.ends_with(driver)),
                "{moment}: {device}"
            );
            assert_eq!(attribute(device, "driver_override"), "(null)", "{moment}");
        }
        assert_eq!(attribute(&self.physical, "sriov_numvfs"), "0", "{moment}");
        assert_eq!(
            attribute(&self.physical, "sriov_drivers_autoprobe"),
            self.autoprobe,
            "{moment}"
        );
        assert_eq!(first_block(DATA), self.block, "{moment}");
        let addresses = [interface(NETWORK).1, interface(&self.physical).1];
        assert_eq!(addresses, self.addresses, "{moment}");
        report.len()
    }
}

/// Takes a device through all stages and gives it back; `vf`: a virtual function made for it.
fn lend(scene: &Path, device: &str) {
    let state = StateDir::at(&scene.join("state")).unwrap();
    let claimant = Claimant::new(&state, "db1");
    let made = (device == "vf").then(|| claimant.virtual_functions(bdf(&physical()), 2).unwrap());
    let address = made
        .as_ref()
        .map_or_else(|| bdf(device), |made| made.functions()[1]);
    // By force: the card that was brought up may have the default route.
    let wanted = [Wanted::new(address).by_force()];
    let mut admitted = Inventory::survey().unwrap().admit_together(&wanted).unwrap();
    let mut claimed = claimant.claim(admitted.remove(0)).unwrap();
    if made.is_some() {
        let settings = VfSettings {
            mac: Some("52:54:00:0a:0b:0c".parse().unwrap()),
            vlan: Some(7.try_into().unwrap()),
        };
        claimed.configure(&settings).unwrap();
    }
    let bound = claimed.bind(&IoSpace::open().unwrap()).unwrap();
    let _ = bound.release().unwrap();
    if let Some(made) = made {
        assert!(made.release().unwrap());
    }
}

#[test]
#[ignore = "not a test: the process that is killed at a step"]
fn lender() {
    let scene = crash::scene();
    lend(&scene, &fs::read_to_string(scene.join("device")).unwrap());
}

#[test]
#[ignore = "not a test: the process that is killed at a random moment"]
fn restless_lender() {
    let scene = crash::scene();
    println!("at work");
    loop {
        for device in [DATA, NETWORK, "vf"] {
            lend(&scene, device);
        }
    }
}

#[test]
fn killed_at_any_step_a_disk_is_back_on_its_driver_and_reads() {
    let found = Found::now();
    let only = if std::env::var_os("PELLUCID_TEST_KILLS").is_some() {
        &[]
    } else {
        DEVICE_STEPS
    };
    let steps = kill_at_every_step_of(only, "lender", found.lends(DATA), |event| {
        found.heals(&format!("{DATA}, killed at event {event}"));
    });
    for (step, least) in [
        ("override the driver", 1),
        ("unbind", 2),
        ("bind", 2),
        ("reset", 2),
        ("restore the override", 1),
    ] {
        let count = steps.iter().filter(|name| *name == step).count() / 2;
        assert!(count >= least, "{step}: {count} in {steps:?}");
    }
}

#[test]
fn killed_at_any_step_a_network_card_is_back_on_its_driver_and_has_its_link() {
    let found = Found::now();
    let _ = kill_at_every_step_of(DEVICE_STEPS, "lender", found.lends(NETWORK), |event| {
        found.heals(&format!("{NETWORK}, killed at event {event}"));
        link_comes_up(NETWORK);
    });
}

#[test]
fn killed_at_any_step_virtual_functions_are_gone_and_the_card_has_its_link() {
    let found = Found::now();
    let steps = kill_at_every_step_of(VF_STEPS, "lender", found.lends("vf"), |event| {
        found.heals(&format!("virtual function, killed at event {event}"));
    });
    link_comes_up(&found.physical);
    let made = steps
        .iter()
        .filter(|name| *name == "set the number of virtual functions")
        .count();
    assert_eq!(made / 2, 2, "made and removed: {steps:?}");
    assert!(
        steps.iter().any(|name| name == "set up the virtual function"),
        "{steps:?}"
    );
}

#[test]
fn killed_at_random_moments_under_load_every_device_is_back_each_time() {
    let found = Found::now();
    let (kills, stop, reads) = (kills(6), AtomicBool::new(false), AtomicU64::new(0));
    let state = StateDir::at(&found.directory.path().join("state")).unwrap();
    let mut left = 0;
    std::thread::scope(|scope| {
        // The disk is read until it is taken and from when it is back; another disk and a CPU are busy beside.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let disk = fs::File::options().read(true).open(disk_of(DATA));
                while let Ok(disk) = &disk
                    && !stop.load(Ordering::Relaxed)
                    && rustix::fs::fadvise(disk, 0, None, rustix::fs::Advice::DontNeed).is_ok()
                    && disk.read_exact_at(&mut [0; 4096], random(256) * 4096).is_ok()
                {
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let beside = fs::File::open(disk_of("0000:01:00.0")).unwrap();
                rustix::fs::fadvise(&beside, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                beside.read_exact_at(&mut [0; 65536], random(64) * 65536).unwrap();
            }
        });
        for kill in 0..kills {
            link_comes_up(NETWORK);
            let mut command = child("restless_lender", found.directory.path());
            let mut lender = Mortal(command.stdout(Stdio::piped()).spawn().unwrap());
            let mut said = [0; 64];
            let mut out = lender.0.stdout.take().unwrap();
            while !said.windows(7).any(|words| words == b"at work") {
                assert!(out.read(&mut said).unwrap() > 0, "the lender ended by itself");
            }
            // Half of them while something is on record, the others at any moment.
            let end = Instant::now() + Duration::from_secs(30);
            while kill % 2 == 0 && state.records().unwrap().is_empty() {
                assert!(Instant::now() < end, "the lender takes nothing");
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(random(if kill % 2 == 0 {
                400
            } else {
                2_500
            })));
            lender.kill();
            left += u32::from(found.heals(&format!("kill {kill}")) > 0);
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!(
        "{kills} kills, {left} of which left a record, {} reads meanwhile",
        reads.load(Ordering::Relaxed)
    );
    assert!(left > kills / 4 && reads.load(Ordering::Relaxed) > u64::from(kills));
}

/// The steps of a device. Those of claims are killed at in their own crate's tests, and here where `PELLUCID_TEST_KILLS` is set.
const DEVICE_STEPS: &[&str] = &[
    "override the driver",
    "unbind",
    "bind",
    "stop",
    "reset",
    "restore the override",
    "restore a setting",
];
const VF_STEPS: &[&str] = &[
    "keep host drivers off",
    "set the number of virtual functions",
    "set up the virtual function",
    "bind",
    "unbind",
    "let host drivers probe again",
];
