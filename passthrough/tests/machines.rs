//! What is said of real machines' devices: who can be lent, with whom, who is in the way, and why. The trees are in `machine`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod fixture;
mod machine;

use fixture::Host;
use machine::{
    DESKTOP, DUAL_PORT, ICH9, SEGMENTS, SERVER, THUNDERBOLT, VIRTUAL, VMD, WORKSTATION, bdf, default_route,
    find, interface, machine, refusals, wanted, words,
};
use pellucid_partition::Bdf;
use pellucid_passthrough::{Advice, Inventory, Member, Refusal, Verdict, Wanted};

/// One line for each function that is no bridge: its verdict, who with, `<` who is in the way, `~` who is not.
fn answers(inventory: &Inventory) -> Vec<String> {
    let line = |advice: &Advice| {
        let mut line = format!("{} {:?}", advice.device, advice.lend).to_lowercase();
        let members = |list: &[Member]| words(list);
        for (mark, text) in [
            (" with", words(&advice.with)),
            (" <", members(&advice.in_the_way)),
            (" ~", members(&advice.ignored)),
        ] {
            if !text.is_empty() {
                line.push_str(&format!("{mark} {text}"));
            }
        }
        line
    };
    let advice = inventory.advise();
    let lendable = advice.iter().filter(|advice| advice.lend != Verdict::Bridge);
    lendable.map(line).collect()
}

fn reasons(inventory: &Inventory, device: &str) -> Vec<String> {
    let advice = inventory.advise();
    let own = advice.iter().find(|advice| advice.device == bdf(device)).unwrap();
    let line = |reason: &pellucid_passthrough::Reason| format!("{}; {}", reason.cause, reason.remedy);
    own.reasons.iter().map(line).collect()
}

fn groups(inventory: &Inventory, devices: &[&str]) -> Vec<(String, u32, String)> {
    let admitted = inventory.admit_together(&wanted(devices)).unwrap();
    let row = |admitted: &pellucid_passthrough::Admitted| {
        let device = admitted.function().bdf.to_string();
        (device, admitted.group(), words(admitted.companions()))
    };
    admitted.iter().map(row).collect()
}

#[test]
fn a_desktop_lends_its_graphics_card_whole_and_nothing_of_the_chipset() {
    let host = machine(DESKTOP);
    let nic = find(DESKTOP, "0000:22:00.0");
    interface(&host, &nic, "enp34s0");
    default_route(&host, "enp34s0");
    let inventory = host.survey();
    let chipset =
        "~ 0000:00:01.0 (host bridge), 0000:00:01.3 (bridge), 0000:03:00.2 (bridge), 0000:1d:00.0 (bridge)";
    let graphics = "~ 0000:00:03.0 (host bridge), 0000:00:03.1 (bridge)";
    let (usb, sata, lan) = (
        "0000:03:00.0 (driver xhci_hcd)",
        "0000:03:00.1 (driver ahci)",
        "0000:22:00.0 (driver r8169)",
    );
    let board = "~ 0000:00:07.0 (host bridge), 0000:00:07.1 (bridge)";
    assert_eq!(
        answers(&inventory),
        [
            format!("0000:03:00.0 no < {sata}, {lan} {chipset}"),
            format!("0000:03:00.1 no < {usb}, {lan} {chipset}"),
            format!("0000:22:00.0 no < {usb}, {sata} {chipset}"),
            format!("0000:28:00.0 together with 0000:28:00.1 {graphics}"),
            format!("0000:28:00.1 together with 0000:28:00.0 {graphics}"),
            format!("0000:30:00.0 together with 0000:30:00.2, 0000:30:00.3 {board}"),
            format!("0000:30:00.2 together with 0000:30:00.0, 0000:30:00.3 {board}"),
            format!("0000:30:00.3 together with 0000:30:00.0, 0000:30:00.2 {board}"),
        ]
    );
    assert_eq!(
        groups(&inventory, &["0000:28:00.1", "0000:28:00.0"]),
        [
            ("0000:28:00.1".to_owned(), 2, "0000:28:00.0".to_owned()),
            ("0000:28:00.0".to_owned(), 2, "0000:28:00.1".to_owned()),
        ]
    );
    assert_eq!(
        refusals(&inventory, &["0000:30:00.3", "0000:30:00.2"]),
        [
            "device 0000:30:00.3: IOMMU group 3 also has 0000:30:00.0 (no driver); only a whole group can be lent: \
          lend 0000:30:00.0 too, or park what stays on pci-stub (`driverctl set-override 0000:30:00.0 pci-stub`)"
        ]
    );
    find(DESKTOP, "0000:30:00.0").bind(&host, "pci-stub");
    assert_eq!(groups(&host.survey(), &["0000:30:00.3", "0000:30:00.2"]).len(), 2);
}

