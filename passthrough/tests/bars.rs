//! The BAR state machine and the MSI-X table, which need no device.
#![allow(clippy::unwrap_used, reason = "a test")]

use pellucid_partition::MsiMessage;
use pellucid_passthrough::{Allowed, BarKind, BarShape, Change, Decode, Geometry, MsixTable, Part};
use proptest::prelude::*;

const MEMORY: BarShape = BarShape {
    index: 0,
    kind: BarKind::Memory64 { prefetchable: false },
    size: 0x4000,
    address: 0,
};
const PORTS: BarShape = BarShape {
    index: 2,
    kind: BarKind::Io,
    size: 0x20,
    address: 0,
};

fn allowed() -> Allowed {
    Allowed {
        memory: vec![0xc000_0000..0xe000_0000, 0x40_0000_0000..0x80_0000_0000],
        io: 0x1000..0x1_0000,
    }
}

fn decode(memory: bool, io: bool, awake: bool) -> Decode {
    Decode {
        memory,
        io,
        rom: false,
        awake,
        addresses: vec![0xc000_0000, 0x2000],
    }
}

#[test]
fn a_bar_is_open_only_while_decoded_and_awake() {
    let open = |state: Decode| state.open(&[MEMORY, PORTS], &allowed());
    assert_eq!(open(decode(true, true, true)), [(0, 0xc000_0000), (2, 0x2000)]);
    assert_eq!(open(decode(true, false, true)), [(0, 0xc000_0000)]);
    assert_eq!(open(decode(false, true, true)), [(2, 0x2000)]);
    assert!(open(decode(true, true, false)).is_empty(), "not in D3");
}

#[test]
fn a_bar_at_no_place_for_a_device_is_not_open() {
    for address in [
        0,
        0xbfff_f000,
        0xdfff_e000,
        0xfee0_0000,
        0xffff_c000,
        u64::MAX - 0x3fff,
    ] {
        let state = Decode {
            addresses: vec![address],
            ..decode(true, true, true)
        };
        assert!(state.open(&[MEMORY], &allowed()).is_empty(), "{address:#x}");
    }
}

#[test]
fn a_rom_answers_only_while_it_and_memory_are_enabled() {
    let rom = BarShape::rom(0x800, 0).unwrap();
    let open = |memory, rom_on| {
        let state = Decode {
            rom: rom_on,
            addresses: vec![0xc010_0000],
            ..decode(memory, false, true)
        };
        state.open(&[rom], &allowed())
    };
    assert_eq!(open(true, true), [(BarShape::ROM, 0xc010_0000)]);
    assert!(open(true, false).is_empty() && open(false, true).is_empty());
}

#[test]
fn a_rom_of_a_size_that_no_register_can_say_is_none() {
    for size in [0, 1, 0x400, 0x1800, 0x200_0000, u64::MAX] {
        assert_eq!(BarShape::rom(size, 0), None, "{size:#x}");
    }
    let rom = BarShape::rom(0x1_0000, 0xc000_0000).unwrap();
    assert_eq!(
        (rom.register(0xc001_2345), rom.write_mask()),
        (0xc001_0000, 0xffff_0001)
    );
}

#[test]
fn of_two_bars_at_one_place_the_lower_one_answers() {
    let upper = BarShape { index: 2, ..MEMORY };
    let open = |addresses: [u64; 2]| {
        let state = Decode {
            addresses: addresses.to_vec(),
            ..decode(true, false, true)
        };
        state.open(&[MEMORY, upper], &allowed())
    };
    assert_eq!(open([0xc000_0000, 0xc000_0000]), [(0, 0xc000_0000)]);
    assert_eq!(
        open([0xc000_4000, 0xc000_0000]),
        [(0, 0xc000_4000), (2, 0xc000_0000)]
    );
}

#[test]
fn a_moved_bar_closes_before_it_opens() {
    let change = Change::between(&[(0, 0x1000), (2, 0x2000)], &[(0, 0x3000), (2, 0x2000)]);
    assert_eq!(
        (change.close, change.open),
        (vec![(0, 0x1000)], vec![(0, 0x3000)])
    );
}

