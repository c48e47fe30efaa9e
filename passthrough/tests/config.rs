//! The configuration space that a guest sees, made from bytes: what is shown, what is hidden, what a write comes to.
#![allow(clippy::unwrap_used, reason = "a test")]

mod config_rules;

use pellucid_passthrough::{
    BarKind, BarShape, CONFIG_SIZE, Capabilities, ConfigOrigin, ConfigTable, Decode, Register, Source,
};
use proptest::prelude::*;

/// A function with power management at 0x40, MSI at 0x50, MSI-X at 0x70 and PCI Express at 0x80; extended: AER at 0x100,
/// SR-IOV at 0x160, a serial number at 0x1a0, resizable BARs at 0x200, ATS last at 0x240.
fn space() -> Vec<u8> {
    let mut space = vec![0; CONFIG_SIZE];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x00, &[0x36, 0x1b, 0x10, 0x00, 0x00, 0x00, 0x10, 0x00]);
    put(0x10, &0xfe60_0004_u32.to_le_bytes());
    put(0x30, &0xfe64_0001_u32.to_le_bytes());
    put(0x34, &[0x40]);
    put(0x3c, &[0x0b, 0x01]);
    put(0x40, &[0x01, 0x50, 0x03, 0x00, 0x08]);
    put(0x50, &[0x05, 0x70, 0x86, 0x01]);
    put(
        0x70,
        &[0x11, 0x80, 0x40, 0x80, 0x00, 0x20, 0, 0, 0x00, 0x30, 0, 0],
    );
    put(0x80, &[0x10, 0x00, 0x02, 0x00]);
    for (at, id, next) in [
        (0x100, 0x0001, 0x160),
        (0x160, 0x0010, 0x1a0),
        (0x1a0, 0x0003, 0x200),
        (0x200, 0x0015, 0x240),
        (0x240, 0x000f, 0),
    ] {
        put(at, &extended(id, next));
    }
    put(0x164, &[0xaa; 8]);
    space
}

fn extended(id: u32, next: u32) -> [u8; 4] {
    (id | 1 << 16 | next << 20).to_le_bytes()
}

const BAR: BarShape = BarShape {
    index: 0,
    kind: BarKind::Memory64 { prefetchable: false },
    size: 0x4000,
    address: 0xc010_0000,
};

fn table_of(space: &[u8], intx: bool) -> ConfigTable {
    ConfigTable::new(&ConfigOrigin {
        space,
        bars: &[BAR],
        intx,
        line: 10,
        absent: &[],
    })
}

/// The guest's view of `space`.
fn seen(table: &ConfigTable, space: &[u8]) -> Vec<u8> {
    let mut seen = space.to_vec();
    seen.resize(CONFIG_SIZE, 0);
    table.overlay(0, &mut seen);
    seen
}

fn word(space: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(space[at..at + 4].try_into().unwrap())
}

#[test]
fn a_bar_sizes_as_the_hardware_does() {
    let space = space();
    let mut table = table_of(&space, false);
    assert_eq!(word(&seen(&table, &space), 0x10), 0xc010_0004);
    let written = table.write(0x10, &[0xff; 4], &[0; 4]);
    assert!(
        table.touched(0x14, 4).eq([Register::Bar(0)]),
        "its upper half too"
    );
    assert!(
        written.hardware.is_empty(),
        "the hardware's own registers stay the host's"
    );
    assert_eq!(word(&seen(&table, &space), 0x10), 0xffff_c004);
    table.write(0x14, &[0xff; 4], &[0; 4]);
    assert_eq!(word(&seen(&table, &space), 0x14), 0xffff_ffff);
    table.write(0x18, &[0xff; 4], &[0; 4]);
    assert_eq!(
        word(&seen(&table, &space), 0x18),
        0,
        "a register that does not exist stays zero"
    );
}

#[test]
fn the_command_register_forwards_what_a_guest_may_switch_and_keeps_the_rest() {
    let mut table = table_of(&space(), false);
    let written = table.write(0x04, &[0xff, 0xff], &[0x80, 0x02]);
    assert_eq!(written.hardware, [(0x04, vec![0xc7, 0x07])]);
    assert!(table.touched(0x04, 2).eq([Register::Command]));
    assert!(
        table
            .touched(0x02, 2)
            .chain(table.touched(0x06, 2))
            .next()
            .is_none()
    );
}