#[test]
fn a_server_with_access_control_lends_each_function_by_itself() {
    let inventory = machine(SERVER).survey();
    assert_eq!(
        answers(&inventory),
        [
            "0000:00:1f.2 no < 0000:00:1f.0 (no driver), 0000:00:1f.4 (driver i801_smbus)",
            "0000:00:1f.4 no < 0000:00:1f.0 (no driver), 0000:00:1f.2 (no driver)",
            "0000:3b:00.0 yes",
            "0000:3b:00.1 yes",
            "0000:5e:00.0 yes",
        ]
    );
    let set = groups(&inventory, &["0000:5e:00.0", "0000:3b:00.1"]);
    assert_eq!(set[0], ("0000:5e:00.0".to_owned(), 41, String::new()));
    assert_eq!(set[1], ("0000:3b:00.1".to_owned(), 32, String::new()));
}

#[test]
fn a_graphics_card_is_lent_with_its_audio_and_its_connector() {
    let inventory = machine(WORKSTATION).survey();
    assert_eq!(
        answers(&inventory)[0],
        "0000:17:00.0 together with 0000:17:00.1, 0000:17:00.2, 0000:17:00.3"
    );
    assert_eq!(
        refusals(&inventory, &["0000:17:00.0", "0000:17:00.1"]),
        [
            "device 0000:17:00.0: IOMMU group 21 also has 0000:17:00.2 (driver xhci_hcd), 0000:17:00.3 (driver nvidia-gpu); \
          only a whole group can be lent: lend 0000:17:00.2, 0000:17:00.3 too, or park what stays on pci-stub \
          (`driverctl set-override 0000:17:00.2 pci-stub`)"
        ]
    );
    let all = ["0000:17:00.0", "0000:17:00.1", "0000:17:00.2", "0000:17:00.3"];
    assert_eq!(groups(&inventory, &all).len(), 4);
}

#[test]
fn two_ports_in_one_group_go_together_unless_the_host_needs_one() {
    let host = machine(DUAL_PORT);
    let (first, second) = (find(DUAL_PORT, "0000:04:00.0"), find(DUAL_PORT, "0000:04:00.1"));
    interface(&host, &first, "eno1");
    interface(&host, &second, "eno2");
    assert_eq!(
        answers(&host.survey()),
        [
            "0000:04:00.0 together with 0000:04:00.1",
            "0000:04:00.1 together with 0000:04:00.0"
        ]
    );
    default_route(&host, "eno1");
    let inventory = host.survey();
    let used =
        "the default route goes through eno1; give the host another way out first, or lend it by force";
    assert_eq!(
        reasons(&inventory, "0000:04:00.1"),
        [format!("the host uses it, {used}")]
    );
    let both = ["0000:04:00.0", "0000:04:00.1"];
    assert_eq!(
        refusals(&inventory, &both),
        [format!("device 0000:04:00.0: the host uses it, {used}")]
    );
    let forced = [Wanted::new(bdf(both[0])).by_force(), Wanted::new(bdf(both[1]))];
    let admitted = inventory.admit_together(&forced).unwrap();
    assert_eq!(
        words(admitted[0].overridden()),
        "the default route goes through eno1"
    );
    assert!(admitted[1].overridden().is_empty());
    // Force is for the one that is named.
    let wrong = [Wanted::new(bdf(both[0])), Wanted::new(bdf(both[1])).by_force()];
    assert!(inventory.admit_together(&wrong).is_err());
}

fn virtual_host() -> Host {
    let host = machine(VIRTUAL);
    let [physical, one, two] = ["0000:06:00.0", "0000:07:10.0", "0000:07:10.4"].map(|at| find(VIRTUAL, at));
    host.write(&format!("{}/sriov_totalvfs", physical.place()), "7\n");
    host.write(&format!("{}/sriov_numvfs", physical.place()), "2\n");
    for (number, part) in [one, two].iter().enumerate() {
        let root = host.root();
        host.link(
            &format!("{}/virtfn{number}", physical.place()),
            &root.join(part.place()),
        );
        host.link(&format!("{}/physfn", part.place()), &root.join(physical.place()));
    }
    host
}

