//! `vmm devices` on a real host, and what `vmm check` says of devices that are asked for together or by force.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::process::Command;

use support::host::{DATA, disk_of, driver_of};
use support::{Answer, Vmm, initrd, linux, tiny};

const NETWORK: &str = "0000:00:19.0";
const SATA: &str = "0000:00:1f.2";
const SMBUS: &str = "0000:00:1f.3";

fn check(vmm: &Vmm, devices: &[&str]) -> Answer {
    let kernel = linux::named("PELLUCID_KERNEL");
    let words = [
        "check", "--name", "a", "--cpus", "1", "--memory", "256M", "--kernel", &kernel,
    ];
    let devices = devices.iter().flat_map(|device| ["--device", device]);
    vmm.ask(words.into_iter().chain(devices))
}

#[test]
fn each_function_is_told_with_its_verdict_and_the_way_out() {
    let vmm = Vmm::new();
    let answer = vmm.ask(["devices", "--json"]);
    assert_eq!((answer.status, answer.err.as_str()), (Some(0), ""), "{answer:?}");
    let told: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert!(told["unready"].is_null());
    let rows = told["devices"].as_array().unwrap();
    let row = |device: &str| rows.iter().find(|row| row["advice"]["device"] == device).unwrap();
    assert_eq!(row(DATA)["advice"]["lend"], "yes");
    assert_eq!(row(DATA)["name"]["class"], "NVMe controller");
    assert_eq!(row(DATA)["function"]["driver"]["bound"], "nvme");
    assert_eq!(row("0000:00:02.0")["advice"]["lend"], "bridge");
    assert_eq!(row(NETWORK)["function"]["ids"]["device"], 0x10d3);
    let sata = &row(SATA)["advice"];
    assert_eq!(sata["lend"], "no");
    let way: Vec<_> = sata["in_the_way"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| &member["device"])
        .collect();
    assert_eq!(way, ["0000:00:1f.0", SMBUS]);
    let remedy = sata["reasons"][0]["remedy"].as_str().unwrap();
    assert!(remedy.contains("pci-stub"), "{remedy}");

    let answer = vmm.ask(["devices"]);
    assert_eq!(answer.status, Some(0));
    let table: Vec<&str> = answer.out.lines().collect();
    assert!(table[0].starts_with("DEVICE"), "{}", answer.out);
    let row = |device: &str| table.iter().find(|line| line.starts_with(device)).unwrap();
    assert!(
        row(DATA).contains(" nvme ") && row(DATA).contains(" yes "),
        "{}",
        answer.out
    );
    assert!(row(SATA).contains(" no "), "{}", answer.out);
    assert!(
        table.iter().all(|line| line.chars().count() <= 100),
        "{}",
        answer.out
    );
    assert!(vmm.claims().is_empty());
}

#[test]
fn part_of_a_group_is_refused_once_for_all_who_were_asked_for() {
    let vmm = Vmm::new();
    let [one, two] = [
        format!("{SATA},at=0000:00:10.0"),
        format!("{SMBUS},at=0000:00:11.0"),
    ];
    let answer = check(&vmm, &[&one, &two]);
    assert_eq!(answer.status, Some(1));
    assert_eq!(answer.err.lines().count(), 1, "{answer:?}");
    for part in [SATA, "also has 0000:00:1f.0", "park 0000:00:1f.0 on pci-stub"] {
        assert!(answer.err.contains(part), "{answer:?}");
    }
}

#[test]
fn force_is_for_the_device_that_is_named_and_check_says_what_it_overrides() {
    let vmm = Vmm::new();
    let disk = disk_of(DATA);
    let run = |program: &str| {
        let status = Command::new(program).arg(&disk).output().unwrap().status;
        assert!(status.success(), "{program}");
    };
    run("mkswap");
    run("swapon");
    let refused = check(&vmm, &[DATA]);
    let other = check(&vmm, &[DATA, &format!("{NETWORK},force")]);
    let forced = check(&vmm, &[&format!("{DATA},force")]);
    run("swapoff");
    let used = format!("{} is used as swap", disk.file_name().unwrap().display());
    assert_eq!(
        (refused.status, other.status),
        (Some(1), Some(1)),
        "{refused:?} {other:?}"
    );
    assert!(
        refused.err.contains(&used) && refused.err.contains("by force"),
        "{refused:?}"
    );
    assert_eq!((forced.status, forced.err.as_str()), (Some(0), ""), "{forced:?}");
    assert!(
        forced.out.contains(&format!("taken by force although {used}")),
        "{forced:?}"
    );
    assert_eq!(driver_of(DATA).as_deref(), Some("nvme"));
    assert_eq!(check(&vmm, &[DATA]).status, Some(0));
}

#[test]
fn an_initrd_without_the_driver_of_a_lent_controller_is_warned_of_before_the_boot() {
    let vmm = Vmm::new();
    let kernel = linux::named("PELLUCID_KERNEL");
    let check = |module: &str| {
        let names = [
            &format!("lib/modules/6/kernel/{module}.ko"),
            "lib/modules/6/modules.builtin",
        ];
        let path = vmm.file("initrd", &initrd::of_names(&names));
        let path = path.to_str().unwrap();
        let answer = vmm.ask([
            "check", "--name", "a", "--cpus", "1", "--memory", "256M", "--kernel", &kernel, "--initrd", path,
            "--device", DATA,
        ]);
        assert_eq!(answer.status, Some(0), "{answer:?}");
        answer.err
    };
    let warning = check("ahci");
    assert!(
        warning.contains("warning: NVMe controller ")
            && warning.contains(&format!("{DATA}: the initrd has no driver for it")),
        "{warning}"
    );
    assert_eq!(check("nvme"), "");
}

/// A controller's first interrupt may be placed; the others the kernel places itself.
#[test]
fn what_an_administrator_set_for_a_device_is_set_when_it_is_back() {
    let vmm = Vmm::new();
    let kernel = vmm.file("tiny", &tiny::kernel());
    disk_of(DATA);
    let power = format!("/sys/bus/pci/devices/{DATA}/power/control");
    let placed = || {
        let listing = std::fs::read_dir(format!("/sys/bus/pci/devices/{DATA}/msi_irqs")).ok()?;
        let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
        let first = listing.flatten().filter_map(number).min()?;
        Some(format!("/proc/irq/{first}/smp_affinity_list"))
    };
    let place = placed().unwrap();
    let before = std::fs::read_to_string(&power).unwrap();
    let other = if before.trim() == "on" { "auto" } else { "on" };
    std::fs::write(&place, "1").unwrap();
    std::fs::write(&power, other).unwrap();
    let mut server = vmm.start(
        "a",
        "64M",
        &["--kernel", kernel.to_str().unwrap(), "--device", DATA],
    );
    server.says(tiny::GREETING.trim_end());
    assert_eq!(driver_of(DATA).as_deref(), Some("vfio-pci"));
    server.types("q");
    assert_eq!(server.ends(), (Some(0), String::new()));
    assert_eq!(std::fs::read_to_string(&power).unwrap().trim(), other);
    disk_of(DATA);
    assert_eq!(std::fs::read_to_string(placed().unwrap()).unwrap().trim(), "1");
    std::fs::write(&power, before).unwrap();
}
