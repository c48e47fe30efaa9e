//! The memory map that a kernel is told (e820 and PVH number the kinds alike).

use pellucid_partition::Layout;

/// One range of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapEntry {
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) kind: u32,
}

pub(crate) const RAM: u32 = 1;
pub(crate) const RESERVED: u32 = 2;

/// The map of a logical server: RAM as the layout says, less what a PC keeps below 1 MiB; ECAM and the board's pages reserved.
pub(crate) fn memory_map(layout: &Layout) -> Vec<MapEntry> {
    let entry = |start: u64, end: u64, kind| MapEntry {
        start,
        size: end - start,
        kind,
    };
    let (low, high) = (Layout::LEGACY.start, Layout::HIGH_MEMORY.0);
    let mut map = vec![
        entry(0, EBDA, RAM),
        entry(EBDA, low, RESERVED),
        entry(Layout::ACPI.start, Layout::SMBIOS.end, RESERVED),
        entry(Layout::ECAM.start, Layout::ECAM.end, RESERVED),
        entry(Layout::KVM_IDENTITY_MAP, Layout::KVM_TSS + 3 * 4096, RESERVED),
    ];
    // The guest finds which node a range belongs to in other tables.
    for range in layout.ram().iter().filter(|range| range.end > high) {
        map.push(entry(range.start.max(high), range.end, RAM));
    }
    map.sort_by_key(|entry| entry.start);
    map
}

/// Where PC firmware keeps its extended BIOS data area: kernels leave the rest below 640 KiB alone anyway.
const EBDA: u64 = 0x9_fc00;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_map_ascends_and_holds_all_ram_but_the_legacy_hole(mebibytes in 8u64..4096) {
            let layout = Layout::new(mebibytes << 21, 39).unwrap();
            let map = memory_map(&layout);
            prop_assert!(map.windows(2).all(|pair| pair[0].start + pair[0].size <= pair[1].start));
            let ram: u64 = map.iter().filter(|entry| entry.kind == RAM).map(|entry| entry.size).sum();
            prop_assert_eq!(ram, layout.memory() - (0x10_0000 - EBDA));
        }
    }
}