#[test]
fn the_msix_enable_bit_is_kept_and_never_forwarded() {
    let space = space();
    let mut table = table_of(&space, false);
    assert_eq!(table.word(0x72), 0x40, "off at first, whatever the host had");
    let written = table.write(0x72, &[0xff, 0xff], &[0, 0]);
    assert!(written.hardware.is_empty());
    assert!(table.touched(0x70, 4).eq([Register::Msix]));
    assert_eq!(table.word(0x72), 0xc040);
    table.write(0x74, &[0xff; 8], &[0; 8]);
    assert_eq!(table.dword(0x74), 0x2000, "the table's place is fixed");
}

#[test]
fn the_msi_capability_is_the_guests_own() {
    let mut table = table_of(&space(), false);
    for offset in (0x52..0x68).step_by(2) {
        let written = table.write(offset, &[0xff, 0xff], &[0, 0]);
        assert!(written.hardware.is_empty(), "{offset:#x}");
    }
    assert_eq!(table.word(0x52), 0x0186 | 0x71);
    assert_eq!(table.dword(0x54), 0xffff_fffc);
}

#[test]
fn hidden_capabilities_are_led_around_wherever_they_stand() {
    let space = space();
    let table = table_of(&space, false);
    let seen = seen(&table, &space);
    let ids: Vec<u16> = Capabilities::walk(&seen)
        .extended
        .iter()
        .map(|found| found.id)
        .collect();
    assert_eq!(ids, [0x0001, 0x0003]);
    assert_eq!(table.hidden(), ["SR-IOV", "resizable BAR", "ATS"]);
    assert!(
        seen[0x160..0x1a0].iter().all(|byte| *byte == 0),
        "nothing of it is left to find"
    );
}

#[test]
fn a_hidden_capability_at_the_head_of_the_list_leaves_the_rest_reachable() {
    let mut space = space();
    space[0x100..0x104].copy_from_slice(&extended(0x0010, 0x160));
    space[0x160..0x164].copy_from_slice(&extended(0x000f, 0x1a0));
    let seen = seen(&table_of(&space, false), &space);
    let ids: Vec<u16> = Capabilities::walk(&seen)
        .extended
        .iter()
        .map(|found| found.id)
        .collect();
    assert_eq!(ids, [0, 0x0003]);
}

#[test]
fn a_list_of_nothing_but_hidden_capabilities_is_empty() {
    let mut space = space();
    // The pointer of the only one leads into the header.
    space[0x100..0x104].copy_from_slice(&extended(0x0010, 0x002));
    assert_eq!(word(&seen(&table_of(&space, false), &space), 0x100), 0);
}

#[test]
fn a_list_does_not_end_at_a_header_that_says_nothing() {
    let mut space = space();
    // Neither has an id or a version, and the last one points into the header.
    for (at, next) in [(0x200, 0x240_u32), (0x240, 0x0b0)] {
        space[at..at + 4].copy_from_slice(&(next << 20).to_le_bytes());
    }
    let places = |space: &[u8]| {
        let seen = seen(&table_of(space, false), space);
        let found = Capabilities::walk(&seen).extended;
        let last = found
            .last()
            .map(|last| word(&seen, usize::from(last.offset)) >> 20);
        assert_eq!(last, Some(0), "the list ends");
        found.iter().map(|found| found.offset).collect::<Vec<_>>()
    };
    assert_eq!(places(&space), [0x100, 0x1a0]);
    space[0x100..0x104].copy_from_slice(&(0x160_u32 << 20).to_le_bytes());
    assert_eq!(places(&space), [0x100, 0x1a0], "the first one carries the rest");
}