#[test]
fn virtual_functions_are_lent_and_keep_their_physical_one_while_somebody_has_them() {
    let host = virtual_host();
    let inventory = host.survey();
    let physical = inventory.function(bdf("0000:06:00.0")).unwrap();
    assert_eq!((physical.sriov.total, physical.sriov.active), (7, 2));
    assert_eq!(words(&physical.sriov.virtuals), "0000:07:10.0, 0000:07:10.4");
    let one = inventory.function(bdf("0000:07:10.0")).unwrap();
    assert_eq!(one.sriov.physical, Some(physical.bdf));
    assert_eq!(
        answers(&inventory),
        ["0000:06:00.0 no", "0000:07:10.0 yes", "0000:07:10.4 yes"]
    );
    assert_eq!(
        reasons(&inventory, "0000:06:00.0"),
        [
            "its virtual functions would go with it (0000:07:10.0); lend those without it, or remove them first \
          (`echo 0 > /sys/bus/pci/devices/0000:06:00.0/sriov_numvfs`)"
        ]
    );
    // Nobody has the second one, but whoever asks for both cannot get both.
    std::fs::remove_file(
        host.root()
            .join(find(VIRTUAL, "0000:07:10.0").place())
            .join("driver"),
    )
    .unwrap();
    let inventory = host.survey();
    assert!(inventory.admit(bdf("0000:06:00.0")).is_ok());
    assert!(
        inventory
            .admit_together(&wanted(&["0000:06:00.0", "0000:07:10.4"]))
            .is_err()
    );
}

#[test]
fn a_card_in_a_thunderbolt_box_is_lent_like_another_and_said_to_be_removable() {
    let host = machine(THUNDERBOLT);
    let card = find(THUNDERBOLT, "0000:08:00.0");
    host.write(&format!("{}/removable", card.place()), "removable\n");
    host.write("sys/bus/pci/slots/12/address", "0000:08:00\n");
    let inventory = host.survey();
    assert_eq!(
        answers(&inventory),
        [
            "0000:07:00.0 yes ~ 0000:06:00.0 (bridge)",
            "0000:08:00.0 together with 0000:08:00.1 ~ 0000:06:01.0 (bridge)",
            "0000:08:00.1 together with 0000:08:00.0 ~ 0000:06:01.0 (bridge)",
        ]
    );
    let place = &inventory.function(bdf("0000:08:00.0")).unwrap().place;
    assert_eq!((place.removable, place.slot.as_deref()), (Some(true), Some("12")));
    let path = words(&inventory.function(bdf("0000:08:00.0")).unwrap().upstream);
    assert_eq!(path, "0000:00:1c.0, 0000:05:00.0, 0000:06:01.0");
}

#[test]
fn a_function_of_another_segment_is_a_function_like_others() {
    let inventory = machine(SEGMENTS).survey();
    assert_eq!(
        answers(&inventory),
        ["0001:3b:00.0 yes"],
        "the LPC bridge is a bridge"
    );
    assert_eq!(
        inventory.function(bdf("0001:3b:00.0")).unwrap().port(),
        Some(bdf("0001:3a:00.0"))
    );
}

#[test]
fn a_volume_management_device_is_lent_with_its_disks_or_not_at_all() {
    let host = machine(VMD);
    let inventory = host.survey();
    assert_eq!(
        answers(&inventory),
        [
            "0000:00:02.0 yes",
            "0000:00:0e.0 yes ~ 10000:e0:06.0 (bridge)",
            "10000:e1:00.0 no < 0000:00:0e.0 (driver vmd) ~ 10000:e0:06.0 (bridge)",
        ]
    );
    assert_eq!(
        refusals(&inventory, &["10000:e1:00.0"]),
        [
            "device 10000:e1:00.0: it does DMA in the name of 0000:00:0e.0, which has it in a domain of its own; lend \
          0000:00:0e.0 with all that is behind it, or switch VMD off in the firmware"
        ]
    );
    let disk = format!("{}/nvme/nvme0/nvme0n1", find(VMD, "10000:e1:00.0").place());
    host.block(&disk, "259:0\n");
    host.write(
        "proc/self/mountinfo",
        "30 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n",
    );
    let inventory = host.survey();
    let refusal = inventory.admit(bdf("0000:00:0e.0")).unwrap_err();
    assert!(
        refusal.to_string().contains("nvme0n1 is mounted at /;"),
        "{refusal}"
    );
}

