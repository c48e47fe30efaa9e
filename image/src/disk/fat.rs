//! A FAT12, FAT16 or FAT32 volume: its geometry and its cluster chains.
//!
//! Chains become lists of byte ranges when a file is opened, so reading is then plain positioned reads. A chain that loops, leaves
//! the volume or is more fragmented than any boot file is refused.

use std::io::{self, Read, Seek};
use std::ops::Range;

use super::DiskSource;

/// Where things lie on a volume, checked against its size. All offsets are bytes on the disk.
#[derive(Debug, Clone)]
pub(crate) struct Fat {
    kind: Kind,
    table: Range<u64>,
    root: Root,
    data: u64,
    cluster_size: u64,
    /// Clusters that hold data; they are numbered from 2.
    clusters: u32,
    /// The volume's serial number and label, where its boot sector has them.
    serial: Option<u32>,
    label: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

#[derive(Debug, Clone)]
enum Root {
    Fixed(Range<u64>),
    Cluster(u32),
}

impl Fat {
    /// Reads the boot sector of the volume in `range` of the disk.
    pub(crate) fn open<R: Read + Seek>(disk: &DiskSource<R>, range: Range<u64>) -> io::Result<Self> {
        let mut boot = [0; 512];
        disk.read_at(range.start, &mut boot)?;
        Self::parse(&boot, range)
    }

    fn parse(boot: &[u8; 512], range: Range<u64>) -> io::Result<Self> {
        let byte = |at: usize| u64::from(boot[at]);
        let word = |at: usize| byte(at) | byte(at + 1) << 8;
        let dword = |at: usize| word(at) | word(at + 2) << 16;
        let sector = word(11);
        if boot[510..] != [0x55, 0xaa] || !matches!(sector, 512 | 1024 | 2048 | 4096) {
            return Err(invalid("no FAT boot sector"));
        }
        let (per_cluster, reserved, tables, root_entries) = (byte(13), word(14), byte(16), word(17));
        if !per_cluster.is_power_of_two() || reserved == 0 || tables == 0 {
            return Err(invalid("the FAT boot sector contradicts itself"));
        }
        let total = if word(19) != 0 { word(19) } else { dword(32) };
        let table_sectors = if word(22) != 0 { word(22) } else { dword(36) };
        let root_sectors = (root_entries * 32).div_ceil(sector);
        let table = reserved * sector;
        let root = table + tables * table_sectors * sector;
        let data = root + root_sectors * sector;
        let cluster_size = per_cluster * sector;
        if total * sector > range.end - range.start || data >= total * sector || table_sectors == 0 {
            return Err(invalid("the FAT volume is larger than its partition"));
        }
        let clusters = ((total * sector - data) / cluster_size) as u32;
        let kind = match clusters {
            ..4085 => Kind::Fat12,
            4085..65525 => Kind::Fat16,
            _ => Kind::Fat32,
        };
        let at = |offset: u64| range.start + offset;
        let root = match kind {
            Kind::Fat32 => Root::Cluster(dword(44) as u32),
            _ => Root::Fixed(at(root)..at(data)),
        };
        let table = at(table)..at(table + table_sectors * sector);
        // FAT32 has more fields before these.
        let extended = if kind == Kind::Fat32 { 66 } else { 38 };
        let has_names = boot[extended] == 0x29;
        let label = if has_names {
            &boot[extended + 5..extended + 16]
        } else {
            &[]
        };
        Ok(Self {
            serial: has_names.then(|| dword(extended + 1) as u32),
            label: String::from_utf8_lossy(label).trim_end().to_owned(),
            kind,
            table,
            root,
            data: at(data),
            cluster_size,
            clusters,
        })
    }

    /// The serial number as GRUB and Linux write it, `1234-ABCD`; empty when there is none.
    pub(crate) fn uuid(&self) -> String {
        let write = |serial: u32| format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff);
        self.serial.map_or_else(String::new, write)
    }