#[test]
fn a_registers_type_bits_are_those_of_its_kind() {
    let shape = |kind, size| BarShape {
        index: 0,
        kind,
        size,
        address: 0,
    };
    assert_eq!(shape(BarKind::Io, 0x20).register(0xd00f), 0xd001);
    assert_eq!(
        shape(BarKind::Memory32 { prefetchable: true }, 0x1000).register(0xc000_0000),
        0xc000_0008
    );
    assert_eq!(
        shape(BarKind::Memory64 { prefetchable: true }, 0x1000).register(1 << 40),
        1 << 40 | 0xc
    );
    assert_eq!(
        shape(BarKind::Memory32 { prefetchable: false }, 0x1000).write_mask(),
        0xffff_f000
    );
    assert_eq!(
        shape(BarKind::Memory64 { prefetchable: false }, 1 << 33).write_mask(),
        u64::MAX << 33
    );
}

#[test]
fn a_tables_geometry_is_that_of_its_capability() {
    let geometry = Geometry::new(0x8040, 0x2000, 0x3004);
    assert_eq!(
        (geometry.vectors, geometry.table, geometry.pending),
        (65, (0, 0x2000), (4, 0x3000))
    );
    assert_eq!(geometry.part(0, 0x2000 + 65 * 16 - 1), Part::Table(65 * 16 - 1));
    assert_eq!(geometry.part(0, 0x2000 + 65 * 16), Part::Device);
    assert_eq!(geometry.part(4, 0x300f), Part::Pending(15));
    assert_eq!(geometry.part(0, 0x3000), Part::Device);
}

#[test]
fn an_entry_is_masked_after_a_reset_and_its_message_is_what_was_written() {
    let mut table = MsixTable::new(2);
    assert!(table.masked(0) && table.masked(1));
    for (offset, value) in [(16, 0xfee0_1003_u32), (20, 0x1), (24, 0x41), (28, 0xffff_fffe)] {
        assert_eq!(table.write(offset, &value.to_le_bytes()), 1..2);
    }
    assert!(table.masked(0) && !table.masked(1));
    assert_eq!(
        table.message(1),
        MsiMessage {
            address: 0x1_fee0_1000,
            data: 0x41
        }
    );
    let mut control = [0xff; 4];
    table.read(28, &mut control);
    assert_eq!(control, [0; 4], "only the mask bit exists");
}

#[test]
fn what_is_behind_the_table_is_nothing() {
    let mut table = MsixTable::new(1);
    assert!(table.write(16, &[0; 4]).is_empty());
    assert!(table.masked(1) && table.masked(u32::MAX / 32));
    let mut data = [0xff; 4];
    table.read(16, &mut data);
    assert_eq!(data, [0; 4]);
}

proptest! {
    #[test]
    fn a_write_concerns_the_entries_it_touches_and_no_others(
        offset in 0u64..2048 * 16, data in proptest::collection::vec(any::<u8>(), 1..=8), vectors in 1u32..=2048,
    ) {
        let before = MsixTable::new(vectors);
        let mut after = before.clone();
        let touched = after.write(offset, &data);
        for vector in (0..vectors).filter(|vector| !touched.contains(vector)) {
            prop_assert_eq!(after.message(vector), before.message(vector));
            prop_assert_eq!(after.masked(vector), before.masked(vector));
        }
        prop_assert!(touched.end <= vectors || touched.is_empty());
    }

    #[test]
    fn closing_then_opening_leads_to_what_is_wanted(
        now in proptest::collection::btree_map(0u8..6, 0u64..4, 0..6),
        wanted in proptest::collection::btree_map(0u8..6, 0u64..4, 0..6),
    ) {
        let (now, wanted): (Vec<_>, Vec<_>) = (now.into_iter().collect(), wanted.into_iter().collect());
        let change = Change::between(&now, &wanted);
        let mut reached: Vec<_> = now.iter().filter(|open| !change.close.contains(open)).copied().collect();
        prop_assert!(change.open.iter().all(|(bar, _)| reached.iter().all(|(other, _)| other != bar)));
        reached.extend(change.open);
        reached.sort_unstable();
        prop_assert_eq!(reached, wanted);
    }
}
