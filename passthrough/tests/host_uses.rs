//! What a survey finds that the host uses its devices for, where they are, how they are, and what they are called.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod fixture;
mod machine;

use fixture::Host;
use machine::{
    Part, SERVER, WORKSTATION, bdf, default_route, find, interface, machine, refusals, virtual_interface,
    words,
};
use pellucid_passthrough::{Names, PowerState, Use, Verdict};

#[test]
fn a_card_with_a_picture_on_it_is_in_use() {
    let host = machine(WORKSTATION);
    let graphics = find(WORKSTATION, "0000:17:00.0");
    for (connector, state) in [("card0-DP-1", "enabled"), ("card0-DP-2", "disabled")] {
        let place = format!("{}/drm/card0/{connector}", graphics.place());
        host.write(&format!("{place}/enabled"), &format!("{state}\n"));
        host.link(&format!("sys/class/drm/{connector}"), &host.root().join(place));
    }
    let place = format!("{}/graphics/fb0", graphics.place());
    host.write(&format!("{place}/dev"), "29:0\n");
    host.link("sys/class/graphics/fb0", &host.root().join(place));
    host.write("sys/class/vtconsole/vtcon1/name", "(M) frame buffer device\n");
    host.write("sys/class/vtconsole/vtcon1/bind", "1\n");
    let inventory = host.survey();
    assert_eq!(
        words(&inventory.function(bdf("0000:17:00.0")).unwrap().uses),
        "the host's console is on fb0, card0-DP-1 shows a picture"
    );
    // The audio function is no more free than the picture beside it.
    let advice = inventory.advise();
    let audio = advice
        .iter()
        .find(|advice| advice.device == bdf("0000:17:00.1"))
        .unwrap();
    assert_eq!(audio.lend, Verdict::No);
}

#[test]
fn the_firmwares_screen_is_the_console_whichever_driver_draws_on_it() {
    let host = machine(WORKSTATION);
    let graphics = find(WORKSTATION, "0000:17:00.0");
    let uses = |host: &Host| words(&host.survey().function(bdf("0000:17:00.0")).unwrap().uses);
    host.write(&format!("{}/boot_vga", graphics.place()), "1\n");
    assert_eq!(uses(&host), "");
    host.write("sys/class/vtconsole/vtcon0/name", "(S) VGA+\n");
    host.write("sys/class/vtconsole/vtcon0/bind", "1\n");
    assert_eq!(uses(&host), "the host's console is on vga");
    host.write("sys/class/vtconsole/vtcon0/bind", "0\n");
    let place = "sys/devices/platform/efi-framebuffer.0/graphics/fb0";
    host.write(&format!("{place}/dev"), "29:0\n");
    host.link("sys/class/graphics/fb0", &host.root().join(place));
    host.write("sys/class/vtconsole/vtcon1/name", "(M) frame buffer device\n");
    host.write("sys/class/vtconsole/vtcon1/bind", "1\n");
    assert_eq!(uses(&host), "the host's console is on fb0");
}

#[test]
fn a_folder_that_a_virtio_function_brings_is_in_use_while_it_is_mounted() {
    let host = machine(SERVER);
    let share = |function, name| {
        let share = Part(function, 0x1af4_1009, 0x00_0200, Some("virtio-pci"), Some(91));
        share.add(&host);
        host.write(&format!("{}/{name}/uevent", share.place()), "");
        format!("{}/{name}", share.place())
    };
    let plan9 = share("pci0000:00/0000:00:11.0", "virtio1");
    // The kernel ends the tag with a NUL.
    host.write(&format!("{plan9}/mount_tag"), "host\0");
    let virtiofs = share("pci0000:00/0000:00:12.0", "virtio2");
    host.write("sys/fs/virtiofs/0/tag", "data\n");
    host.link("sys/fs/virtiofs/0/device", &host.root().join(&virtiofs));
    let uses = || {
        let inventory = host.survey();
        let of = |at| words(&inventory.function(bdf(at)).unwrap().uses);
        [of("0000:00:11.0"), of("0000:00:12.0")]
    };
    let mounts = |lines: &str| host.write("proc/self/mountinfo", lines);
    mounts("21 1 0:20 / / rw - tmpfs host rw\n22 1 0:21 / /a rw - virtiofs host rw\n");
    assert_eq!(uses(), ["", ""], "others may be called so too");
    mounts("21 1 0:20 / / ro - 9p host ro\n22 1 0:21 / /d rw - virtiofs data rw\n");
    assert_eq!(uses(), ["host is mounted at /", "data is mounted at /d"]);
}

