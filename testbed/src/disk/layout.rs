//! The geometry of a server disk in bytes: GPT, EFI system partition, root partition, backup GPT.
//! Pure numbers: nothing here touches a file.

use std::ops::Range;

/// Where the partitions of a server disk lie. All extents are multiples of one MiB but the two tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The EFI system partition, in bytes from the start of the disk.
    pub esp: Range<u64>,
    /// The root partition, in bytes from the start of the disk.
    pub root: Range<u64>,
    /// The size of the disk in bytes.
    pub total: u64,
}

impl Layout {
    /// Places an EFI system partition of `esp_mib` and a root partition of `root_mib` one after the other,
    /// one MiB kept free at each end for the partition tables.
    pub fn fit(esp_mib: u64, root_mib: u64) -> Layout {
        let esp = MIB..MIB * (1 + esp_mib);
        let root = esp.end..esp.end + MIB * root_mib;
        let total = root.end + MIB;
        Layout { esp, root, total }
    }

    /// Everything that is not the root partition: tables, EFI system partition and gaps.
    pub fn outside_root(&self) -> [Range<u64>; 2] {
        [0..self.root.start, self.root.end..self.total]
    }

    /// First and last sector of an extent, as partitioning tools want them.
    pub fn sectors(extent: &Range<u64>) -> (u64, u64) {
        (extent.start / SECTOR, extent.end / SECTOR - 1)
    }
}

/// The logical block size that the tables are written for.
pub const SECTOR: u64 = 512;

/// One mebibyte: partitions start on such a boundary.
pub const MIB: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_neither_overlap_nor_touch_the_tables() {
        let layout = Layout::fit(127, 896);
        assert_eq!(layout.esp, MIB..128 * MIB);
        assert_eq!(layout.root, 128 * MIB..1024 * MIB);
        assert_eq!(layout.total, 1025 * MIB);
        // A GPT takes 34 sectors at the front and 33 at the back.
        assert!(layout.esp.start >= 34 * SECTOR);
        assert!(layout.total - layout.root.end >= 33 * SECTOR);
    }

    #[test]
    fn what_is_outside_the_root_and_the_root_make_the_whole_disk() {
        let layout = Layout::fit(33, 7);
        let outside: u64 = layout
            .outside_root()
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        assert_eq!(outside + (layout.root.end - layout.root.start), layout.total);
        assert!(
            layout
                .outside_root()
                .iter()
                .all(|range| !range.contains(&layout.root.start))
        );
    }

    #[test]
    fn the_last_sector_of_a_partition_is_the_one_before_the_next_partition() {
        let layout = Layout::fit(127, 896);
        assert_eq!(Layout::sectors(&layout.esp), (2048, 262_143));
        assert_eq!(Layout::sectors(&layout.root).0, 262_144);
    }
}
