//! What the survey finds in a host of files, and what may be lent of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod fixture;

use std::path::Path;

use fixture::{Card, Host, NVME, PORT};
use pellucid_partition::Bdf;
use pellucid_passthrough::{BarKind, Inventory, Member, NodeState, Refusal, Standing, Use, Wanted};

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn refusal(host: &Host) -> Refusal {
    host.survey().admit(bdf(NVME.bdf)).unwrap_err()
}

#[test]
fn a_function_is_described_with_its_port_group_and_registers() {
    let host = Host::with(&[PORT, NVME]);
    host.write("sys/bus/pci/slots/7/address", "0000:01:00\n");
    let inventory = host.survey();
    let nvme = inventory.function(bdf(NVME.bdf)).unwrap();
    assert_eq!(
        (nvme.ids.vendor, nvme.ids.device, nvme.ids.class),
        (0x1b36, 0x10, 0x01_0802)
    );
    assert_eq!(nvme.port(), Some(bdf(PORT.bdf)));
    assert_eq!(nvme.driver.bound.as_deref(), Some("nvme"));
    assert_eq!(nvme.driver.only, None);
    assert_eq!(nvme.place.slot.as_deref(), Some("7"));
    assert_eq!(nvme.reset_methods, ["flr", "bus"]);
    assert_eq!(nvme.group.as_ref().map(|group| group.id), Some(9));
    let bars: Vec<(u8, u64, u64)> = nvme
        .bars
        .iter()
        .map(|bar| (bar.index, bar.address, bar.size))
        .collect();
    assert_eq!(
        bars,
        [
            (0, 0xfe60_0000, 0x4000),
            (2, 0xc000_0000, 0x100_0000),
            (4, 0xd000, 0x20)
        ]
    );
    assert_eq!(nvme.bars[0].kind, BarKind::Memory64 { prefetchable: false });
    assert_eq!(nvme.bars[1].kind, BarKind::Memory32 { prefetchable: true });
    assert_eq!(nvme.bars[2].kind, BarKind::Io);
    let port = inventory.function(bdf(PORT.bdf)).unwrap();
    assert_eq!(
        port.bridge.map(|bridge| (bridge.secondary, bridge.subordinate)),
        Some((1, 1))
    );
}

#[test]
fn a_free_function_is_admitted() {
    let admitted = Host::with(&[PORT, NVME]).survey().admit(bdf(NVME.bdf)).unwrap();
    assert_eq!(admitted.group(), 9);
}

#[test]
fn a_function_that_does_not_exist_is_refused_by_name() {
    let refusal = refusal(&Host::with(&[PORT]));
    assert_eq!(
        refusal,
        Refusal::NoSuchFunction {
            device: bdf(NVME.bdf)
        }
    );
    assert!(refusal.to_string().contains("0000:01:00.0") && refusal.to_string().contains("lspci"));
}

#[test]
fn a_bridge_is_refused() {
    let host = Host::with(&[PORT]);
    assert!(matches!(
        host.survey().admit(bdf(PORT.bdf)),
        Err(Refusal::Bridge { class: 0x06_0400, .. })
    ));
}

#[test]
fn without_an_iommu_nothing_is_lent() {
    let refusal = refusal(&Host::with(&[PORT, Card { group: None, ..NVME }]));
    assert!(refusal.to_string().contains("intel_iommu=on"), "{refusal}");
}

#[test]
fn a_shared_group_names_those_in_the_way_and_only_them() {
    let sibling = Card {
        bdf: "0000:01:00.1",
        class: 0x0c_0330,
        driver: None,
        ..NVME
    };
    let refusal = refusal(&Host::with(&[
        Card {
            group: Some(9),
            ..PORT
        },
        NVME,
        sibling,
    ]));
    let others = vec![Member {
        device: "0000:01:00.1".to_owned(),
        bdf: Some(bdf("0000:01:00.1")),
        standing: Standing::Idle,
        bridge: false,
    }];
    assert_eq!(
        refusal,
        Refusal::SharedGroup {
            device: bdf(NVME.bdf),
            group: 9,
            others
        }
    );
}

