//! A host whose files lie, are damaged, or never end: a clear error or a function less, never a panic, never a function that
//! is lent because something could not be read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod fixture;
mod machine;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use fixture::Host;
use machine::{DUAL_PORT, Part, SERVER, VMD, WORKSTATION, bdf, machine, refusals};
use pellucid_passthrough::{Inventory, Names, Refusal, Verdict};
use proptest::prelude::*;

fn remove(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
}

/// The attributes and lists that a survey reads of a function.
const ATTRIBUTES: &[&str] = &[
    "vendor",
    "device",
    "class",
    "revision",
    "subsystem_vendor",
    "subsystem_device",
    "driver_override",
    "reset_method",
    "resource",
    "numa_node",
    "label",
    "index",
    "acpi_index",
    "removable",
    "sriov_totalvfs",
    "sriov_numvfs",
    "power_state",
    "aer_dev_correctable",
    "aer_dev_nonfatal",
    "aer_dev_fatal",
    "secondary_bus_number",
    "subordinate_bus_number",
    "config",
    "boot_vga",
    "driver",
    "iommu_group",
    "virtfn0",
    "physfn",
];

const LISTS: &[&str] = &[
    "proc/self/mountinfo",
    "proc/swaps",
    "proc/net/route",
    "proc/net/ipv6_route",
    "proc/consoles",
    "usr/share/misc/pci.ids",
    "sys/bus/pci/slots/1/address",
    "sys/class/net/a/upper_b",
    "sys/class/vtconsole/vtcon0/name",
    "sys/class/graphics/fb0",
    "sys/kernel/iommu_groups/13/reserved_regions",
    "sys/kernel/iommu_groups/13/name",
    "sys/class/iommu/dmar0/intel-iommu/cap",
];

#[test]
fn a_function_that_does_not_say_what_it_is_is_left_out_and_blocks_its_group() {
    for name in ["vendor", "device", "class"] {
        for text in ["", "zz", "0x", "-1", "0x1ffffffffffffffffffff", "\u{fffd}"] {
            let host = machine(DUAL_PORT);
            host.write(&format!("{}/{name}", DUAL_PORT[2].place()), text);
            let inventory = host.survey();
            assert!(
                inventory.function(bdf("0000:04:00.1")).is_none(),
                "{name}={text:?}"
            );
            let refusal = inventory.admit(bdf("0000:04:00.0")).unwrap_err().to_string();
            assert!(
                refusal.contains("0000:04:00.1 (not readable)") && refusal.contains("another group"),
                "{refusal}"
            );
        }
    }
}

#[test]
fn a_class_of_too_many_bits_is_no_endpoint() {
    let host = machine(DUAL_PORT);
    host.write(&format!("{}/class", DUAL_PORT[0].place()), "0x100060400\n");
    assert!(host.survey().function(bdf("0000:00:1c.0")).is_none());
}

#[test]
fn what_the_host_uses_is_an_error_when_it_cannot_be_read() {
    for list in [
        "proc/self/mountinfo",
        "proc/swaps",
        "proc/net/route",
        "proc/net/ipv6_route",
        "proc/consoles",
    ] {
        let host = machine(SERVER);
        remove(&host.root().join(list));
        fs::create_dir_all(host.root().join(list)).unwrap();
        let error = Inventory::survey_at(host.root()).unwrap_err().to_string();
        assert!(error.contains(list), "{error}");
    }
    let host = machine(SERVER);
    remove(&host.root().join("proc/self"));
    let error = Inventory::survey_at(host.root()).unwrap_err().to_string();
    assert!(
        error.contains("mountinfo") && error.contains("mounted"),
        "{error}"
    );
}

#[test]
fn an_endless_list_is_an_error_and_not_waited_for() {
    let host = machine(SERVER);
    let list = host.root().join("proc/net/route");
    remove(&list);
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    symlink("/dev/zero", &list).unwrap();
    let error = Inventory::survey_at(host.root()).unwrap_err();
    assert_eq!(error.source.raw_os_error(), Some(libc_efbig()), "{error}");
}

/// EFBIG, by what the kernel calls it.
fn libc_efbig() -> i32 {
    27
}

#[test]
fn a_pipe_in_the_place_of_an_attribute_is_not_waited_for() {
    let host = machine(SERVER);
    for name in ["label", "config", "resource", "driver_override"] {
        let path = host.root().join(SERVER[5].place()).join(name);
        remove(&path);
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path.as_c_str(),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
    }
    assert!(host.survey().admit(bdf("0000:3b:00.0")).is_ok());
}

#[test]
fn links_that_lead_to_themselves_end() {
    let host = machine(SERVER);
    let (root, nic) = (host.root(), SERVER[5].place());
    let devices = root.join("sys/bus/pci/devices");
    symlink("0000:99:00.0", devices.join("0000:99:00.0")).unwrap();
    for name in ["iommu_group", "driver", "virtfn0", "physfn"] {
        remove(&root.join(&nic).join(name));
        symlink(name, root.join(&nic).join(name)).unwrap();
    }
    for class in [
        "net/loop",
        "drm/loop",
        "tty/ttyS9",
        "graphics/fb0",
        "block/loop",
        "iommu/loop",
        "vtconsole/vtcon9",
    ] {
        host.write(&format!("sys/class/{class}.other/x"), "");
        symlink(
            Path::new(class).file_name().unwrap(),
            root.join("sys/class").join(class),
        )
        .unwrap();
    }
    host.link(&format!("{nic}/below"), &root.join(&nic));
    host.write("proc/consoles", "ttyS9 -W- (E p a) 4:73\n");
    let inventory = host.survey();
    assert!(inventory.function(bdf("0000:99:00.0")).is_none());
    // A group that cannot be read is no group, and a driver that cannot be read is not none.
    let function = inventory.function(bdf("0000:3b:00.0")).unwrap();
    assert_eq!(
        (&function.group, function.driver.bound.as_deref()),
        (&None, Some("driver"))
    );
    assert!(matches!(
        inventory.admit(function.bdf),
        Err(Refusal::NoIommu { .. })
    ));
}

