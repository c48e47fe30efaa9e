//! Linux as a logical server: its console, its ends, the NVMe controller it is lent, and what the host has afterwards.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use rustix::process::Signal;
use support::host::{BOOT, DATA, Pattern, driver_of};
use support::{Vmm, linux};

#[test]
fn linux_restarts_on_reboot_and_ends_on_power_off() {
    let vmm = Vmm::new();
    let mut server = linux::start(&vmm, "a", "", &[]);
    linux::to_shell(&mut server);
    assert_eq!(server.asks("echo $((6*7)); cat /proc/uptime | wc -w"), "42\n2");
    assert_eq!(server.asks("nproc; ls /sys/class/nvme"), "1");
    let megabytes: u64 = server
        .asks("grep MemTotal /proc/meminfo | tr -dc 0-9")
        .parse::<u64>()
        .unwrap()
        >> 10;
    assert!((180..256).contains(&megabytes), "{megabytes}");
    server.types("reboot -f\n");
    server.reports("starting it again");
    linux::to_shell(&mut server);
    server.types("poweroff -f\n");
    let (status, err) = server.ends();
    assert_eq!((status, err.lines().count()), (Some(0), 1), "{err}");
}

#[test]
fn linux_runs_on_the_controller_at_its_own_address_and_the_host_gets_it_back() {
    let vmm = Vmm::new();
    let pattern = Pattern::write(BOOT, vmm.scratch.path());
    let mut server = linux::start(&vmm, "a", "", &["--device", BOOT, "--no-reboot"]);
    linux::to_shell(&mut server);
    assert_eq!(driver_of(BOOT).as_deref(), Some("vfio-pci"));
    let path = server.asks("readlink -f /sys/class/nvme/nvme0/device");
    assert_eq!(path, "/sys/devices/pci0000:00/0000:00:02.0/0000:01:00.0");
    assert_eq!(server.asks("cat /sys/class/nvme/nvme0/serial"), "PELLUCID-BOOT");
    let sum = server.asks("head -c 8388608 /dev/nvme0n1 | md5sum | cut -c1-32");
    assert_eq!(sum, pattern.sum(8));
    // Written by the guest through DMA, and found by the host: the pattern's own first sectors, moved to the end.
    server.asks("dd if=/dev/nvme0n1 of=/tmp/x bs=1M count=1 skip=7");
    server.asks("dd if=/dev/zero of=/dev/nvme0n1 bs=1M count=1 seek=7 conv=fsync");
    server.asks("dd if=/tmp/x of=/dev/nvme0n1 bs=1M count=1 seek=7 conv=fsync");
    let counts = server.asks("grep -c 'PCI-MSI.*nvme0' /proc/interrupts");
    assert!(counts.parse::<u32>().unwrap() >= 2, "its vectors: {counts}");
    server.types("reboot -f\n");
    assert_eq!(server.ends(), (Some(3), String::new()));
    pattern.is_back();
    assert!(vmm.claims().is_empty());
}

#[test]
fn what_a_guest_wrote_to_its_disk_the_host_reads_afterwards() {
    let vmm = Vmm::new();
    let _pattern = Pattern::write(DATA, vmm.scratch.path());
    let line = "do=until_test_-b_/dev/nvme0n1;do_sleep_1;done;yes_pellucid|head_-c_8192|dd_of=/dev/nvme0n1_bs=8k_conv=fsync";
    let mut server = linux::start(&vmm, "a", line, &["--device", DATA]);
    server.says("init: status 0");
    assert_eq!(server.ends(), (Some(0), String::new()));
    let disk = support::host::disk_of(DATA);
    let mut start = [0; 18];
    let mut file = std::fs::File::open(disk).unwrap();
    std::io::Read::read_exact(&mut file, &mut start).unwrap();
    assert_eq!(&start, b"pellucid\npellucid\n");
}

#[test]
fn a_triple_fault_of_linux_is_status_4_and_the_controller_comes_back() {
    let vmm = Vmm::new();
    let pattern = Pattern::write(DATA, vmm.scratch.path());
    let server = linux::start(&vmm, "a", "reboot=t do=reboot", &["--device", DATA]);
    let (status, err) = server.ends();
    assert_eq!((status, err.lines().count()), (Some(4), 1), "{err}");
    assert!(
        err.contains("the guest crashed: ") && err.contains("vCPU 0"),
        "{err}"
    );
    pattern.is_back();
}

#[test]
fn the_power_button_shuts_linux_down_and_the_controller_comes_back() {
    let vmm = Vmm::new();
    let pattern = Pattern::write(DATA, vmm.scratch.path());
    let mut server = linux::start(&vmm, "a", "", &["--device", DATA]);
    linux::to_shell(&mut server);
    let pressed = "grep -q '^ *[1-9]' /sys/firmware/acpi/interrupts/ff_pwr_btn";
    server.types(&format!(
        "echo wa''iting; until {pressed}; do sleep 1; done; poweroff -f\n"
    ));
    server.says("waiting\r\n");
    assert_eq!(vmm.ask(["stop", "a"]).status, Some(0));
    let (status, err) = server.ends();
    assert_eq!((status, err.lines().count()), (Some(0), 1), "{err}");
    pattern.is_back();
}

#[test]
fn a_second_request_stops_linux_in_the_middle_of_its_reads_and_the_controller_comes_back() {
    let vmm = Vmm::new();
    let pattern = Pattern::write(DATA, vmm.scratch.path());
    let line = "do=echo_reads;while_:;do_dd_if=/dev/nvme0n1_of=/dev/null_bs=64k;done";
    let mut server = linux::start(&vmm, "a", line, &["--device", DATA]);
    server.says("1024+0 records in");
    server.signal(Signal::TERM);
    server.reports("asking the guest to power off");
    server.says("1024+0 records in");
    server.signal(Signal::TERM);
    let (status, err) = server.ends();
    assert_eq!((status, err.lines().count()), (Some(1), 2), "{err}");
    pattern.is_back();
    assert!(vmm.claims().is_empty());
}

#[test]
fn two_servers_run_at_once_on_a_controller_each() {
    let vmm = Vmm::new();
    let (boot, data) = (
        Pattern::write(BOOT, vmm.scratch.path()),
        Pattern::write(DATA, vmm.scratch.path()),
    );
    let line = "do=until_cat_/sys/class/nvme/nvme0/serial;do_sleep_1;done";
    let mut one = linux::start(&vmm, "a", line, &["--device", BOOT]);
    let mut two = linux::start(&vmm, "b", line, &["--device", "0000:02:00.0,at=0000:01:00.0"]);
    one.says("PELLUCID-BOOT");
    two.says("PELLUCID-DATA");
    assert_eq!(one.ends(), (Some(0), String::new()));
    assert_eq!(two.ends(), (Some(0), String::new()));
    boot.is_back();
    data.is_back();
}
