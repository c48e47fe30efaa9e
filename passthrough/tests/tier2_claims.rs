//! Devices of a real host: what is refused, what a killed holder leaves, and that every kind of device comes back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "scene/mod.rs"]
mod scene;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pellucid_partition::{HealOutcome, StateDir};
use pellucid_passthrough::{Inventory, IoSpace, PciHealer, Refusal, RegionIndex, Use};
use scene::{bdf, disk_of, driver_of, first_block, state};

const DATA: &str = "0000:02:00.0";
const NETWORK: &str = "0000:00:19.0";

#[test]
fn each_refusal_on_a_real_host_names_its_cause_and_changes_nothing() {
    let host = Inventory::survey().unwrap();
    let refusal = |device: &str| host.admit(bdf(device)).unwrap_err();
    assert!(matches!(refusal("0000:77:00.0"), Refusal::NoSuchFunction { .. }));
    assert!(matches!(refusal("0000:00:03.0"), Refusal::Bridge { .. }));
    let Refusal::SharedGroup { others, .. } = refusal("0000:00:1f.2") else {
        panic!("it shares a group")
    };
    let names: Vec<&str> = others.iter().map(|member| member.device.as_str()).collect();
    assert_eq!(names, ["0000:00:1f.0", "0000:00:1f.3"]);
    assert_eq!(Inventory::survey().unwrap(), host);
}

#[test]
fn a_disk_in_use_is_found_and_free_once_it_is_not() {
    let disk = disk_of(DATA);
    let run = |program: &str| {
        let status = Command::new(program)
            .arg(&disk)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "{program}");
    };
    run("mkswap");
    run("swapon");
    let refusal = Inventory::survey().unwrap().admit(bdf(DATA)).unwrap_err();
    run("swapoff");
    let Refusal::InUse { uses, .. } = &refusal else {
        panic!("{refusal}")
    };
    let device = disk.file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(*uses, [Use::Swap { device }]);
    assert!(Inventory::survey().unwrap().admit(bdf(DATA)).is_ok());
}

#[test]
fn every_device_comes_back_to_its_driver_from_every_stage() {
    let (_directory, state) = state();
    let devices = [
        (DATA, Some("nvme")),
        (NETWORK, Some("e1000e")),
        ("0000:00:05.0", None),
    ];
    for (device, driver) in devices {
        let claim = || {
            Inventory::survey()
                .unwrap()
                .admit(bdf(device))
                .unwrap()
                .claim(&state, "db1")
                .unwrap()
        };
        drop(claim());
        assert_eq!(driver_of(device).as_deref(), driver);
        drop(claim().bind(&IoSpace::open().unwrap()).unwrap());
        assert_eq!(driver_of(device).as_deref(), driver);
        let bound = claim().bind(&IoSpace::open().unwrap()).unwrap();
        let mut command = [0; 2];
        bound
            .transport()
            .read(RegionIndex::Config, 4, &mut command)
            .unwrap();
        assert_eq!(command[0] & 7, 0, "neither decoding nor DMA");
        bound.release().unwrap();
        assert_eq!(driver_of(device).as_deref(), driver);
    }
    assert!(state.records().unwrap().is_empty());
}

#[test]
fn two_devices_share_one_address_space() {
    let (_directory, state) = state();
    let space = IoSpace::open().unwrap();
    let bind = |device| {
        Inventory::survey()
            .unwrap()
            .admit(bdf(device))
            .unwrap()
            .claim(&state, "db1")
            .unwrap()
            .bind(&space)
    };
    let (one, two) = (bind(DATA).unwrap(), bind(NETWORK).unwrap());
    assert_eq!(
        space.iova_ranges().unwrap().last().map(|range| *range.end()),
        Some((1 << 39) - 1)
    );
    assert_eq!(Inventory::survey().unwrap().iommu_bits, Some(39));
    one.release().unwrap();
    two.release().unwrap();
    assert_eq!(driver_of(NETWORK).as_deref(), Some("e1000e"));
}

#[test]
fn a_device_in_use_names_its_holder_and_stays_with_it() {
    let (_directory, state) = state();
    let claim = |name| {
        Inventory::survey()
            .unwrap()
            .admit(bdf(DATA))
            .unwrap()
            .claim(&state, name)
    };
    let held = claim("db1").unwrap();
    let refusal = claim("db2").unwrap_err().to_string();
    assert!(refusal.contains("db1") && refusal.contains(DATA), "{refusal}");
    let report = state.heal(&[&PciHealer::new()], false).unwrap();
    assert!(matches!(report[0].outcome, HealOutcome::InUse));
    assert_eq!(driver_of(DATA).as_deref(), Some("vfio-pci"));
    held.release().unwrap();
}

/// What the child of the next test does: takes the device and waits for its end.
fn hold(state: &Path) -> ! {
    let state = StateDir::at(state).unwrap();
    println!("claiming");
    let claimed = Inventory::survey()
        .unwrap()
        .admit(bdf(DATA))
        .unwrap()
        .claim(&state, "db1")
        .unwrap();
    println!("claimed");
    let _bound = claimed.bind(&IoSpace::open().unwrap()).unwrap();
    println!("bound");
    loop {
        std::thread::park();
    }
}

fn holder(state: &Path) -> Child {
    let own = std::env::current_exe().unwrap();
    let arguments = [
        "--exact",
        "a_killed_holder_loses_no_device_at_any_moment",
        "--nocapture",
    ];
    let child = Command::new(own)
        .args(arguments)
        .env(HOLD, state)
        .stdout(Stdio::piped())
        .spawn();
    child.unwrap()
}

#[test]
fn a_killed_holder_loses_no_device_at_any_moment() {
    if let Some(state) = std::env::var_os(HOLD) {
        hold(Path::new(&state));
    }
    let block = first_block(DATA);
    let (directory, state) = state();
    let moments = [
        ("claiming", 0),
        ("claiming", 3),
        ("claiming", 20),
        ("claiming", 60),
        ("claimed", 0),
        ("claimed", 10),
        ("bound", 0),
    ];
    for (line, more_ms) in moments {
        let mut child = holder(&directory.path().join("state"));
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        assert!(
            lines.any(|said| said.ends_with(line)),
            "the holder did not come to {line}"
        );
        std::thread::sleep(Duration::from_millis(more_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        for entry in state.heal(&[&PciHealer::new()], false).unwrap() {
            assert!(
                matches!(entry.outcome, HealOutcome::Healed | HealOutcome::NothingToUndo),
                "{entry:?}"
            );
        }
        assert_eq!(
            driver_of(DATA).as_deref(),
            Some("nvme"),
            "killed {more_ms} ms after {line}"
        );
        assert!(state.records().unwrap().is_empty());
        assert_eq!(first_block(DATA), block);
    }
}

const HOLD: &str = "PELLUCID_TEST_HOLD";