#[test]
fn a_bridge_of_its_group_does_not_block_a_function_unless_a_driver_makes_it_more() {
    let port = |driver| Card {
        group: Some(9),
        driver,
        ..PORT
    };
    assert!(
        Host::with(&[port(Some("pcieport")), NVME])
            .survey()
            .admit(bdf(NVME.bdf))
            .is_ok()
    );
    assert!(
        Host::with(&[port(None), NVME])
            .survey()
            .admit(bdf(NVME.bdf))
            .is_ok()
    );
    assert!(matches!(
        refusal(&Host::with(&[port(Some("odd")), NVME])),
        Refusal::SharedGroup { .. }
    ));
    let host_bridge = |driver| Card {
        bdf: "0000:00:00.0",
        class: 0x06_0000,
        header: 0,
        group: Some(9),
        driver,
        parents: &[],
    };
    let admitted = Host::with(&[PORT, host_bridge(None), NVME])
        .survey()
        .admit(bdf(NVME.bdf));
    assert!(admitted.is_ok());
    assert!(matches!(
        refusal(&Host::with(&[PORT, host_bridge(Some("skl_uncore")), NVME])),
        Refusal::SharedGroup { .. }
    ));
}

fn with_disk() -> Host {
    let host = Host::with(&[PORT, NVME]);
    let disk = format!("{}/nvme/nvme0/nvme0n1", Host::place(&NVME));
    host.block(&disk, "259:0\n");
    host.block(&format!("{disk}/nvme0n1p2"), "259:2\n");
    host.write(&format!("{disk}/nvme0n1p2/partition"), "2\n");
    host
}

#[test]
fn a_mounted_partition_is_found_by_its_number() {
    let host = with_disk();
    host.write(
        "proc/self/mountinfo",
        "30 1 259:2 / /srv/my\\040data rw shared:1 - ext4 /dev/root rw\n",
    );
    let device = bdf(NVME.bdf);
    let mount = Use::Mount {
        device: "nvme0n1p2".to_owned(),
        mount_point: "/srv/my data".to_owned(),
    };
    let uses = vec![mount];
    assert_eq!(refusal(&host), Refusal::InUse { device, uses });
}

#[test]
fn a_file_system_without_a_number_of_its_own_is_found_by_its_source() {
    let host = with_disk();
    host.write(
        "proc/self/mountinfo",
        "30 1 0:44 /root / rw - btrfs /dev/nvme0n1p2 rw\n",
    );
    assert!(
        refusal(&host).to_string().contains("mounted at /;"),
        "{}",
        refusal(&host)
    );
}

#[test]
fn a_mount_on_a_logical_volume_is_followed_down_to_the_function() {
    let host = with_disk();
    host.block("sys/devices/virtual/block/dm-0", "253:0\n");
    host.link(
        "sys/class/block/nvme0n1p2/holders/dm-0",
        &host.root().join("sys/devices/virtual/block/dm-0"),
    );
    host.write(
        "proc/self/mountinfo",
        "30 1 253:0 / /var rw - xfs /dev/mapper/vg-var rw\n",
    );
    assert!(refusal(&host).to_string().contains("dm-0 is mounted at /var"));
}

#[test]
fn swap_is_found() {
    let host = with_disk();
    host.write(
        "proc/swaps",
        "Filename Type Size Used Priority\n/dev/nvme0n1p2 partition 1 0 -2\n",
    );
    assert!(refusal(&host).to_string().contains("swapoff /dev/nvme0n1p2"));
}

#[test]
fn swap_on_an_encrypted_volume_is_found_by_either_of_its_names() {
    let host = with_disk();
    for (below, number, name) in [("nvme0n1p2", 0, "luks"), ("dm-0", 1, "vg-swap")] {
        let place = format!("sys/devices/virtual/block/dm-{number}");
        host.block(&place, &format!("253:{number}\n"));
        host.write(&format!("{place}/dm/name"), &format!("{name}\n"));
        let holder = format!("sys/class/block/{below}/holders/dm-{number}");
        host.link(&holder, &host.root().join(&place));
    }
    for name in ["/dev/dm-1", "/dev/mapper/vg-swap"] {
        host.write(
            "proc/swaps",
            &format!("Filename Type Size Used Priority\n{name} partition 1 0 -2\n"),
        );
        let refused = refusal(&host).to_string();
        assert!(refused.contains("swapoff /dev/dm-1"), "{refused}");
    }
}

