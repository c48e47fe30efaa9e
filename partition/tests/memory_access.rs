//! Access at the borders of regions: across adjacent ones, into holes, and where addresses wrap.
#![allow(clippy::unwrap_used, reason = "a test")]

use pellucid_partition::{GuestAddress, GuestMemory, Le16, Le32, Le64, MemoryError, RegionSpec};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddressSpace, GuestMemoryBackend, GuestMemoryRegion};

const PAGE: u64 = 4096;

/// Two adjacent regions, a hole of one page, a third region.
fn memory() -> GuestMemory {
    let regions = [(PAGE, PAGE), (2 * PAGE, 2 * PAGE), (5 * PAGE, PAGE)];
    let specs = regions.map(|(guest, size)| RegionSpec::new(GuestAddress(guest), size));
    GuestMemory::of("access-test", &specs).unwrap()
}

fn is_ram(address: u64) -> bool {
    (PAGE..4 * PAGE).contains(&address) || (5 * PAGE..6 * PAGE).contains(&address)
}

#[test]
fn adjacent_regions_are_one_memory() {
    let memory = memory();
    let data: Vec<u8> = (0..100).collect();
    memory.write(GuestAddress(2 * PAGE - 50), &data).unwrap();
    let mut back = vec![0; 100];
    memory.read(GuestAddress(2 * PAGE - 50), &mut back).unwrap();
    assert_eq!(back, data);
    let mut second = vec![0; 50];
    memory.read(GuestAddress(2 * PAGE), &mut second).unwrap();
    assert_eq!(second, data[50..]);
    assert!(memory.contains(GuestAddress(PAGE), 3 * PAGE));
    assert!(!memory.contains(GuestAddress(PAGE), 3 * PAGE + 1));
}

#[test]
fn typed_values_are_little_endian_and_may_straddle_a_border() {
    let memory = memory();
    for address in [PAGE, 2 * PAGE - 3, 4 * PAGE - 8] {
        memory
            .write_value(GuestAddress(address), Le64::from(0x1122_3344_5566_7788))
            .unwrap();
        let mut bytes = [0; 8];
        memory.read(GuestAddress(address), &mut bytes).unwrap();
        assert_eq!(bytes, [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        assert_eq!(
            memory
                .read_value::<Le16>(GuestAddress(address))
                .unwrap()
                .to_native(),
            0x7788
        );
        assert_eq!(
            memory
                .read_value::<Le32>(GuestAddress(address + 4))
                .unwrap()
                .to_native(),
            0x1122_3344
        );
    }
}

#[test]
fn a_value_that_reaches_into_a_hole_is_refused_and_written_in_no_part() {
    let memory = memory();
    let border = GuestAddress(4 * PAGE - 4);
    let refusal = memory.write_value(border, Le64::from(u64::MAX)).unwrap_err();
    assert!(matches!(refusal, MemoryError::Outside { size: 8, .. }));
    assert_eq!(memory.read_value::<Le32>(border).unwrap().to_native(), 0);
    assert!(memory.read_value::<Le64>(border).is_err());
}

#[test]
fn no_bytes_are_everywhere() {
    let memory = memory();
    for address in [0, PAGE, 4 * PAGE, u64::MAX] {
        assert!(memory.contains(GuestAddress(address), 0));
        memory.write(GuestAddress(address), &[]).unwrap();
    }
}

#[test]
fn devices_of_other_crates_find_the_memory_as_it_is_when_they_ask() {
    fn sum<S: GuestAddressSpace<M: GuestMemoryBackend>>(space: &S) -> u64 {
        space.memory().iter().map(GuestMemoryRegion::len).sum()
    }
    let memory = memory();
    let before = memory.as_vm_memory();
    assert_eq!(sum(&memory), 4 * PAGE);
    memory.remove(GuestAddress(5 * PAGE)).unwrap();
    assert_eq!(sum(&memory), 3 * PAGE);
    before.write_slice(&[1], GuestAddress(5 * PAGE)).unwrap();
    assert_eq!(
        before.num_regions(),
        3,
        "a snapshot stays what it was, and its memory stays mapped"
    );
}

fn near_a_border() -> impl Strategy<Value = u64> {
    let borders = prop::sample::select(vec![0, PAGE, 2 * PAGE, 4 * PAGE, 5 * PAGE, 6 * PAGE, u64::MAX]);
    (borders, -40i64..40).prop_map(|(border, offset)| border.wrapping_add_signed(offset))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn exactly_what_is_ram_is_written(
        accesses in prop::collection::vec((near_a_border(), prop::collection::vec(1u8.., 0..90)), 1..20)
    ) {
        let memory = memory();
        let mut model = vec![0u8; 7 * PAGE as usize];
        for (address, data) in accesses {
            let addresses = (0..data.len() as u64).map(|n| address.checked_add(n));
            let all_ram = addresses.into_iter().all(|a| a.is_some_and(is_ram));
            let at = GuestAddress(address);
            prop_assert_eq!(memory.contains(at, data.len() as u64), all_ram);
            prop_assert_eq!(memory.write(at, &data).is_ok(), all_ram);
            if all_ram && !data.is_empty() {
                model[address as usize..][..data.len()].copy_from_slice(&data);
            }
            let mut back = vec![0; data.len()];
            prop_assert_eq!(memory.read(at, &mut back).is_ok(), all_ram);
            prop_assert_eq!(back, if all_ram { data } else { vec![0; data.len()] });
        }
        for (start, size) in [(PAGE, 3 * PAGE), (5 * PAGE, PAGE)] {
            let mut whole = vec![0; size as usize];
            memory.read(GuestAddress(start), &mut whole).unwrap();
            prop_assert_eq!(&whole, &model[start as usize..][..size as usize]);
        }
    }
}
