//! Devices that are not lent: one line that names subject, cause and remedy, and every driver where it was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::process::Command;

use support::host::{BOOT, DATA, Pattern, disk_of, driver_of};
use support::lent::Card;
use support::{Answer, Vmm, eventually, linux};

/// Words of a server that wants `device`.
fn wanting(act: &str, name: &str, device: &str) -> Vec<String> {
    let kernel = linux::named("PELLUCID_KERNEL");
    let words = [
        act, "--name", name, "--cpus", "1", "--memory", "256M", "--kernel", &kernel, "--device", device,
    ];
    words.map(str::to_owned).to_vec()
}

/// `vmm run` refuses the device with one line, `vmm check` with the same line, and no driver changes.
#[track_caller]
fn refused(vmm: &Vmm, device: &str, parts: &[&str]) {
    let drivers = || [BOOT, DATA, "0000:00:05.0", "0000:00:19.0", "0000:00:1f.2"].map(driver_of);
    let before = drivers();
    let run = vmm.ask(wanting("run", "a", device));
    run.refuses(parts);
    let check = vmm.ask(wanting("check", "a", device));
    assert_eq!((check.status, &check.err), (Some(1), &run.err));
    assert_eq!(drivers(), before);
    assert!(!vmm.claims().iter().any(|row| row["claim"]["partition"] == "a"));
}

#[test]
fn what_is_no_device_to_lend_is_refused_with_the_reason() {
    let vmm = Vmm::new();
    refused(
        &vmm,
        "0000:77:00.0",
        &["0000:77:00.0", "no such PCI function", "lspci"],
    );
    refused(&vmm, "0000:00:02.0", &["0000:00:02.0", "bridge", "behind it"]);
    refused(
        &vmm,
        "0000:00:1f.2",
        &["0000:00:1f.2", "IOMMU group", "0000:00:1f.3", "whole group"],
    );
    refused(
        &vmm,
        &format!("{DATA},at=0000:00:1f.0"),
        &["0000:00:1f.0", "LPC bridge", "at=BDF"],
    );
    // The port above the controller is in the guest, too.
    let beside = ["--device", "0000:00:19.0,at=0000:02:01.0"].map(str::to_owned);
    let both = vmm.ask(wanting("run", "a", DATA).into_iter().chain(beside));
    both.refuses(&["0000:02:01.0", "behind a port", "free there: 0000:02:00.1"]);
    refused(
        &vmm,
        &format!("{DATA},at=0001:00:04.0"),
        &["0001:00:04.0", "domain 0000"],
    );
}

#[test]
fn a_disk_that_the_host_has_mounted_is_refused_until_it_is_not() {
    let vmm = Vmm::new();
    let disk = disk_of(DATA);
    let mount = vmm.path("mounted");
    std::fs::create_dir(&mount).unwrap();
    run("mkfs.ext4", &["-q", "-F", disk.to_str().unwrap()]);
    run("mount", &[disk.to_str().unwrap(), mount.to_str().unwrap()]);
    refused(&vmm, DATA, &[DATA, mount.to_str().unwrap(), "unmount"]);
    std::fs::write(mount.join("still"), "here").unwrap();
    run("umount", &[mount.to_str().unwrap()]);
    let answer = vmm.ask(wanting("check", "a", DATA));
    assert_eq!((answer.status, answer.err.as_str()), (Some(0), ""), "{answer:?}");
}

#[test]
fn a_card_that_the_hosts_way_out_leads_through_is_refused_until_it_does_not() {
    let vmm = Vmm::new();
    let card = Card::at("0000:00:19.0");
    let name = card.name();
    run("ip", &["link", "set", &name, "up"]);
    run("ip", &["addr", "add", "10.0.2.17/24", "dev", &name]);
    run(
        "ip",
        &["route", "add", "default", "via", "10.0.2.2", "dev", &name],
    );
    refused(&vmm, &card.at, &[&card.at, &name, "default route", "by force"]);
    // The network's router has given it another by IPv6 meanwhile; both go with the link.
    run("ip", &["addr", "flush", "dev", &name]);
    run("ip", &["link", "set", &name, "down"]);
    let answer = vmm.ask(wanting("check", "a", &card.at));
    assert_eq!((answer.status, answer.err.as_str()), (Some(0), ""), "{answer:?}");
}

#[test]
fn a_device_in_use_by_another_server_names_holder_and_process() {
    let vmm = Vmm::new();
    let pattern = Pattern::write(DATA, vmm.scratch.path());
    let holder = linux::start(&vmm, "holder", "do=sleep_600", &["--device", DATA]);
    eventually("vfio-pci", || {
        (driver_of(DATA).as_deref() == Some("vfio-pci")).then_some(())
    });
    let pid = holder.pid().to_string();
    refused(&vmm, DATA, &[DATA, "\"holder\"", &pid, "stop that first"]);
    let answer = vmm.ask(wanting("run", "holder", BOOT));
    answer.refuses(&["partition holder", "\"holder\"", &pid]);
    let heal = vmm.ask(["heal"]);
    assert_eq!(
        (heal.status, heal.out.contains("in use, left alone")),
        (Some(0), true),
        "{heal:?}"
    );
    assert_eq!(driver_of(DATA).as_deref(), Some("vfio-pci"));
    let kinds: Vec<_> = vmm
        .claims()
        .iter()
        .map(|row| {
            (
                row["claim"]["resource"]["kind"].as_str().unwrap().to_owned(),
                row["alive"] == true,
            )
        })
        .collect();
    assert_eq!(
        kinds,
        [("device".to_owned(), true), ("partition".to_owned(), true)]
    );
    assert_eq!(vmm.ask(["stop", "holder", "--force"]).status, Some(0));
    assert_eq!(holder.ends().0, None);
    assert_eq!(vmm.ask(["heal"]).status, Some(0));
    pattern.is_back();
}

