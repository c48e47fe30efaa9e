//! Names that systemd gave, and those that its rules ask for.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod fixture;

use fixture::Machine;

/// A machine with one network card at a place, called eth0.
fn with_card(place: &str) -> Machine {
    let machine = Machine::empty();
    machine.processors(1);
    let mut above = String::new();
    for part in place.split('/') {
        above = if above.is_empty() {
            part.to_owned()
        } else {
            format!("{above}/{part}")
        };
        if !part.starts_with("pci") && above != place {
            machine.function(&above, 0x1b36_000c, 0x06_0400);
        }
    }
    machine.function(place, 0x8086_10d3, 0x02_0000);
    machine.nic(place, "eth0", "52:54:00:12:34:56");
    machine.write(&format!("sys/devices/{place}/net/eth0/name_assign_type"), "1\n");
    machine
}

const BOARD: &str = "pci0000:00/0000:00:19.0";
const BEHIND: &str = "pci0000:00/0000:00:03.0/0000:02:00.0";

/// The attribute `name` of the card or of its interface.
fn set(machine: &Machine, place: &str, name: &str, text: &str) {
    machine.write(&format!("sys/devices/{place}/{name}"), text);
}

#[test]
fn names_that_systemd_252_gave_are_predicted() {
    // An ordinary Debian 12 on a server, and as logical server placed well and badly.
    for (place, index, slot, name) in [
        (BOARD, Some("1"), None, "eno1"),
        (BEHIND, None, Some(("2", "0000:02:00")), "ens2"),
        ("pci0000:00/0000:00:02.0", None, None, "enp0s2"),
        ("pci0000:00/0000:00:03.0", None, None, "enp0s3"),
        (BOARD, None, None, "enp0s25"),
    ] {
        let machine = with_card(place);
        if let Some(index) = index {
            set(&machine, place, "index", index);
        }
        if let Some((slot, address)) = slot {
            machine.slot(slot, address);
        }
        let names = machine.names("eth0", "v252");
        assert_eq!(names.chosen.as_deref(), Some(name), "{names:?}");
        assert_eq!(names.mac.as_deref(), Some("enx525400123456"));
    }
}

#[test]
fn the_board_comes_before_the_slot_and_the_slot_before_the_address() {
    let machine = with_card(BEHIND);
    machine.slot("2", "0000:02:00");
    set(&machine, BEHIND, "index", "7\n");
    let names = machine.names("eth0", "v252");
    let all = [&names.onboard, &names.slot, &names.path, &names.chosen];
    assert_eq!(
        all.map(|name| name.as_deref().unwrap()),
        ["eno7", "ens2", "enp2s0", "eno7"]
    );
    set(&machine, BEHIND, "acpi_index", "3\n");
    assert_eq!(
        machine.names("eth0", "v252").chosen.as_deref(),
        Some("eno3"),
        "ACPI is believed first"
    );
}

#[test]
fn numbers_on_the_board_are_believed_as_far_as_the_scheme_does() {
    for (index, scheme, name) in [
        ("0", "v239", "enp0s25"),
        ("0", "v240", "eno0"),
        ("16381", "v247", "eno16381"),
        ("16382", "v247", "enp0s25"),
        ("65535", "v249", "eno65535"),
        ("65536", "v249", "enp0s25"),
    ] {
        let machine = with_card(BOARD);
        set(&machine, BOARD, "index", index);
        let chosen = machine.names("eth0", scheme).chosen;
        assert_eq!(chosen.as_deref(), Some(name), "{index} {scheme}");
    }
}

#[test]
fn functions_ports_and_domains_are_in_the_name() {
    let names = with_card("pci10000:00/10000:e1:00.3").names("eth0", "v252");
    assert_eq!(names.path.as_deref(), Some("enP65536p225s0f3"));
    assert_eq!(names.chosen, None, "sixteen letters");
    let machine = with_card(BEHIND);
    machine.header(BEHIND, 0x80);
    assert_eq!(machine.names("eth0", "v252").chosen.as_deref(), Some("enp2s0f0"));
    set(&machine, BEHIND, "net/eth0/dev_port", "1\n");
    assert_eq!(
        machine.names("eth0", "v252").chosen.as_deref(),
        Some("enp2s0f0d1")
    );
    set(&machine, BEHIND, "net/eth0/phys_port_name", "p1\n");
    assert_eq!(
        machine.names("eth0", "v252").chosen.as_deref(),
        Some("enp2s0f0np1")
    );
    machine.slot("0x10", "0000:02");
    assert_eq!(machine.names("eth0", "v252").slot.as_deref(), Some("ens16f0np1"));
}

#[test]
fn a_name_too_long_for_the_kernel_gives_way_to_the_next() {
    let machine = with_card(BEHIND);
    machine.slot("4294967295", "0000:02:00");
    set(&machine, BEHIND, "net/eth0/dev_port", "12\n");
    let names = machine.names("eth0", "v252");
    assert_eq!(names.slot.as_deref(), Some("ens4294967295d12"));
    assert_eq!(names.chosen.as_deref(), Some("enp2s0d12"));
    set(&machine, BEHIND, "net/eth0/phys_port_name", "a/b\n");
    assert_eq!(machine.names("eth0", "v252").chosen, None, "no name has a slash");
}