#[test]
fn a_serial_console_on_a_card_is_in_use() {
    let host = machine(SERVER);
    let port = Part(
        "pci0000:00/0000:00:16.3",
        0x8086_a1bd,
        0x07_0002,
        Some("serial"),
        Some(90),
    );
    port.add(&host);
    for name in ["ttyS4", "ttyS5"] {
        let place = format!("{}/{}:0/{0}:0.0/tty/{name}", port.place(), "0000:00:16.3");
        host.write(&format!("{place}/dev"), "4:68\n");
        host.link(&format!("sys/class/tty/{name}"), &host.root().join(place));
    }
    host.write(
        "proc/consoles",
        "tty0                 -WU (EC  p  )    4:7\nttyS4                -W- (E   p a)    4:68\n",
    );
    assert_eq!(
        refusals(&host.survey(), &["0000:00:16.3"]),
        [
            "device 0000:00:16.3: the host uses it, the host's console is on ttyS4; take console=ttyS4 off the kernel's \
          command line, or lend it by force"
        ]
    );
}

#[test]
fn a_default_route_is_followed_down_through_what_is_built_on_an_interface() {
    let nic = find(SERVER, "0000:3b:00.0");
    let through = |build: &dyn Fn(&Host)| {
        let host = machine(SERVER);
        interface(&host, &nic, "p1");
        build(&host);
        words(&host.survey().function(bdf("0000:3b:00.0")).unwrap().uses)
    };
    let upper = |host: &Host, lower: &str, upper: &str| {
        virtual_interface(host, upper);
        let upper_place = host.root().join("sys/class/net").join(upper);
        let lower_place = host.root().join("sys/class/net").join(lower);
        host.link(&format!("sys/class/net/{lower}/upper_{upper}"), &upper_place);
        host.link(&format!("sys/class/net/{upper}/lower_{lower}"), &lower_place);
    };
    let found = through(&|host| {
        upper(host, "p1", "bond0");
        upper(host, "bond0", "bond0.7");
        upper(host, "bond0.7", "br0");
        default_route(host, "br0");
    });
    assert_eq!(found, "the default route goes through br0, which is on p1");
    let found = through(&|host| {
        let six = format!(
            "{:032x} 00 {:032x} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 bond0\n\
             {:032x} 00 {:032x} 00 {:032x} ffffffff 00000001 00000000 00200200       lo\n",
            0, 0, 0, 0, 0
        );
        upper(host, "p1", "bond0");
        host.write("proc/net/ipv6_route", &six);
    });
    assert_eq!(found, "the default route goes through bond0, which is on p1");
    let found = through(&|host| {
        virtual_interface(host, "ovs-system");
        virtual_interface(host, "br-ex");
        let master = host.root().join("sys/class/net/ovs-system");
        host.link("sys/class/net/p1/master", &master);
        default_route(host, "br-ex");
    });
    assert_eq!(found, "the default route goes through br-ex, which is on p1");
    let found = through(&|host| {
        virtual_interface(host, "wg0");
        default_route(host, "wg0");
    });
    assert_eq!(found, "", "a route through something else");
    // Interfaces that are above each other end.
    let found = through(&|host| {
        upper(host, "p1", "a");
        upper(host, "a", "b");
        host.link("sys/class/net/b/upper_a", &host.root().join("sys/class/net/a"));
    });
    assert_eq!(found, "");
}

#[test]
fn a_route_that_refuses_or_is_down_makes_no_interface_needed() {
    let host = machine(SERVER);
    interface(&host, &find(SERVER, "0000:3b:00.0"), "p1");
    for flags in ["0201", "0002"] {
        host.write(
            "proc/net/route",
            &format!("Iface Destination Gateway Flags RefCnt Use Metric Mask\np1 00000000 00000000 {flags} 0 0 0 00000000\n"),
        );
        assert!(host.survey().admit(bdf("0000:3b:00.0")).is_ok(), "{flags}");
    }
}