#[test]
fn a_group_without_an_iommu_is_no_group() {
    let host = machine(SERVER);
    host.write("sys/kernel/iommu_groups/31/name", "vfio-noiommu\n");
    let refusal = host.survey().admit(bdf("0000:3b:00.0")).unwrap_err();
    assert!(matches!(refusal, Refusal::NoIommu { .. }), "{refusal}");
    assert!(host.survey().admit(bdf("0000:3b:00.1")).is_ok());
}

#[test]
fn a_member_that_is_no_function_keeps_the_group() {
    let host = machine(SERVER);
    host.write("sys/kernel/iommu_groups/31/devices/INTC1035:00/uevent", "");
    let refusal = host.survey().admit(bdf("0000:3b:00.0")).unwrap_err().to_string();
    assert!(refusal.contains("INTC1035:00 (not readable)"), "{refusal}");
}

#[test]
fn a_member_that_only_itself_says_so_counts() {
    let host = machine(SERVER);
    let other = host.root().join(SERVER[6].place()).join("iommu_group");
    remove(&other);
    symlink(host.root().join("sys/kernel/iommu_groups/31"), other).unwrap();
    let refusal = host.survey().admit(bdf("0000:3b:00.0")).unwrap_err();
    assert!(
        refusal.to_string().contains("0000:3b:00.1 (driver mlx5_core)"),
        "{refusal}"
    );
}

#[test]
fn a_function_that_two_groups_claim_is_in_the_way_though_it_is_wanted_too() {
    let host = machine(SERVER);
    let second = host.root().join(SERVER[6].place());
    host.link("sys/kernel/iommu_groups/31/devices/0000:3b:00.1", &second);
    let refused = refusals(&host.survey(), &["0000:3b:00.0", "0000:3b:00.1"]);
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(
        refused[0].contains("group 31 also has 0000:3b:00.1"),
        "{refused:?}"
    );
}

#[test]
fn hundreds_of_members_of_one_group_are_judged_and_named_in_one_line() {
    let host = Host::new();
    let paths: Vec<String> = (0..200)
        .map(|number: u32| {
            format!(
                "pci0000:00/0000:{:02x}:{:02x}.{}",
                1 + number / 256,
                number / 8 % 32,
                number % 8
            )
        })
        .collect();
    for path in &paths {
        Part(
            Box::leak(path.clone().into_boxed_str()),
            0x8086_1520,
            0x02_0000,
            Some("igbvf"),
            Some(1),
        )
        .add(&host);
    }
    let inventory = host.survey();
    let advice = inventory.advise();
    assert_eq!(advice.len(), 200);
    assert!(
        advice
            .iter()
            .all(|advice| advice.lend == Verdict::Together && advice.with.len() == 199)
    );
    let refusal = inventory.admit(advice[0].device).unwrap_err().to_string();
    assert!(refusal.contains("195 more") && refusal.len() < 1000, "{refusal}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_content_of_any_file_makes_the_survey_panic(
        attributes in prop::collection::vec((0..ATTRIBUTES.len(), 0..4_usize, content()), 0..12),
        lists in prop::collection::vec((0..LISTS.len(), content()), 0..4),
    ) {
        let parts: Vec<Part> = [DUAL_PORT, VMD, WORKSTATION].concat();
        let host = machine(&parts);
        for (attribute, part, text) in &attributes {
            let path = host.root().join(parts[part * 3].place()).join(ATTRIBUTES[*attribute]);
            remove(&path);
            fs::write(path, text).unwrap();
        }
        for (list, text) in &lists {
            let path = host.root().join(LISTS[*list]);
            remove(&path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        if let Ok(inventory) = Inventory::survey_at(host.root()) {
            let names = Names::survey_at(host.root());
            for advice in inventory.advise() {
                let function = inventory.function(advice.device).unwrap();
                let _ = names.of(function.ids).to_string();
                prop_assert_eq!(
                    advice.lend == Verdict::Yes,
                    inventory.admit(advice.device).is_ok() || inventory.unready().is_some(),
                    "{:?}", advice
                );
            }
        }
    }
}

/// Bytes as a damaged file has them: noise, numbers without end, or what is nearly right.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let nearly = prop_oneof![
        Just("0x060400\n"),
        Just("0xffffffffffffffff\n"),
        Just("-1\n"),
        Just("99999999999999999999\n"),
        Just("(null)\n"),
        Just("30 1 259:0 / / rw - ext4"),
        Just("\t00000000\t\t0003"),
        Just("TOTAL_ERR_COR 18446744073709551616"),
        Just("0x0 0xffffffffffffffff 0x200\n0xffffffffffffffff 0x0 0x100"),
        Just("vfio-noiommu\n"),
        Just("\n\n\n"),
    ];
    prop_oneof![
        nearly.prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}