#[test]
fn a_host_without_vfio_says_which_modules_are_missing() {
    let vmm = Vmm::new();
    let hide = "mount -t tmpfs none /dev/vfio && exec \"$VMM\" \"$@\"";
    let words = wanting("run", "a", DATA);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    Answer::of(&mut vmm.scripted(&["unshare", "--mount"], hide, &words)).refuses(&[
        DATA,
        "/dev/vfio/vfio",
        "modprobe",
    ]);
    run("rmmod", &["vfio_pci"]);
    let answer = vmm.ask(&words);
    // The emulated server's modules are in the root of its init.
    run("insmod", &["/proc/1/root/modules/vfio-pci.ko"]);
    answer.refuses(&[DATA, "vfio-pci is not loaded", "modprobe vfio-pci"]);
    assert_eq!(driver_of(DATA).as_deref(), Some("nvme"));
}

#[test]
fn a_user_without_permission_is_told_of_each_thing_that_is_closed() {
    let vmm = Vmm::new();
    support::host::open_to_all(vmm.scratch.path());
    std::fs::copy(&vmm.program, vmm.path("vmm")).unwrap();
    vmm.file("kernel", &support::tiny::kernel());
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let answer = |act: &str, limit: &str| {
        let words = [
            act, "--name", "a", "--cpus", "1", "--memory", "16M", "--kernel", "kernel", "--device", DATA,
        ];
        // Nor may it read the SMBIOS tables, of which it is warned; this is about what it is refused.
        let own = "PELLUCID_STATE_DIR=$PWD/own; export PELLUCID_STATE_DIR; exec ./vmm \"$@\" --smbios none";
        let script = format!("ulimit -l {limit}; {own}");
        Answer::of(&mut vmm.scripted(&nobody, &script, &words))
    };
    let closed = [Mode::of("/dev/kvm", 0o600), Mode::of("/dev/vfio/vfio", 0o600)];
    let check = answer("check", "64");
    assert_eq!(check.status, Some(1), "{check:?}");
    let lines: Vec<_> = check.err.lines().collect();
    for subject in ["/dev/kvm", "/dev/vfio/vfio", "RLIMIT_MEMLOCK"] {
        let told = lines.iter().filter(|line| line.contains(subject)).count();
        assert_eq!(told, 1, "{subject}: {lines:#?}");
    }
    assert_eq!(lines.len(), 3, "{lines:#?}");
    answer("run", "64").refuses(&["/dev/kvm", "Permission denied"]);
    drop(closed);
    let _open = [Mode::of("/dev/kvm", 0o666), Mode::of("/dev/vfio/vfio", 0o666)];
    answer("run", "unlimited").refuses(&[DATA, "Permission denied", "root"]);
    assert_eq!(driver_of(DATA).as_deref(), Some("nvme"));
}

/// A device node with another mode, until dropped.
struct Mode {
    node: &'static str,
    before: std::fs::Permissions,
}

impl Mode {
    fn of(node: &'static str, mode: u32) -> Self {
        let before = std::fs::metadata(node).unwrap().permissions();
        let wanted = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(node, wanted).unwrap();
        Self { node, before }
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        let _gone_with_the_machine = std::fs::set_permissions(self.node, self.before.clone());
    }
}

#[test]
fn the_inventory_says_of_every_function_whether_it_can_be_lent() {
    let vmm = Vmm::new();
    let answer = vmm.ask(["inventory"]);
    assert_eq!((answer.status, answer.err.as_str()), (Some(0), ""), "{answer:?}");
    let verdict = |device: &str| {
        let line = answer.out.lines().find(|line| line.starts_with(device));
        line.unwrap_or_else(|| panic!("{device} is missing: {answer:?}"))
            .to_owned()
    };
    assert!(verdict(BOOT).ends_with("can be lent") && verdict(BOOT).contains("nvme"));
    assert!(verdict("0000:00:02.0").contains("it is a bridge"));
    assert!(verdict("0000:00:1f.2").contains("IOMMU group"));
    let report: serde_json::Value = serde_json::from_str(&vmm.ask(["inventory", "--json"]).out).unwrap();
    assert_eq!(
        report["pci"]["functions"][BOOT]["driver"]["bound"], "nvme",
        "{report:#}"
    );
    assert!(
        report["host"]["kvm"]["Ok"]["max_vcpus"].as_u64().is_some(),
        "{report:#}"
    );
}

#[test]
fn the_plan_of_a_server_with_a_device_is_shown_and_touches_nothing() {
    let vmm = Vmm::new();
    let mut words = wanting("check", "a", DATA);
    let answer = vmm.ask(&words);
    assert!(
        answer.out.contains(&format!("{DATA} as {DATA}")) && answer.out.contains("from nvme"),
        "{answer:?}"
    );
    words.push("--json".to_owned());
    let answer = vmm.ask(&words);
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let plan: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(plan["devices"][0]["guest"], DATA);
    assert_eq!(plan["devices"][0]["driver"], "nvme");
    assert_eq!(plan["refusals"].as_array().unwrap().len(), 0);
    assert_eq!(driver_of(DATA).as_deref(), Some("nvme"));
    assert_eq!(std::fs::read_dir(vmm.state()).unwrap().count(), 0);
}

#[track_caller]
fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
