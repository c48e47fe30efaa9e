//! A qcow2 image as a disk, read-only (QEMU's docs/interop/qcow2.rst, versions 2 and 3).
//!
//! No table is kept in memory: each read looks up its entry in the file. An image that continues in another file (a backing file, an
//! external data file) is refused, because the name of that file is the image's word, and it could be any file of the host.

use std::io::{self, Read, Seek, SeekFrom};

use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

/// The disk inside a qcow2 image.
pub(crate) struct Qcow2<R> {
    file: R,
    geometry: Geometry,
    /// Bytes of the file.
    file_size: u64,
    position: u64,
    /// The compressed cluster that was read last: its entry in the table, and what it holds.
    inflated: (u64, Vec<u8>),
    /// Bytes that may still be decompressed.
    budget: u64,
}

/// What the header says, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry {
    cluster_bits: u32,
    /// Bytes of the disk.
    size: u64,
    /// Where in the file the first level table lies.
    table: u64,
    has_zero_flag: bool,
}

/// Where a piece of the disk is.
enum Cluster {
    Zero,
    /// At this offset in the file.
    Plain(u64),
    /// The entry of a compressed cluster.
    Compressed(u64),
}

impl<R: Read + Seek> Qcow2<R> {
    /// Whether a file begins as a qcow2 image does.
    pub(crate) fn is_present(start: &[u8]) -> bool {
        start.starts_with(MAGIC)
    }

    /// Reads the header of `file`.
    pub(crate) fn open(mut file: R) -> io::Result<Self> {
        let file_size = file.seek(SeekFrom::End(0))?;
        let mut header = [0; HEADER];
        file.seek(SeekFrom::Start(0))?;
        let read = super::fill(&mut file, &mut header)?;
        if read < 72 {
            return Err(refused("the qcow2 header is cut off"));
        }
        let geometry = Geometry::parse(&header)?;
        Ok(Self {
            file,
            geometry,
            file_size,
            position: 0,
            inflated: (0, Vec::new()),
            budget: MAX_INFLATED,
        })
    }

    fn long_at(&mut self, offset: u64) -> io::Result<u64> {
        let mut raw = [0; 8];
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(&mut raw)?;
        Ok(u64::from_be_bytes(raw))
    }

    fn locate(&mut self, position: u64) -> io::Result<Cluster> {
        let bits = self.geometry.cluster_bits;
        // A second level table is one cluster of entries of eight bytes.
        let first = position >> (bits + bits - 3);
        let second = position >> bits & ((1 << (bits - 3)) - 1);
        let table = self.long_at(self.geometry.table + first * 8)? & OFFSET;
        if table == 0 {
            return Ok(Cluster::Zero);
        }
        let entry = self.long_at(table + second * 8)?;
        if entry & COMPRESSED != 0 {
            return Ok(Cluster::Compressed(entry));
        }
        let is_zero = self.geometry.has_zero_flag && entry & 1 != 0;
        Ok(match entry & OFFSET {
            0 => Cluster::Zero,
            _ if is_zero => Cluster::Zero,
            offset => Cluster::Plain(offset),
        })
    }