#[test]
fn a_btrfs_on_an_encrypted_volume_is_found_by_the_name_of_its_mapping() {
    let host = with_disk();
    host.block("sys/devices/virtual/block/dm-0", "253:0\n");
    host.write("sys/devices/virtual/block/dm-0/dm/name", "luks-1\n");
    let volume = host.root().join("sys/devices/virtual/block/dm-0");
    host.link("sys/class/block/nvme0n1p2/holders/dm-0", &volume);
    let mounts = "30 1 0:44 /root / rw - btrfs /dev/mapper/luks-1 rw\n";
    host.write("proc/self/mountinfo", mounts);
    let refused = refusal(&host).to_string();
    assert!(refused.contains("dm-0 is mounted at /;"), "{refused}");
}

#[test]
fn every_device_of_a_file_system_on_several_is_in_use() {
    let host = with_disk();
    let refused = |mounts: &str| {
        host.write("proc/self/mountinfo", mounts);
        refusal(&host).to_string()
    };
    let both = "30 1 0:44 / /srv rw - bcachefs /dev/sdb1:/dev/nvme0n1p2 rw\n";
    assert!(refused(both).contains("nvme0n1p2 is mounted at /srv"));
    host.block("sys/devices/virtual/block/sdb1", "8:17\n");
    for member in ["sdb1", "nvme0n1p2"] {
        let device = host.root().join("sys/class/block").join(member);
        host.link(&format!("sys/fs/btrfs/6a1f/devices/{member}"), &device);
    }
    let first = "30 1 0:44 / /srv rw - btrfs /dev/sdb1 rw\n";
    assert!(
        refused(first).contains("nvme0n1p2 is mounted at /srv"),
        "{}",
        refused(first)
    );
    let elsewhere = refused("");
    assert!(
        elsewhere.contains("nvme0n1p2 is part of btrfs 6a1f, which is active; unmount btrfs 6a1f first"),
        "{elsewhere}"
    );
}

/// Has the host use the function.
type MadeUse<'u> = &'u dyn Fn(&Host);

#[test]
fn what_the_host_uses_is_lent_by_force_alone() {
    let used: [(&str, MadeUse); 4] = [
        ("is mounted at /srv", &|host| {
            host.write(
                "proc/self/mountinfo",
                "30 1 259:2 / /srv rw - ext4 /dev/nvme0n1p2 rw\n",
            );
        }),
        ("is used as swap", &|host| {
            host.write(
                "proc/swaps",
                "Filename Type Size Used Priority\n/dev/nvme0n1p2 partition 1 0 -2\n",
            );
        }),
        ("is part of md0", &|host| {
            host.block("sys/devices/virtual/block/md0", "9:0\n");
            let array = host.root().join("sys/devices/virtual/block/md0");
            host.link("sys/class/block/nvme0n1p2/holders/md0", &array);
        }),
        ("the default route goes through", &|host| {
            let place = format!("{}/net/en0", Host::place(&NVME));
            host.write(&format!("{place}/ifindex"), "2\n");
            host.link("sys/class/net/en0", &host.root().join(place));
            let route = format!("{:032x} 00 {0:032x} 00 fe8{:029x} 400 1 0 3 en0\n", 0, 1);
            host.write("proc/net/ipv6_route", &route);
        }),
    ];
    for (words, use_it) in used {
        let host = with_disk();
        use_it(&host);
        let refused = refusal(&host).to_string();
        assert!(refused.contains(words), "{refused}");
        let forced = [Wanted::new(bdf(NVME.bdf)).by_force()];
        assert_eq!(host.survey().admit_together(&forced).unwrap().len(), 1, "{words}");
    }
}

#[test]
fn a_disk_behind_a_multipath_head_is_the_same_disk() {
    let host = Host::with(&[PORT, NVME]);
    host.block(&format!("{}/nvme/nvme0/nvme0c0n1", Host::place(&NVME)), "259:1\n");
    host.block(
        "sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1",
        "259:0\n",
    );
    host.write(
        "proc/self/mountinfo",
        "30 1 259:0 / /mnt rw - ext4 /dev/nvme0n1 rw\n",
    );
    let nvme = host.survey().function(bdf(NVME.bdf)).unwrap().clone();
    assert_eq!(
        nvme.uses,
        [Use::Mount {
            device: "nvme0n1".to_owned(),
            mount_point: "/mnt".to_owned()
        }]
    );
}