#[test]
fn a_conventional_function_has_no_extended_space() {
    let space = &space()[..256];
    let seen = seen(&table_of(space, false), space);
    assert!(seen[0x100..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_function_without_a_rom_has_no_register_for_one() {
    let space = space();
    let mut table = table_of(&space, false);
    assert!(table.write(0x30, &[0xff; 4], &[0; 4]).hardware.is_empty());
    assert_eq!(word(&seen(&table, &space), 0x30), 0);
}

#[test]
fn a_rom_sizes_and_is_enabled_as_the_hardware_does() {
    let space = space();
    let rom = BarShape::rom(0x1_0000, 0xc020_0000).unwrap();
    let mut table = ConfigTable::new(&ConfigOrigin {
        space: &space,
        bars: &[BAR, rom],
        intx: false,
        line: 0,
        absent: &[],
    });
    assert_eq!(
        word(&seen(&table, &space), 0x30),
        0xc020_0000,
        "disabled at first"
    );
    let written = table.write(0x30, &0xffff_f800_u32.to_le_bytes(), &[0; 4]);
    assert!(table.touched(0x30, 4).eq([Register::Bar(BarShape::ROM)]));
    assert!(written.hardware.is_empty());
    assert_eq!(word(&seen(&table, &space), 0x30), 0xffff_0000);
    table.write(0x30, &0xc030_0001_u32.to_le_bytes(), &[0; 4]);
    assert_eq!(word(&seen(&table, &space), 0x30), 0xc030_0001);
    let decode = Decode::of(&table, &[BAR, rom], 0x0002, 0);
    assert!(decode.rom && decode.memory && decode.awake);
    assert_eq!(decode.addresses, [0xc010_0000, 0xc030_0000]);
}

#[test]
fn a_function_that_is_gone_decodes_nothing() {
    let table = table_of(&space(), false);
    assert_eq!(Decode::of(&table, &[BAR], 0xffff, 0xffff), Decode::default());
    assert!(!Decode::of(&table, &[BAR], 0x0006, 0x0003).awake);
}

#[test]
fn the_interrupt_pin_is_there_only_with_a_line() {
    let space = space();
    assert_eq!(seen(&table_of(&space, false), &space)[0x3c..0x3e], [10, 0]);
    assert_eq!(seen(&table_of(&space, true), &space)[0x3c..0x3e], [10, 1]);
}

#[test]
fn a_function_level_reset_is_seen_but_not_sent() {
    let mut table = table_of(&space(), false);
    let written = table.write(0x88, &[0x10, 0x80], &[0, 0]);
    assert!(table.touched(0x89, 1).eq([Register::DeviceControl]));
    assert_eq!(written.hardware, [(0x88, vec![0x10, 0x00])]);
}

#[test]
fn power_state_writes_reach_the_hardware_and_are_seen() {
    let mut table = table_of(&space(), false);
    let written = table.write(0x44, &[0x03, 0x00], &[0x08, 0x00]);
    assert!(table.touched(0x44, 2).eq([Register::Power]));
    assert_eq!(written.hardware[0].0, 0x44);
}

#[test]
fn identity_is_the_hardwares_and_fixed() {
    let space = space();
    let mut table = table_of(&space, false);
    assert_eq!(table.source(0), Source::Constant);
    assert!(table.write(0, &[0; 4], &[0; 4]).hardware.is_empty());
    assert_eq!(word(&seen(&table, &space), 0), 0x0010_1b36);
}

#[test]
fn lists_that_loop_or_leave_the_space_end() {
    let mut space = space();
    (space[0x41], space[0x51]) = (0x50, 0x40);
    space[0x1a0..0x1a4].copy_from_slice(&extended(3, 0x100));
    let found = Capabilities::walk(&space);
    assert_eq!((found.standard.len(), found.extended.len()), (2, 3));
    space[0x34] = 0xfc;
    space[0xfd] = 0xff;
    assert!(Capabilities::walk(&space[..0xfd]).standard.is_empty());
}

#[test]
fn a_list_that_loops_ends_in_the_guests_view() {
    let mut space = space();
    // PCI Express, the last one, leads back to MSI; the last extended one back to the first.
    space[0x81] = 0x50;
    space[0x240..0x244].copy_from_slice(&extended(0x0003, 0x100));
    let seen = seen(&table_of(&space, false), &space);
    assert_eq!(seen[0x81], 0);
    assert_eq!(word(&seen, 0x240) >> 20, 0);
}

#[test]
fn a_pointer_into_the_header_is_the_end_of_the_list() {
    let mut space = space();
    space[0x51] = 0x10;
    let seen = seen(&table_of(&space, false), &space);
    assert_eq!(seen[0x51], 0);
    let ids: Vec<u16> = Capabilities::walk(&seen)
        .standard
        .iter()
        .map(|found| found.id)
        .collect();
    assert_eq!(ids, [0x01, 0x05]);
}

#[test]
fn a_standard_capability_that_is_absent_is_led_around() {
    let space = space();
    for (id, others) in [
        (0x01, [0x05, 0x11, 0x10]),
        (0x11, [0x01, 0x05, 0x10]),
        (0x10, [0x01, 0x05, 0x11]),
    ] {
        let table = ConfigTable::new(&ConfigOrigin {
            space: &space,
            bars: &[BAR],
            intx: false,
            line: 0,
            absent: &[(id, "this one")],
        });
        let seen = seen(&table, &space);
        let ids: Vec<u16> = Capabilities::walk(&seen)
            .standard
            .iter()
            .map(|found| found.id)
            .collect();
        assert_eq!((ids.as_slice(), table.hidden()[0]), (&others[..], "this one"));
    }
}

#[test]
fn a_capability_across_the_end_of_the_standard_space_is_hidden() {
    let mut space = space();
    (space[0x81], space[0xf8], space[0xf9]) = (0xf8, 0x11, 0x00);
    let table = table_of(&space, false);
    assert_eq!(
        table.hidden()[0],
        "a capability that does not fit configuration space"
    );
    assert_eq!(seen(&table, &space)[0x81], 0);
    assert_eq!(
        table.source(0x100),
        Source::Constant,
        "the extended list is whole"
    );
}

#[test]
fn isolation_between_devices_is_seen_and_not_changed() {
    let mut space = space();
    space[0x1a0..0x1a4].copy_from_slice(&extended(0x000d, 0x200));
    space[0x1a4..0x1a8].copy_from_slice(&[0x1f, 0x00, 0x1d, 0x00]);
    let mut table = table_of(&space, false);
    assert!(table.write(0x1a6, &[0, 0], &[0x1d, 0]).hardware.is_empty());
    assert_eq!(seen(&table, &space)[0x1a4..0x1a8], [0x1f, 0x00, 0x1d, 0x00]);
}

#[test]
fn the_next_function_of_ari_is_none_since_no_port_of_the_guest_forwards_it() {
    let mut space = space();
    space[0x1a0..0x1a4].copy_from_slice(&extended(0x000e, 0x200));
    space[0x1a4..0x1a8].copy_from_slice(&[0x00, 0x01, 0x00, 0x00]);
    let mut table = table_of(&space, false);
    assert_eq!(seen(&table, &space)[0x1a4..0x1a8], [0, 0, 0, 0]);
    // Function groups are a matter of such a port too.
    assert!(table.write(0x1a6, &[0x73, 0], &[0, 0]).hardware.is_empty());
    assert_eq!(seen(&table, &space)[0x1a4..0x1a8], [0, 0, 0, 0]);
}

#[test]
fn whether_there_are_other_functions_is_not_the_devices_to_say() {
    let mut space = space();
    space[0x0e] = 0x80;
    assert_eq!(seen(&table_of(&space, false), &space)[0x0e], 0);
}

#[test]
fn the_rules_hold_for_the_seeds_of_the_fuzzer() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/config_space");
    let mut held = 0;
    for seed in std::fs::read_dir(seeds).unwrap() {
        config_rules::hold(&std::fs::read(seed.unwrap().path()).unwrap());
        held += 1;
    }
    assert!(held >= 4);
}

/// A device with the lists of [`space`], its BARs, and writes to the registers that mean something.
fn device() -> impl Strategy<Value = Vec<u8>> {
    let patch = (
        prop_oneof![Just(0x34_usize), 0x40_usize..0x100, 0x100_usize..0x260],
        any::<u8>(),
    );
    let patches = proptest::collection::vec(patch, 0..24);
    let bars = proptest::collection::vec(any::<[u8; 3]>(), 0..8);
    let place = prop_oneof![4 => 0u16..0x100, 1 => 0x100u16..0x1000];
    let writes = proptest::collection::vec((place, any::<[u8; 5]>()), 0..32);
    (any::<u8>(), bars, patches, writes).prop_map(|(flags, bars, patches, writes)| {
        let mut device = space();
        patches.iter().for_each(|(at, byte)| device[*at] = *byte);
        let mut input = vec![flags, bars.len() as u8];
        input.extend(bars.iter().flatten());
        input.extend((CONFIG_SIZE as u16).to_le_bytes());
        input.extend(device);
        for (at, rest) in writes {
            input.extend(at.to_le_bytes());
            input.extend(rest);
        }
        input
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_rules_hold_for_devices_that_are_nearly_sound(input in device()) {
        config_rules::hold(&input);
    }

    #[test]
    fn the_rules_hold_for_any_bytes(input in proptest::collection::vec(any::<u8>(), 0..CONFIG_SIZE + 256)) {
        config_rules::hold(&input);
    }

    #[test]
    fn walks_end_on_any_bytes(space in proptest::collection::vec(any::<u8>(), 0..CONFIG_SIZE)) {
        let found = Capabilities::walk(&space);
        prop_assert!(found.standard.len() <= 48 && found.extended.len() <= 960);
    }
}

#[test]
fn what_the_fuzzer_has_found_keeps_the_rules() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/config_space");
    let seeds: Vec<_> = std::fs::read_dir(seeds).unwrap().flatten().collect();
    assert!(seeds.len() > 30, "{} seeds", seeds.len());
    for seed in seeds {
        config_rules::hold(&std::fs::read(seed.path()).unwrap());
    }
}
