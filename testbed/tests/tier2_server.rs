//! The emulated server as a test finds it from within: its devices, its IOMMU, what
//! may be written, and a device that goes to vfio-pci and comes back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .trim()
        .to_owned()
}

fn nvme_at(address: &str) -> Option<String> {
    let entry = fs::read_dir(format!("/sys/bus/pci/devices/{address}/nvme"))
        .ok()?
        .flatten()
        .next()?;
    Some(entry.file_name().into_string().unwrap())
}

fn within_five_seconds<T>(what: &str, attempt: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within 5 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn both_nvme_controllers_are_where_the_machine_says() {
    for (address, serial) in [
        ("0000:01:00.0", "PELLUCID-BOOT"),
        ("0000:02:00.0", "PELLUCID-DATA"),
    ] {
        let name = within_five_seconds("the nvme driver's start", || nvme_at(address));
        assert_eq!(read(&format!("/sys/class/nvme/{name}/serial")), serial);
        assert!(Path::new(&format!("/sys/bus/pci/devices/{address}/iommu_group")).exists());
    }
}

#[test]
fn other_devices_are_on_the_root_bus() {
    assert_eq!(read("/sys/bus/pci/devices/0000:00:05.0/vendor"), "0x1234", "edu");
    assert_eq!(
        read("/sys/bus/pci/devices/0000:00:19.0/device"),
        "0x10d3",
        "e1000e"
    );
}

#[test]
fn kvm_nests_on_amd() {
    assert!(Path::new("/dev/kvm").exists());
    assert!(Path::new("/sys/module/kvm_amd").exists());
}

#[test]
fn only_the_share_and_memory_can_be_written() {
    assert!(fs::write("/usr/pellucid-was-here", "x").is_err());
    fs::write("/tmp/pellucid-scratch", "x").unwrap();
    fs::write("/run/testbed/scratch", "x").unwrap();
    assert_eq!(read("/run/testbed/scratch"), "x");
    fs::remove_file("/run/testbed/scratch").unwrap();
}

#[test]
fn the_vmm_and_the_guest_of_the_tests_are_named_and_readable() {
    for name in ["PELLUCID_KERNEL", "PELLUCID_INITRD"] {
        let path = std::env::var(name).unwrap();
        assert!(fs::metadata(&path).unwrap().len() > 1 << 20, "{path}");
    }
}

#[test]
fn a_task_that_was_ended_leaves_no_zombie_of_its_child() {
    let child = Command::new("sh")
        .args(["-c", "sleep 300 >/dev/null 2>&1 & echo $!"])
        .output()
        .unwrap();
    let orphan = String::from_utf8(child.stdout).unwrap().trim().to_owned();
    assert!(Command::new("kill").arg(&orphan).status().unwrap().success());
    let folder = format!("/proc/{orphan}");
    within_five_seconds("the orphan's end", || {
        (!Path::new(&folder).exists()).then_some(())
    });
}

#[test]
fn a_controller_goes_to_vfio_and_comes_back_with_its_disk() {
    let device = "/sys/bus/pci/devices/0000:02:00.0";
    within_five_seconds("the nvme driver's start", || nvme_at("0000:02:00.0"));
    fs::write(format!("{device}/driver_override"), "vfio-pci").unwrap();
    fs::write(format!("{device}/driver/unbind"), "0000:02:00.0").unwrap();
    fs::write("/sys/bus/pci/drivers_probe", "0000:02:00.0").unwrap();
    let group = fs::read_link(format!("{device}/iommu_group")).unwrap();
    let group = Path::new("/dev/vfio").join(group.file_name().unwrap());
    assert!(group.exists(), "{}", group.display());
    fs::write(format!("{device}/driver/unbind"), "0000:02:00.0").unwrap();
    assert!(!group.exists());
    fs::write(format!("{device}/driver_override"), "\n").unwrap();
    fs::write("/sys/bus/pci/drivers_probe", "0000:02:00.0").unwrap();
    let name = within_five_seconds("the nvme driver's return", || nvme_at("0000:02:00.0"));
    let disk = within_five_seconds("the disk's return", || fs::read(format!("/dev/{name}n1")).ok());
    assert_eq!(disk.len(), 64 << 20);
}