#[test]
fn holders_that_hold_each_other_end() {
    let host = with_disk();
    let disk = host.root().join("sys/class/block/nvme0n1");
    host.link("sys/class/block/nvme0n1p2/holders/nvme0n1", &disk);
    assert!(host.survey().admit(bdf(NVME.bdf)).is_ok());
}

#[test]
fn missing_vfio_is_refused_with_the_module_to_load() {
    let host = Host::with(&[PORT, NVME]);
    std::fs::remove_file(host.root().join("dev/vfio/vfio")).unwrap();
    assert!(refusal(&host).to_string().contains("modprobe vfio_iommu_type1"));
    std::fs::remove_dir_all(host.root().join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    assert!(refusal(&host).to_string().contains("`modprobe vfio-pci`"));
}

#[test]
fn a_denied_node_is_told_from_a_missing_one() {
    let mut inventory = Host::with(&[PORT, NVME]).survey();
    inventory.vfio.container = NodeState::Denied;
    assert_eq!(
        inventory.admit(bdf(NVME.bdf)),
        Err(Refusal::VfioDenied {
            device: bdf(NVME.bdf)
        })
    );
}

#[test]
fn the_iommu_width_is_the_narrowest_units() {
    let host = Host::new();
    assert_eq!(host.survey().iommu_bits, None);
    host.write("sys/class/iommu/dmar0/intel-iommu/cap", "d2008c222f0686\n");
    host.write("sys/class/iommu/dmar1/intel-iommu/cap", "d2008c22260686\n");
    assert_eq!(host.survey().iommu_bits, Some(39));
}

#[test]
fn devices_reach_what_the_narrowest_iommu_and_the_kernel_leave_them() {
    let host = Host::with(&[PORT, NVME]);
    let group = "sys/kernel/iommu_groups/9/reserved_regions";
    host.write(
        group,
        "0x0000000000000000 0x0000000000ffffff direct-relaxable\n0x000000008b800000 0x000000008f9fffff direct\n0x00000000fee00000 0x00000000feefffff msi\nnonsense\n",
    );
    let pci = host.survey();
    let reach = pci.reach([bdf(NVME.bdf)]).unwrap();
    assert_eq!(reach.address_bits(), 39, "the width is not known");
    let reserved: Vec<_> = reach
        .reserved()
        .iter()
        .map(|hole| (hole.start, hole.end, hole.name.as_str()))
        .collect();
    assert_eq!(
        reserved,
        [
            (
                0x8b80_0000,
                0x8fa0_0000,
                "the direct region of device 0000:01:00.0"
            ),
            (0xfee0_0000, 0xfef0_0000, "interrupts (MSI)"),
            (0xfee0_0000, 0xfef0_0000, "the msi region of device 0000:01:00.0"),
        ]
    );
    host.write("sys/class/iommu/dmar0/intel-iommu/cap", "d2008c222f0686\n");
    assert_eq!(host.survey().reach([bdf(NVME.bdf)]).unwrap().address_bits(), 48);
    host.write("sys/class/iommu/dmar1/intel-iommu/cap", "d2008c22200686\n");
    assert!(
        host.survey().reach([]).is_err(),
        "33 bits are less than any map keeps to"
    );
}

#[test]
fn a_machine_without_pci_has_an_empty_inventory() {
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(Inventory::survey_at(empty.path()).unwrap(), Inventory::default());
    assert!(
        Inventory::survey_at(Path::new("/nonexistent"))
            .unwrap()
            .functions
            .is_empty()
    );
}

#[test]
fn damaged_attributes_make_a_poorer_description_not_a_failure() {
    let host = Host::with(&[PORT, NVME]);
    for (name, text) in [("resource", "0x1 zz\n\nfoo"), ("numa_node", "x"), ("config", "")] {
        host.write(&format!("{}/{name}", Host::place(&NVME)), text);
    }
    let nvme = host.survey().function(bdf(NVME.bdf)).unwrap().clone();
    assert!(nvme.bars.is_empty() && nvme.place.numa_node.is_none() && nvme.bridge.is_none());
}

#[test]
fn an_inventory_survives_being_written_and_read() {
    let inventory = with_disk().survey();
    let text = serde_json::to_string(&inventory).unwrap();
    assert_eq!(serde_json::from_str::<Inventory>(&text).unwrap(), inventory);
}
