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
        "-smp 3 -m 4096",
        "intel-iommu,intremap=on,aw-bits=39",
        "pcie-root-port,id=port2,bus=pcie.0,addr=0x2,chassis=2,slot=2,x-speed=5",
        "serial=PELLUCID-BOOT,bus=port2",
        "serial=PELLUCID-DATA,bus=port3",
        "edu,id=device2,dma_mask=0xffffffffffffffff,bus=pcie.0,addr=0x5.0x0",
        "bus=pcie.0,addr=0x19.0x0",
        "-smbios type=1,manufacturer=Pellucid,product=Emulated server,version=1,serial=PELLUCID-L1,uuid=",
        "-smbios type=41,kind=ethernet,instance=1,designation=Onboard NIC 1,pcidev=device3",
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
    assert!(line(&machine).contains("igb,id=device0,netdev=net0"));
}

#[test]
fn two_devices_at_one_address_are_refused() {
    let device = Device::Edu {
        place: Place::root(5),
    };
    assert!(refusal(&Machine::standard().device(device)).contains("00:05.0"));
    for place in [
        Place::root(2),
        Place::root(3).function(1),
        Place::port(2),
        Place::port(5),
        Place::switch(2),
        Place::switch(5),
        Place::root(0x10),
    ] {
        let text = refusal(&Machine::standard().device(Device::Edu { place }));
        assert!(text.contains("two devices at"), "{place:?}: {text}");
    }
    let chipset = Device::Edu {
        place: Place::root(0x1f),
    };
    assert!(refusal(&Machine::bare().device(chipset)).contains("00:1f.0"));
}

#[test]
fn a_device_behind_a_switch_has_both_levels_of_it() {
    let nvme = |place| Device::Nvme {
        place,
        serial: "S".into(),
        disk: Disk::Scratch { mebibytes: 1 },
    };
    let second = Place::Switch {
        slot: 6,
        downstream: 1,
    };
    let line = line(
        &Machine::bare()
            .device(nvme(Place::switch(6)))
            .device(nvme(second)),
    );
    let places: Vec<_> = [
        "pcie-root-port,id=port6,bus=pcie.0,addr=0x6,chassis=6,slot=6,x-speed=5",
        "x3130-upstream,id=switch6,bus=port6",
        "xio3130-downstream,id=switch6.0,bus=switch6,addr=0x0,chassis=38,slot=64",
        "xio3130-downstream,id=switch6.1,bus=switch6,addr=0x1,chassis=38,slot=65",
        "serial=S,bus=switch6.0,addr=0x0.0x0",
        "serial=S,bus=switch6.1,addr=0x0.0x0",
    ]
    .iter()
    .map(|part| line.find(part).unwrap_or_else(|| panic!("no {part} in {line}")))
    .collect();
    assert!(
        places.is_sorted(),
        "what is plugged into stands before what is plugged"
    );
    assert_eq!(line.matches("x3130-upstream,").count(), 1, "one switch: {line}");
}

#[test]
fn function_0_of_a_slot_says_that_it_has_more() {
    let both = |place: Place| {
        line(
            &Machine::bare()
                .device(Device::Edu { place })
                .device(Device::E1000 {
                    place: place.function(1),
                }),
        )
    };
    let root = both(Place::root(8));
    assert!(root.contains("addr=0x8.0x0,multifunction=on"), "{root}");
    assert!(root.contains("e1000,id=device1,netdev=net1,mac=52:54:00:70:65:01,bus=pcie.0,addr=0x8.0x1"));
    assert!(!root.contains("addr=0x8.0x1,multifunction=on"), "{root}");
    let port = both(Place::port(7));
    assert!(port.contains("bus=port7,addr=0x0.0x0,multifunction=on"), "{port}");
    assert_eq!(port.matches("pcie-root-port").count(), 1, "{port}");
    assert!(!line(&Machine::standard()).contains("multifunction"));
}

#[test]
fn a_function_without_a_function_0_is_refused() {
    let device = |place| Device::Edu { place };
    for (place, named) in [
        (Place::root(8).function(1), "00:08.1"),
        (Place::port(8).function(2), "function 2 behind 00:08.0"),
    ] {
        let text = refusal(&Machine::bare().device(device(place)));
        assert!(text.contains(named) && text.contains("function 0"), "{text}");
    }
}

#[test]
fn the_debugger_listens_where_it_is_wanted() {
    let with = line(&Machine::bare().debugger("/run/d"));
    let part = "socket,id=debugger,server=on,wait=off,path=/run/d -gdb chardev:debugger";
    assert!(with.contains(part), "no {part} in {with}");
    assert!(!line(&Machine::bare()).contains("-gdb"));
}

#[test]
fn the_machine_reaches_its_own_monitor() {
    let mut machine = Machine::bare();
    machine.management.service = Some("/run/s".into());
    let line = line(&machine);
    for part in [
        "socket,id=service,server=on,wait=off,path=/run/s -mon chardev=service,mode=control",
        "socket,id=inside,path=/run/s -device virtserialport,bus=channels.0,chardev=inside,name=pellucid.monitor",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
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