#[test]
fn a_slot_whose_device_is_a_bridge_counts_by_scheme() {
    let machine = with_card(BEHIND);
    machine.slot("5", "0000:00:03");
    let slot = |machine: &Machine, scheme| machine.names("eth0", scheme).slot;
    let named = |scheme| slot(&machine, scheme);
    assert_eq!(named("v245").as_deref(), Some("ens5"));
    assert_eq!(
        [named("v247"), named("v250"), named("v252"), named("v255")],
        [None, None, None, None]
    );
    machine.header(BEHIND, 0x80);
    assert_eq!(named("v250"), None);
    assert_eq!(
        named("v252").as_deref(),
        Some("ens5f0"),
        "functions tell them apart"
    );
    assert_eq!(named("v255"), None);
    // The slot of the card itself is nearer.
    machine.slot("9", "0000:02:00");
    assert_eq!(named("v255").as_deref(), Some("ens9f0"));
    set(&machine, BEHIND, "firmware_node/sun", "11\n");
    assert_eq!(
        [named("v255").unwrap(), named("v257").unwrap()],
        ["ens9f0", "ens11f0"]
    );
}

#[test]
fn only_slots_with_plain_numbers_count() {
    for (slot, name) in [
        ("2-1", None),
        ("0", None),
        ("010", Some("ens8")),
        ("x", None),
        ("+3", None),
        ("7", Some("ens7")),
    ] {
        let machine = with_card(BEHIND);
        machine.slot(slot, "0000:02:00");
        assert_eq!(machine.names("eth0", "v252").slot.as_deref(), name, "{slot}");
    }
}

#[test]
fn a_virtual_function_is_named_after_its_physical_one() {
    let machine = with_card(BEHIND);
    let virtual_place = "pci0000:00/0000:00:03.0/0000:02:10.0";
    machine.function(virtual_place, 0x8086_10ca, 0x02_0000);
    machine.nic(virtual_place, "eth1", "52:54:00:12:34:57");
    set(&machine, BEHIND, "sriov_totalvfs", "2\n");
    set(&machine, BEHIND, "sriov_numvfs", "1\n");
    machine.link(
        &format!("sys/devices/{BEHIND}/virtfn0"),
        &format!("sys/devices/{virtual_place}"),
    );
    machine.link(
        &format!("sys/devices/{virtual_place}/physfn"),
        &format!("sys/devices/{BEHIND}"),
    );
    machine.slot("2", "0000:02:00");
    let chosen = |scheme| machine.names("eth1", scheme).chosen;
    assert_eq!(chosen("v252").as_deref(), Some("ens2v0"));
    assert_eq!(chosen("v238").as_deref(), Some("enp2s16"));
    set(&machine, virtual_place, "net/eth1/phys_port_name", "pf0vf3\n");
    assert_eq!(chosen("v254").as_deref(), Some("ens2r3v0"));
}

#[test]
fn kinds_of_interfaces_have_their_prefix_or_no_name() {
    for (kind, uevent, scheme, name) in [
        ("1", "DEVTYPE=wlan\nINTERFACE=eth0\n", "v252", Some("wlp0s25")),
        ("1", "DEVTYPE=wwan\n", "v252", Some("wwp0s25")),
        ("32", "", "v252", Some("ibp0s25")),
        ("32", "", "v239", None),
        ("256", "", "v252", Some("slp0s25")),
        ("772", "", "v252", None),
    ] {
        let machine = with_card(BOARD);
        set(&machine, BOARD, "net/eth0/type", kind);
        set(&machine, BOARD, "net/eth0/uevent", uevent);
        assert_eq!(
            machine.names("eth0", scheme).chosen.as_deref(),
            name,
            "{kind} {uevent} {scheme}"
        );
    }
}

#[test]
fn who_comes_second_keeps_the_kernels_name() {
    let machine = with_card(BEHIND);
    let sibling = "pci0000:00/0000:00:04.0";
    machine.function(sibling, 0x8086_10d3, 0x02_0000);
    machine.nic(sibling, "eth1", "52:54:00:12:34:57");
    set(&machine, BEHIND, "index", "1");
    set(&machine, sibling, "index", "1");
    assert_eq!(machine.names("eth0", "v252").chosen.as_deref(), Some("eno1"));
    let second = machine.names("eth1", "v252");
    assert_eq!(second.chosen, None);
    assert!(second.why.contains("eth0"), "{}", second.why);
}

#[test]
fn the_command_line_and_the_driver_can_forbid_names() {
    let machine = with_card(BOARD);
    set(&machine, BOARD, "net/eth0/name_assign_type", "2\n");
    assert_eq!(machine.names("eth0", "v252").chosen.as_deref(), Some("eth0"));
    machine.write("proc/cmdline", "quiet net.ifnames=0 net.naming_scheme=v240\n");
    assert_eq!(machine.names("eth0", "v252").chosen, None);
    assert_eq!(machine.capture().scheme().to_string(), "v240");
    machine.write("usr/lib/systemd/libsystemd-shared-254.so", "");
    machine.write("proc/cmdline", "net.naming_scheme=rhel-9.0\n");
    assert_eq!(
        machine.capture().scheme().to_string(),
        "v253",
        "254 kept to the scheme before its own"
    );
}

#[test]
fn what_is_no_scheme_is_refused_with_an_example() {
    for text in ["", "252", "v", "v1", "v+252", "latest", "v99999999999"] {
        let error = text.parse::<pellucid_twin::Scheme>().unwrap_err().to_string();
        assert!(error.contains("v252"), "{error}");
    }
}
