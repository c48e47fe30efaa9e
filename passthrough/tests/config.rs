//! The configuration space that a guest sees, made from bytes: what is shown, what is hidden, what a write comes to.
#![allow(clippy::unwrap_used, reason = "a test")]

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
    assert_eq!(written.registers, [Register::Bar(0)]);
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
    let written = table_of(&space(), false).write(0x04, &[0xff, 0xff], &[0x80, 0x02]);
    assert_eq!(written.hardware, [(0x04, vec![0xc7, 0x07])]);
    assert_eq!(written.registers, [Register::Command]);
}

#[test]
fn the_msix_enable_bit_is_kept_and_never_forwarded() {
    let space = space();
    let mut table = table_of(&space, false);
    assert_eq!(table.word(0x72), 0x40, "off at first, whatever the host had");
    let written = table.write(0x72, &[0xff, 0xff], &[0, 0]);
    assert_eq!(
        (written.hardware, written.registers),
        (Vec::new(), vec![Register::Msix])
    );
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
    assert_eq!(ids, [0, 0, 0x0003]);
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
    });
    assert_eq!(
        word(&seen(&table, &space), 0x30),
        0xc020_0000,
        "disabled at first"
    );
    let written = table.write(0x30, &0xffff_f800_u32.to_le_bytes(), &[0; 4]);
    assert_eq!(written.registers, [Register::Bar(BarShape::ROM)]);
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
    assert_eq!(written.registers, [Register::DeviceControl]);
    assert_eq!(written.hardware, [(0x88, vec![0x10, 0x00])]);
}

#[test]
fn power_state_writes_reach_the_hardware_and_are_seen() {
    let written = table_of(&space(), false).write(0x44, &[0x03, 0x00], &[0x08, 0x00]);
    assert_eq!(written.registers, [Register::Power]);
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

proptest! {
    #[test]
    fn no_configuration_space_and_no_write_panics(
        mut space in proptest::collection::vec(any::<u8>(), CONFIG_SIZE),
        short: bool,
        pointers in proptest::collection::vec((0x40_usize..0x100, 0u8..=255), 8),
        writes in proptest::collection::vec((0u16..4096, any::<[u8; 4]>()), 32),
    ) {
        space[6] |= 0x10;
        pointers.iter().for_each(|(at, byte)| space[*at] = *byte);
        let length = if short { 256 } else { CONFIG_SIZE };
        let mut table = table_of(&space[..length], true);
        for (at, bytes) in writes {
            let length = 4 - usize::from(at & 3);
            let written = table.write(at, &bytes[..length], &[0; 4][..length]);
            for (offset, bytes) in written.hardware {
                prop_assert!(!bytes.is_empty() && offset % 4 + bytes.len() as u16 <= 4);
            }
        }
        // Whatever was written: the identity is fixed, and an MSI or MSI-X capability is never the hardware's.
        let seen = seen(&table, &space[..length]);
        prop_assert_eq!(&seen[..4], &space[..4]);
        for found in Capabilities::walk(&space[..length]).standard.iter().filter(|found| found.id == 0x11) {
            prop_assert_ne!(table.source(found.offset + 3), Source::Hardware);
        }
    }

    #[test]
    fn walks_end_on_any_bytes(space in proptest::collection::vec(any::<u8>(), 0..CONFIG_SIZE)) {
        let found = Capabilities::walk(&space);
        prop_assert!(found.standard.len() <= 48 && found.extended.len() <= 960);
    }
}