#[test]
fn what_is_active_on_a_disk_keeps_it_though_nothing_is_mounted() {
    let host = machine(SERVER);
    let disk = format!("{}/nvme/nvme0/nvme0n1", find(SERVER, "0000:5e:00.0").place());
    host.block(&disk, "259:0\n");
    host.block("sys/devices/virtual/block/md0", "9:0\n");
    let array = host.root().join("sys/devices/virtual/block/md0");
    host.link("sys/class/block/nvme0n1/holders/md0", &array);
    assert_eq!(
        refusals(&host.survey(), &["0000:5e:00.0"]),
        [
            "device 0000:5e:00.0: the host uses it, nvme0n1 is part of md0, which is active; `mdadm --stop /dev/md0` first, \
          or lend it by force"
        ]
    );
    host.write("proc/self/mountinfo", "30 1 9:0 / /srv rw - ext4 /dev/md0 rw\n");
    let uses = host.survey().function(bdf("0000:5e:00.0")).unwrap().uses.clone();
    let (device, mount_point) = ("md0".to_owned(), "/srv".to_owned());
    assert_eq!(uses, [Use::Mount { device, mount_point }]);
}

#[test]
fn place_and_condition_are_told_as_firmware_and_kernel_tell_them() {
    let host = machine(SERVER);
    let nic = find(SERVER, "0000:3b:00.0").place();
    for (name, text) in [
        ("label", "NIC1\n"),
        ("index", "1\n"),
        ("acpi_index", "3\n"),
        ("numa_node", "1\n"),
        ("power_state", "D3hot\n"),
        ("aer_dev_correctable", "RxErr 2\nBadTLP 0\nTOTAL_ERR_COR 2\n"),
        (
            "aer_dev_nonfatal",
            "Undefined 0\nCmpltTO 1\nTOTAL_ERR_NONFATAL 1\n",
        ),
        ("aer_dev_fatal", "DLP 0\nTOTAL_ERR_FATAL 0\n"),
    ] {
        host.write(&format!("{nic}/{name}"), text);
    }
    let inventory = host.survey();
    let function = inventory.function(bdf("0000:3b:00.0")).unwrap();
    let place = &function.place;
    assert_eq!(
        (place.label.as_deref(), place.onboard(), place.numa_node),
        (Some("NIC1"), Some(3), Some(1))
    );
    let errors = function.condition.errors.as_ref().unwrap();
    assert_eq!(
        (errors.correctable.kinds.get("RxErr"), errors.correctable.total),
        (Some(&2), 2)
    );
    assert_eq!(
        (errors.nonfatal.kinds.get("CmpltTO"), errors.uncorrected()),
        (Some(&1), 1)
    );
    assert_eq!(function.condition.power, PowerState::D3Hot);
    let other = inventory.function(bdf("0000:3b:00.1")).unwrap();
    assert_eq!(
        (other.condition.errors.as_ref(), other.place.onboard()),
        (None, None)
    );
}

#[test]
fn names_come_from_the_hosts_own_database_and_classes_from_nowhere() {
    let host = machine(SERVER);
    let inventory = host.survey();
    let of = |host: &Host, at: &str| {
        let names = Names::survey_at(host.root());
        names.of(inventory.function(bdf(at)).unwrap().ids).to_string()
    };
    assert_eq!(of(&host, "0000:5e:00.0"), "NVMe controller: 144d:a824");
    host.write(
        "usr/share/misc/pci.ids",
        "# a comment\n144d  Samsung Electronics Co Ltd\n\ta824  NVMe SSD Controller PM173X\n15b3  Mellanox Technologies\n\
         8086  Intel Corporation\n\t2030  Sky Lake-E PCI Express Root Port A\nC 01  Mass storage controller\n\t08  NVM\n",
    );
    assert_eq!(
        of(&host, "0000:5e:00.0"),
        "NVMe controller: Samsung Electronics Co Ltd NVMe SSD Controller PM173X"
    );
    assert_eq!(
        of(&host, "0000:3b:00.0"),
        "Ethernet: Mellanox Technologies 15b3:1017"
    );
    assert_eq!(
        of(&host, "0000:3a:00.0"),
        "PCI bridge: Intel Sky Lake-E PCI Express Root Port A"
    );
    for damaged in [
        "\t\t1 2 x\n",
        "zzzz  y\n",
        "\n\t\n\tffff\n",
        "C 0\n\t\t",
        "144d  Söm\u{fffd}",
    ] {
        host.write("usr/share/misc/pci.ids", damaged);
        assert!(of(&host, "0000:5e:00.0").starts_with("NVMe controller: "));
    }
}
