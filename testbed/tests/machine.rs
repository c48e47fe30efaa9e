//! A machine and the command line it becomes. Needs no emulator: a script stands in
//! for one and answers the two questions of the probe.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/program.rs"]
mod program;

use std::path::Path;

use pellucid_testbed::machine::{Chardev, Share};
use pellucid_testbed::{Boot, Device, Disk, Emulator, Machine, Place};

fn emulator(folder: &Path, version: &str, devices: &[&str]) -> Emulator {
    let path = folder.join(format!("qemu-{version}"));
    let cases: String = devices
        .iter()
        .map(|name| format!("{name},help) exit 0 ;;\n"))
        .collect();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo QEMU emulator version {version} && exit\n\
         case $2 in\n{cases}*) exit 1 ;;\nesac\n"
    );
    program::write(&path, &script);
    Emulator::probe(&path).unwrap()
}

fn line(machine: &Machine) -> String {
    let folder = tempfile::tempdir().unwrap();
    let command = machine
        .command(&emulator(folder.path(), "10.0.2", &["igb"]), folder.path())
        .unwrap();
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

fn refusal(machine: &Machine) -> String {
    let folder = tempfile::tempdir().unwrap();
    let emulator = emulator(folder.path(), "7.2.0", &["nvme"]);
    machine.command(&emulator, folder.path()).unwrap_err().to_string()
}

#[test]
fn the_standard_machine_has_its_devices_at_their_addresses() {
    let line = line(&Machine::standard());
    for part in [
        "-machine q35,kernel-irqchip=split",
        "-accel tcg,thread=multi",
        "-cpu max,+svm",
        "-smp 2 -m 4096",
        "intel-iommu,intremap=on,aw-bits=39",
        "pcie-root-port,id=port2,bus=pcie.0,addr=0x2,chassis=2,slot=2",
        "serial=PELLUCID-BOOT,bus=port2",
        "serial=PELLUCID-DATA,bus=port3",
        "edu,bus=pcie.0,addr=0x5.0x0",
        "bus=pcie.0,addr=0x19.0x0",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    let iommu = line.find("intel-iommu").unwrap();
    assert!(
        iommu < line.find("nvme").unwrap(),
        "the IOMMU must stand before what it translates for"
    );
}

#[test]
fn a_wider_iommu_and_more_nodes_are_asked_for() {
    let line = line(
        &Machine::bare()
            .iommu_width(48)
            .cpus(4)
            .memory_mib(2048)
            .numa_nodes(2),
    );
    assert!(line.contains("aw-bits=48"), "{line}");
    assert!(line.contains("node,nodeid=1,cpus=2-3,memdev=ram1"), "{line}");
    assert!(line.contains("memory-backend-ram,id=ram0,size=1024M"), "{line}");
}

#[test]
fn a_tickless_machine_tells_its_kernel_and_only_that() {
    let text = line(&Machine::standard().tickless("1"));
    assert!(text.contains(" nohz_full=1 rcu_nocbs=1"), "{text}");
    assert!(!line(&Machine::standard()).contains("nohz_full"));
}

#[test]
fn firmware_boots_from_flash_and_needs_no_kernel() {
    let boot = Boot::Firmware {
        code: "/fw/code.fd".into(),
        variables: "/run/a,b.fd".into(),
    };
    let line = line(
        &Machine::bare()
            .boot(boot)
            .console(Chardev::Socket("/run/c".into())),
    );
    assert!(
        line.contains("unit=0,format=raw,readonly=on,file=/fw/code.fd"),
        "{line}"
    );
    assert!(
        line.contains("unit=1,format=raw,file=/run/a,,b.fd"),
        "a comma is doubled: {line}"
    );
    assert!(
        line.contains("socket,id=serial,server=on,wait=off,path=/run/c"),
        "{line}"
    );
    assert!(!line.contains("-kernel"), "{line}");
}

#[test]
fn channels_shares_and_the_monitor_are_wired() {
    let mut machine = Machine::bare().monitor("/run/m");
    machine
        .ports
        .push(("pellucid.control".into(), "/run/control".into()));
    machine.terminal = Some("/run/t".into());
    machine.shares.push(Share {
        tag: "host".into(),
        path: "/".into(),
        writable: false,
    });
    machine.shares.push(Share {
        tag: "share".into(),
        path: "/s".into(),
        writable: true,
    });
    let line = line(&machine);
    assert!(
        line.contains("virtserialport,bus=channels.0,chardev=port0,name=pellucid.control"),
        "{line}"
    );
    assert!(
        line.contains("virtconsole,bus=channels.0,chardev=terminal"),
        "{line}"
    );
    assert!(
        line.contains("path=/,security_model=none,multidevs=remap,readonly=on"),
        "{line}"
    );
    assert!(
        line.contains("path=/s,security_model=none,multidevs=remap -device"),
        "{line}"
    );
    assert!(line.contains("-mon chardev=monitor,mode=control"), "{line}");
}

#[test]
fn a_scratch_disk_is_made_and_another_image_keeps_or_loses_its_writes() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, b"disk").unwrap();
    let emulator = emulator(folder.path(), "10.0.2", &[]);
    let words = |disk| {
        let machine = Machine::standard().disk("PELLUCID-BOOT", disk);
        let command = machine.command(&emulator, folder.path()).unwrap();
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert!(words(Disk::Discarded(image.clone())).contains("image,snapshot=on"));
    assert!(words(Disk::Kept(image)).contains("image,snapshot=off"));
    assert_eq!(
        folder.path().join("scratch1.img").metadata().unwrap().len(),
        64 << 20
    );
}

#[test]
fn a_missing_image_is_refused_by_name() {
    let machine = Machine::standard().disk("PELLUCID-BOOT", Disk::Kept("/no/such/image".into()));
    assert!(refusal(&machine).contains("/no/such/image"));
}

#[test]
fn an_emulator_without_igb_is_told_from_one_that_has_it() {
    let machine = Machine::bare().device(Device::Igb {
        place: Place::port(4),
    });
    let text = refusal(&machine);
    assert!(
        text.contains("igb") && text.contains("7.2") && text.contains("8.0"),
        "{text}"
    );
    assert!(line(&machine).contains("igb,netdev=net0"));
}

#[test]
fn two_devices_at_one_address_are_refused() {
    let device = Device::Edu {
        place: Place::root(5),
    };
    assert!(refusal(&Machine::standard().device(device)).contains("00:05.0"));
    let chipset = Device::Edu {
        place: Place::root(0x1f),
    };
    assert!(refusal(&Machine::bare().device(chipset)).contains("00:1f.0"));
}

#[test]
fn numbers_out_of_range_are_refused_with_what_is_accepted() {
    for (machine, accepted) in [
        (Machine::bare().cpus(0), "1 to 64"),
        (Machine::bare().memory_mib(1), "512"),
        (Machine::bare().iommu_width(40), "39 or 48"),
        (Machine::bare().numa_nodes(3), "divisor"),
        (Machine::bare().numa_nodes(0), "divisor"),
    ] {
        let text = refusal(&machine);
        assert!(text.contains(accepted), "{text}");
    }
}