    /// Decompresses the cluster behind `entry` unless it was the last one.
    fn inflate(&mut self, entry: u64) -> io::Result<()> {
        if self.inflated.0 == entry {
            return Ok(());
        }
        let bits = self.geometry.cluster_bits;
        let split = 62 - (bits - 8);
        let offset = entry & ((1 << split) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> split;
        let length = (sectors + 1) * 512 - (offset & 511);
        let length = length.min(self.file_size.saturating_sub(offset));
        let cluster = 1usize << bits;
        let left = self.budget.checked_sub(cluster as u64);
        self.budget =
            left.ok_or_else(|| refused("it makes its reader decompress more than any boot needs"))?;
        let mut packed = vec![0; length as usize];
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(&mut packed)?;
        self.inflated.0 = 0;
        self.inflated.1.resize(cluster, 0);
        let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let mut decompressor = DecompressorOxide::new();
        let (_, _, written) = decompress(&mut decompressor, &packed, &mut self.inflated.1, 0, flags);
        if written != cluster {
            return Err(refused("a compressed cluster is damaged"));
        }
        self.inflated.0 = entry;
        Ok(())
    }
}

impl<R: Read + Seek> Read for Qcow2<R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        let cluster = 1u64 << self.geometry.cluster_bits;
        let within = self.position & (cluster - 1);
        let left = self.geometry.size.saturating_sub(self.position);
        let count = (cluster - within).min(left).min(data.len() as u64) as usize;
        let data = &mut data[..count];
        if count == 0 {
            return Ok(0);
        }
        match self.locate(self.position)? {
            Cluster::Zero => data.fill(0),
            Cluster::Plain(offset) => {
                self.file.seek(SeekFrom::Start(offset + within))?;
                self.file.read_exact(data)?;
            }
            Cluster::Compressed(entry) => {
                self.inflate(entry)?;
                data.copy_from_slice(&self.inflated.1[within as usize..within as usize + count]);
            }
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl<R> Seek for Qcow2<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.geometry.size.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "a seek before the start of the disk");
        self.position = target.ok_or_else(before)?;
        Ok(self.position)
    }
}

impl Geometry {
    fn parse(header: &[u8; HEADER]) -> io::Result<Self> {
        let dword =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| u64::from(dword(at)) << 32 | u64::from(dword(at + 4));
        let version = dword(4);
        if !matches!(version, 2 | 3) {
            return Err(refused(
                "it is a qcow2 image of a version that is not known (2 and 3 are)",
            ));
        }
        if long(8) != 0 {
            return Err(refused(
                "it is a qcow2 image with a backing file, which is not followed; flatten it with qemu-img convert",
            ));
        }
        if dword(32) != 0 {
            return Err(refused("it is an encrypted qcow2 image"));
        }
        let features = if version == 3 { long(72) } else { 0 };
        if features & CORRUPT != 0 {
            return Err(refused(
                "it is a qcow2 image that is marked as corrupt; repair it with qemu-img check -r",
            ));
        }
        if features & EXTERNAL_DATA != 0 {
            return Err(refused(
                "it is a qcow2 image with an external data file, which is not followed; flatten it with qemu-img convert",
            ));
        }
        let has_type = features & COMPRESSION_TYPE != 0 && dword(100) > 104;
        if has_type && header[104] != 0 {
            return Err(refused(
                "it is a qcow2 image with zstd compression; convert it to zlib with qemu-img convert",
            ));
        }
        if features & !(DIRTY | COMPRESSION_TYPE) != 0 {
            return Err(refused(
                "it is a qcow2 image with features that are not known (extended L2 entries?)",
            ));
        }
        let (cluster_bits, size) = (dword(20), long(24));
        if !(9..=21).contains(&cluster_bits) {
            return Err(refused("its qcow2 header is damaged: the cluster size"));
        }
        let covered = u64::from(dword(36)).checked_shl(2 * cluster_bits - 3);
        // A table of 32 MiB is what QEMU allows; with clusters of 2 MiB it covers more than 2^61 bytes.
        if dword(36) > 1 << 22 || covered.is_none_or(|covered| covered < size) {
            return Err(refused(
                "its qcow2 header is damaged: the first level table does not cover the disk",
            ));
        }
        let table = long(40);
        if table & !OFFSET != 0 {
            return Err(refused(
                "its qcow2 header is damaged: the place of the first level table",
            ));
        }
        Ok(Self {
            cluster_bits,
            size,
            table,
            has_zero_flag: version == 3,
        })
    }
}

fn refused(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

const MAGIC: &[u8] = b"QFI\xfb";
const HEADER: usize = 112;
/// Bits 9 to 55 of an entry are an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
/// A kernel and an initrd of a gigabyte each, read twice.
const MAX_INFLATED: u64 = 4 << 30;