#[test]
fn the_emulated_servers_group_of_three_needs_its_bridge_parked() {
    let host = machine(ICH9);
    let inventory = host.survey();
    assert_eq!(
        answers(&inventory),
        [
            "0000:00:1f.2 no < 0000:00:1f.0 (driver lpc_ich), 0000:00:1f.3 (driver i801_smbus)",
            "0000:00:1f.3 no < 0000:00:1f.0 (driver lpc_ich), 0000:00:1f.2 (driver ahci)",
        ]
    );
    let both = ["0000:00:1f.2", "0000:00:1f.3"];
    let refused = "device 0000:00:1f.2: IOMMU group 10 also has 0000:00:1f.0 (driver lpc_ich); only a whole group can be \
                   lent: park 0000:00:1f.0 on pci-stub (`driverctl set-override 0000:00:1f.0 pci-stub`)";
    assert_eq!(refusals(&inventory, &both), [refused]);
    let three = refusals(&inventory, &["0000:00:1f.0", both[0], both[1]]);
    assert_eq!(three.len(), 1, "{three:?}");
    assert!(three[0].contains("0000:00:1f.0: it is a bridge"), "{three:?}");
    find(ICH9, "0000:00:1f.0").bind(&host, "pci-stub");
    let inventory = host.survey();
    let parked = "~ 0000:00:1f.0 (parked on pci-stub)";
    assert_eq!(
        answers(&inventory),
        [
            format!("0000:00:1f.2 together with 0000:00:1f.3 {parked}"),
            format!("0000:00:1f.3 together with 0000:00:1f.2 {parked}"),
        ]
    );
    assert_eq!(groups(&inventory, &both).len(), 2);
}

#[test]
fn a_member_that_only_a_parking_driver_may_take_is_parked() {
    let host = machine(DUAL_PORT);
    let second = find(DUAL_PORT, "0000:04:00.1");
    std::fs::remove_file(host.root().join(second.place()).join("driver")).unwrap();
    let alone = |host: &Host| host.survey().admit(bdf("0000:04:00.0"));
    assert!(
        alone(&host)
            .unwrap_err()
            .to_string()
            .contains("0000:04:00.1 (no driver)")
    );
    for (only, free) in [
        ("vfio-pci", true),
        ("mlx5_vfio_pci", true),
        ("tg3", false),
        ("none", false),
    ] {
        host.write(
            &format!("{}/driver_override", second.place()),
            &format!("{only}\n"),
        );
        assert_eq!(alone(&host).is_ok(), free, "{only}");
    }
}

#[test]
fn everything_that_is_said_of_a_machine_survives_being_written_and_read_in_the_same_order() {
    for parts in [DESKTOP, SERVER, THUNDERBOLT, VMD] {
        let inventory = machine(parts).survey();
        let advice = inventory.advise();
        let text = serde_json::to_string(&advice).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Advice>>(&text).unwrap(), advice);
        assert!(advice.is_sorted_by_key(|advice| advice.device));
        assert_eq!(
            serde_json::to_string(&inventory).unwrap(),
            serde_json::to_string(&inventory.clone()).unwrap()
        );
    }
}

#[test]
fn several_refusals_are_told_at_once_and_the_rest_is_known_to_be_fine() {
    let host = machine(SERVER);
    let inventory = host.survey();
    let set = wanted(&[
        "0000:77:00.0",
        "0000:3a:00.0",
        "0000:5e:00.0",
        "0000:5e:00.0",
        "0000:00:1f.4",
    ]);
    let refused = inventory.admit_together(&set).unwrap_err();
    let kinds: Vec<&str> = refused
        .refusals
        .iter()
        .map(|refusal| match refusal {
            Refusal::NoSuchFunction { .. } => "none",
            Refusal::Bridge { .. } => "bridge",
            Refusal::Twice { .. } => "twice",
            Refusal::SharedGroup { .. } => "shared",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["none", "bridge", "twice", "shared"]);
    let fine: Vec<Bdf> = refused
        .others
        .iter()
        .map(|admitted| admitted.function().bdf)
        .collect();
    assert_eq!(fine, [bdf("0000:5e:00.0")]);
}
