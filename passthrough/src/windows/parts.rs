//! How a BAR is divided into what is mapped into the guest and what is trapped. Pure.

use std::ops::Range;

use crate::bars::BarShape;
use crate::msix::Geometry;
use crate::transport::RegionInfo;

/// A BAR's pages: those mapped into the guest, and the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Parts {
    pub(super) mapped: Vec<Range<u64>>,
    pub(super) trapped: Vec<Range<u64>>,
}

impl Parts {
    /// Nothing is mapped.
    pub(super) fn trapped(size: u64) -> Parts {
        Parts {
            mapped: Vec::new(),
            trapped: vec![Range { start: 0, end: size }],
        }
    }
}

/// Divides a BAR: mapped is what the transport can map, in whole pages, less the pages of the MSI-X table and pending bits.
pub(super) fn parts(bar: &BarShape, info: &RegionInfo, msix: Option<Geometry>) -> Parts {
    let up = |value: u64| value.div_ceil(PAGE) * PAGE;
    let down = |value: u64| value / PAGE * PAGE;
    let mut holes: Vec<Range<u64>> = Vec::new();
    if let Some(msix) = msix {
        for (at, range) in [
            (msix.table.0, msix.table_range()),
            (msix.pending.0, msix.pending_range()),
        ] {
            if at == bar.index {
                holes.push(down(range.start)..up(range.end));
            }
        }
    }
    holes.sort_by_key(|hole| hole.start);
    let mut areas: Vec<Range<u64>> = info
        .mappable
        .iter()
        // What is said to be mappable behind the region's end is not there.
        .map(|area| up(area.start)..down(area.end.min(bar.size).min(info.size)))
        .collect();
    areas.sort_by_key(|area| area.start);
    let mut parts = Parts::default();
    let mut at = 0;
    for area in areas {
        let mut start = area.start.max(at);
        for hole in holes
            .iter()
            .filter(|hole| hole.start < area.end && area.start < hole.end)
        {
            parts.add(&mut at, start..hole.start);
            start = start.max(hole.end);
        }
        parts.add(&mut at, start..area.end);
    }
    if at < bar.size {
        parts.trapped.push(at..bar.size);
    }
    parts
}

impl Parts {
    /// Adds a mapped part, and what lies between `at` and it as trapped.
    fn add(&mut self, at: &mut u64, part: Range<u64>) {
        if part.start >= part.end {
            return;
        }
        if *at < part.start {
            self.trapped.push(*at..part.start);
        }
        *at = part.end;
        self.mapped.push(part);
    }
}

/// KVM maps whole pages.
const PAGE: u64 = 4096;

#[cfg(test)]
mod tests {
    #![allow(
        clippy::single_range_in_vec_init,
        reason = "lists of ranges are what is tested"
    )]
    use super::*;
    use crate::inventory::BarKind;
    use proptest::prelude::*;

    fn bar(size: u64) -> BarShape {
        BarShape {
            index: 0,
            kind: BarKind::Memory32 { prefetchable: false },
            size,
            address: 0,
        }
    }

    fn info(size: u64, mappable: &[Range<u64>]) -> RegionInfo {
        RegionInfo {
            size,
            mappable: mappable.to_vec(),
            msix_mappable: true,
        }
    }

    #[test]
    fn the_pages_of_the_msix_table_are_trapped_and_the_doorbells_mapped() {
        let msix = Geometry::new(64, 0x2000, 0x3000);
        let parts = parts(&bar(0x4000), &info(0x4000, &[0..0x4000]), Some(msix));
        assert_eq!(
            (parts.mapped, parts.trapped),
            (vec![0..0x2000], vec![0x2000..0x4000])
        );
    }

    #[test]
    fn a_bar_smaller_than_a_page_is_trapped_whole() {
        let parts = parts(&bar(0x100), &info(0x100, &[0..0x100]), None);
        assert_eq!(parts, Parts::trapped(0x100));
    }

    #[test]
    fn what_the_transport_cannot_map_is_trapped() {
        let sparse = parts(
            &bar(0x8000),
            &info(0x8000, &[0x1000..0x2000, 0x4000..0x8000]),
            None,
        );
        assert_eq!(sparse.mapped, [0x1000..0x2000, 0x4000..0x8000]);
        assert_eq!(sparse.trapped, [0..0x1000, 0x2000..0x4000]);
        assert_eq!(
            parts(&bar(0x8000), &info(0x8000, &[]), None),
            Parts::trapped(0x8000)
        );
    }

    #[test]
    fn a_region_shorter_than_its_bar_is_mapped_to_its_end_only() {
        let short = parts(&bar(0x8000), &info(0x3000, &[0..0x8000]), None);
        assert_eq!(
            (short.mapped, short.trapped),
            (vec![0..0x3000], vec![0x3000..0x8000])
        );
    }

    proptest! {
        #[test]
        fn parts_cover_the_bar_once_and_never_map_the_table(
            bits in 4u32..20,
            areas in proptest::collection::vec((0u64..1 << 20, 0u64..1 << 18), 0..4),
            table in 0u32..1 << 17, pending in 0u32..1 << 17, control: u16,
        ) {
            let bar = bar(1 << bits);
            let areas: Vec<Range<u64>> =
                areas.into_iter().map(|(start, size)| start..(start + size).min(bar.size)).collect();
            let msix = Geometry::new(control, table << 3, pending << 3);
            let parts = parts(&bar, &info(bar.size, &areas), Some(msix));
            let mut all: Vec<Range<u64>> = parts.mapped.iter().chain(&parts.trapped).cloned().collect();
            all.sort_by_key(|part| part.start);
            prop_assert_eq!(all.first().map(|part| part.start), Some(0));
            prop_assert_eq!(all.last().map(|part| part.end), Some(bar.size));
            prop_assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
            for part in &parts.mapped {
                prop_assert!(part.start % PAGE == 0 && part.end % PAGE == 0 && part.start < part.end);
                for held in [msix.table_range(), msix.pending_range()] {
                    prop_assert!(part.end <= held.start || held.end <= part.start);
                }
            }
        }
    }
}