    /// The label in the boot sector.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// The byte ranges of the root directory.
    pub(crate) fn root_extents<R: Read + Seek>(&self, disk: &DiskSource<R>) -> io::Result<Vec<Range<u64>>> {
        match &self.root {
            Root::Fixed(range) => Ok(vec![range.clone()]),
            Root::Cluster(first) => self.directory_extents(disk, *first),
        }
    }

    /// The byte ranges of a directory that starts at cluster `first`; 0 means the root, as `..` entries have it.
    pub(crate) fn directory_extents<R: Read + Seek>(
        &self,
        disk: &DiskSource<R>,
        first: u32,
    ) -> io::Result<Vec<Range<u64>>> {
        match (&self.root, first) {
            (Root::Fixed(range), 0) => Ok(vec![range.clone()]),
            (Root::Cluster(root), 0) if *root != 0 => self.chain(disk, *root, MAX_DIRECTORY),
            _ => self.chain(disk, first, MAX_DIRECTORY),
        }
    }

    /// The byte ranges of a file of `size` bytes; a chain that ends before is refused.
    pub(crate) fn file_extents<R: Read + Seek>(
        &self,
        disk: &DiskSource<R>,
        first: u32,
        size: u64,
    ) -> io::Result<Vec<Range<u64>>> {
        if size == 0 {
            return Ok(Vec::new());
        }
        let mut extents = self.chain(disk, first, size)?;
        let mut left = size;
        for extent in &mut extents {
            let length = left.min(extent.end - extent.start);
            extent.end = extent.start + length;
            left -= length;
        }
        if left > 0 {
            return Err(invalid("the file's cluster chain ends before the file does"));
        }
        Ok(extents)
    }

    /// Follows a chain until its end or until `limit` bytes are covered.
    fn chain<R: Read + Seek>(
        &self,
        disk: &DiskSource<R>,
        first: u32,
        limit: u64,
    ) -> io::Result<Vec<Range<u64>>> {
        let mut extents: Vec<Range<u64>> = Vec::new();
        let (mut cluster, mut covered) = (first, 0);
        while covered < limit {
            let index = cluster.checked_sub(2).filter(|&index| index < self.clusters);
            let index = index.ok_or_else(|| invalid("a cluster chain leaves the volume"))?;
            let start = self.data + u64::from(index) * self.cluster_size;
            match extents.last_mut() {
                Some(last) if last.end == start => last.end += self.cluster_size,
                _ => extents.push(start..start + self.cluster_size),
            }
            if extents.len() > MAX_EXTENTS {
                return Err(invalid("the file is in too many fragments"));
            }
            covered += self.cluster_size;
            match self.next(disk, cluster)? {
                Some(next) => cluster = next,
                None => break,
            }
        }
        let mut sorted = extents.clone();
        sorted.sort_unstable_by_key(|extent| extent.start);
        if sorted.windows(2).any(|pair| pair[0].end > pair[1].start) {
            return Err(invalid("a cluster chain loops"));
        }
        Ok(extents)
    }

    /// The cluster after `cluster`, or `None` at the end of the chain.
    fn next<R: Read + Seek>(&self, disk: &DiskSource<R>, cluster: u32) -> io::Result<Option<u32>> {
        let cluster = u64::from(cluster);
        let (offset, width) = match self.kind {
            Kind::Fat12 => (cluster + cluster / 2, 2),
            Kind::Fat16 => (cluster * 2, 2),
            Kind::Fat32 => (cluster * 4, 4),
        };
        let mut raw = [0; 4];
        if self.table.start + offset + width > self.table.end {
            return Err(invalid("a cluster lies behind the end of the allocation table"));
        }
        disk.read_at(self.table.start + offset, &mut raw[..width as usize])?;
        let value = u32::from_le_bytes(raw);
        let (value, end) = match self.kind {
            Kind::Fat12 if cluster & 1 == 1 => (value >> 4, 0xff8),
            Kind::Fat12 => (value & 0xfff, 0xff8),
            Kind::Fat16 => (value, 0xfff8),
            Kind::Fat32 => (value & 0x0fff_ffff, 0x0fff_fff8),
        };
        Ok((value < end).then_some(value))
    }
}

