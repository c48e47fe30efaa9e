//! Which machine a guest finds itself on: its host's names, its share of the host's nodes, a clock that wakes it, and tables that its
//! kernel has nothing to say against.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::collections::BTreeMap;
use std::fs;

use support::{Server, Vmm, linux};

const CARD: &str = "0000:00:19.0";

#[test]
fn a_guest_finds_its_hosts_names_its_nodes_and_its_clock_and_its_kernel_no_fault() {
    let vmm = Vmm::new();
    let offset = vmm.scratch.path().join("a.rtc");
    let (kernel, initrd) = (linux::named("PELLUCID_KERNEL"), linux::named("PELLUCID_INITRD"));
    // A CPU of each node, and so memory of both.
    let words = [
        "run", "--name", "a", "--cpus", "1,3", "--memory", "512M", "--device", CARD,
    ];
    let boot = [
        "--kernel",
        &kernel,
        "--initrd",
        &initrd,
        "--cmdline",
        "console=ttyS0 quiet",
    ];
    let clock = ["--rtc-offset", offset.to_str().unwrap()];
    let mut server = Server::start(vmm.command([&words[..], &boot, &clock].concat()));
    linux::to_shell(&mut server);
    is_called_as_its_host(&mut server);
    knows_its_nodes(&mut server);
    its_kernel_has_no_complaint(&mut server);
    is_woken_by_its_clock(&mut server);
    server.asks("date -u -s @$(($(date +%s) + 7200)); hwclock -u -w");
    server.types("poweroff -f\n");
    // An emulated host takes CPUs from its guest now and then, which is told and is not what this is about.
    let (status, err) = server.ends();
    assert!(status == Some(0) && !err.contains("warning"), "{status:?}: {err}");
    let kept: i64 = fs::read_to_string(&offset).unwrap().trim().parse().unwrap();
    assert!((7190..7210).contains(&kept), "{kept}");
}

/// All of `/sys/class/dmi/id`, and what names the onboard card `eno1`; nothing of the owner's own.
fn is_called_as_its_host(server: &mut Server) {
    let of_host: BTreeMap<String, String> = fs::read_dir("/sys/class/dmi/id")
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let text = fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), text.trim().to_owned())
        })
        .collect();
    assert_eq!(
        (of_host["product_serial"].as_str(), of_host["sys_vendor"].as_str()),
        ("PELLUCID-L1", "Pellucid")
    );
    let said =
        server.asks("cd /sys/class/dmi/id; for f in *; do test -f $f && echo $f=$(cat $f); done; cd /");
    let of_guest: BTreeMap<String, String> = said
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, text)| (name.to_owned(), text.trim().to_owned()))
        .collect();
    assert_eq!(of_guest, of_host);
    let card = format!("/sys/bus/pci/devices/{CARD}");
    assert_eq!(
        server.asks(&format!("cat {card}/index {card}/label")),
        "1\nOnboard NIC 1"
    );
    let table = fs::read("/sys/firmware/dmi/tables/DMI").unwrap();
    let secret = b"for the owner alone";
    assert!(table.windows(secret.len()).any(|bytes| bytes == secret));
    assert_eq!(
        server.asks("grep -c 'for the owner alone' /sys/firmware/dmi/tables/DMI"),
        "0"
    );
}

fn knows_its_nodes(server: &mut Server) {
    let nodes = "/sys/devices/system/node";
    assert_eq!(server.asks(&format!("cat {nodes}/online")), "0-1");
    assert_eq!(
        server.asks(&format!("cat {nodes}/node0/cpulist {nodes}/node1/cpulist")),
        "0\n1"
    );
    let distance = |node: u32| {
        fs::read_to_string(format!("{nodes}/node{node}/distance"))
            .unwrap()
            .trim()
            .to_owned()
    };
    let of_guest = server.asks(&format!("cat {nodes}/node0/distance {nodes}/node1/distance"));
    assert_eq!(of_guest, format!("{}\n{}", distance(0), distance(1)));
}

/// Not a word of fault about ACPI, SMBIOS or firmware; none is tolerated.
fn its_kernel_has_no_complaint(server: &mut Server) {
    let faults = "ACPI.*(error|warning|invalid|fail|exception|not used)|AE_|firmware (bug|warn)|(SRAT|SLIT|DMI|SMBIOS).*(invalid|fail|not )";
    assert_eq!(server.asks(&format!("dmesg | grep -iE '{faults}'")), "");
    let tables = server.asks("dmesg | grep -cE 'ACPI: (RSDP|XSDT|FACP|DSDT|APIC|MCFG|SRAT|SLIT) '");
    assert_eq!(
        tables, "8",
        "all were read, and the search finds what the kernel says"
    );
}

fn is_woken_by_its_clock(server: &mut Server) {
    let interrupts = "$(awk '/rtc0/ {print $2 + $3}' /proc/interrupts)";
    assert_eq!(server.asks(&format!("echo {interrupts}")), "0");
    server.asks("echo +3 >/sys/class/rtc/rtc0/wakealarm");
    let waited = format!(
        "i=0; until test {interrupts} != 0 -o $i = 60; do sleep 1; i=$((i+1)); done; echo {interrupts}"
    );
    assert_eq!(server.asks(&waited), "1");
    assert_eq!(
        server.asks("cat /sys/class/rtc/rtc0/wakealarm"),
        "",
        "it came and is over"
    );
}
