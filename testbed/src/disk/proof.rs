//! Digests of parts of a disk, to show which parts a boot wrote and which it did not.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::{DiskError, Subject};
use super::layout::Layout;

/// SHA-256 digests of a disk: of all of it, and of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The root partition, which the operating system writes when it is mounted read-write.
    pub root: String,
    /// All else: both partition tables, the EFI system partition and the gaps.
    pub outside_root: String,
}

impl Fingerprint {
    /// Reads a disk and fingerprints it.
    pub fn survey(disk: &Path, layout: &Layout) -> Result<Fingerprint, DiskError> {
        let outside_root = digest(disk, &layout.outside_root())?;
        let root = digest(disk, std::slice::from_ref(&layout.root))?;
        Ok(Fingerprint { root, outside_root })
    }
}

/// The SHA-256 of the given ranges of a file, one after the other, in hexadecimal.
pub fn digest(file: &Path, ranges: &[Range<u64>]) -> Result<String, DiskError> {
    let mut source = File::open(file).of(file)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for range in ranges {
        source.seek(SeekFrom::Start(range.start)).of(file)?;
        let mut part = (&mut source).take(range.end - range.start);
        let mut left = range.end - range.start;
        while left > 0 {
            let count = part.read(&mut buffer).of(file)?;
            if count == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)).of(file);
            }
            hash.update(&buffer[..count]);
            left -= count as u64;
        }
    }
    Ok(hex(&hash.finalize()))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), bytes).expect("write");
        file
    }

    fn tiny() -> Layout {
        Layout {
            esp: 4..8,
            root: 8..14,
            total: 16,
        }
    }

    #[test]
    fn a_write_to_the_root_changes_only_the_roots_digest() {
        let mut bytes = [7u8; 16];
        let before = Fingerprint::survey(disk(&bytes).path(), &tiny()).expect("before");
        bytes[13] = 8;
        let after = Fingerprint::survey(disk(&bytes).path(), &tiny()).expect("after");
        assert_ne!(before.root, after.root);
        assert_eq!(before.outside_root, after.outside_root);
    }

    #[test]
    fn every_byte_outside_the_root_counts() {
        let before = Fingerprint::survey(disk(&[7; 16]).path(), &tiny()).expect("before");
        for place in [0, 3, 4, 7, 14, 15] {
            let mut bytes = [7u8; 16];
            bytes[place] = 8;
            let after = Fingerprint::survey(disk(&bytes).path(), &tiny()).expect("after");
            assert_ne!(before.outside_root, after.outside_root, "byte {place}");
            assert_eq!(before.root, after.root, "byte {place}");
        }
    }

    #[test]
    fn a_digest_of_ranges_is_that_of_their_bytes() {
        let file = disk(b"..abc..def..");
        let expected = hex(&Sha256::digest(b"abcdef"));
        assert_eq!(digest(file.path(), &[2..5, 7..10]).expect("digest"), expected);
    }

    #[test]
    fn a_disk_shorter_than_its_layout_is_refused() {
        assert!(Fingerprint::survey(disk(&[7; 15]).path(), &tiny()).is_err());
    }
}