pub(crate) fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// FAT directories have at most 65,536 entries of 32 bytes.
pub(crate) const MAX_DIRECTORY: u64 = 65_536 * 32;
const MAX_EXTENTS: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A FAT16 boot sector: 512-byte sectors, one per cluster, two tables of 64 sectors, 10,000 sectors in all.
    fn boot_sector() -> [u8; 512] {
        let mut boot = [0; 512];
        boot[11..13].copy_from_slice(&512u16.to_le_bytes());
        (boot[13], boot[14], boot[16]) = (1, 1, 2);
        boot[17..19].copy_from_slice(&512u16.to_le_bytes());
        boot[19..21].copy_from_slice(&10_000u16.to_le_bytes());
        boot[22..24].copy_from_slice(&64u16.to_le_bytes());
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        boot
    }

    const SIZE: u64 = 10_000 * 512;

    /// A disk whose volume has these table entries from cluster 2 on.
    fn volume(entries: &[u16]) -> (DiskSource<Cursor<Vec<u8>>>, Fat) {
        let mut disk = vec![0; SIZE as usize];
        disk[..512].copy_from_slice(&boot_sector());
        for (index, entry) in entries.iter().enumerate() {
            disk[512 + 4 + index * 2..][..2].copy_from_slice(&entry.to_le_bytes());
        }
        let disk = DiskSource::new(Cursor::new(disk)).unwrap();
        let fat = Fat::open(&disk, 0..SIZE).unwrap();
        (disk, fat)
    }

    fn extents(entries: &[u16], size: u64) -> Result<Vec<Range<u64>>, String> {
        let (disk, fat) = volume(entries);
        fat.file_extents(&disk, 2, size)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_geometry_follows_from_the_boot_sector() {
        let fat = Fat::parse(&boot_sector(), 0..SIZE).unwrap();
        let data = (1 + 2 * 64 + 32) * 512;
        assert_eq!(
            (fat.kind, fat.table, fat.data),
            (Kind::Fat16, 512..65 * 512, data)
        );
        assert_eq!(u64::from(fat.clusters), (SIZE - data) / 512);
    }

    #[test]
    fn neighbouring_clusters_become_one_range_and_the_last_is_cut_to_size() {
        let start = (1 + 2 * 64 + 32) * 512;
        let whole = extents(&[3, 4, 0xffff], 1100).unwrap();
        assert_eq!((whole.len(), &whole[0]), (1, &(start..start + 1100)));
        let split = vec![start..start + 512, start + 1024..start + 1124];
        assert_eq!(extents(&[4, 0, 0xfff8], 612), Ok(split));
        assert_eq!(extents(&[0xffff], 0), Ok(vec![]));
    }

    #[test]
    fn chains_that_end_early_leave_the_volume_or_loop_are_refused() {
        assert!(
            extents(&[0xffff], 513)
                .unwrap_err()
                .contains("ends before the file")
        );
        assert!(extents(&[0], 513).unwrap_err().contains("leaves the volume"));
        assert!(extents(&[1], 513).unwrap_err().contains("leaves the volume"));
        assert!(extents(&[0xfff6], 513).unwrap_err().contains("leaves the volume"));
        assert!(extents(&[3, 2], 4096).unwrap_err().contains("loops"));
        assert!(extents(&[2], 4096).unwrap_err().contains("loops"));
    }

    #[test]
    fn a_boot_sector_that_contradicts_itself_is_refused() {
        for (at, value) in [
            (510, 0),
            (11, 1),
            (13, 0),
            (13, 3),
            (14, 0),
            (16, 0),
            (22, 0),
            (20, 0xff),
        ] {
            let mut boot = boot_sector();
            boot[at] = value;
            assert!(Fat::parse(&boot, 0..SIZE).is_err(), "byte {at} is {value}");
        }
    }
}
