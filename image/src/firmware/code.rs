//! The code of a firmware: a flash image that ends with the processor's reset vector.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::FirmwareError;
use super::variables::is_variable_volume;

/// A firmware's code, whole and plausible. It lies below 4 GiB.
#[derive(Clone, PartialEq, Eq)]
pub struct FirmwareCode {
    bytes: Vec<u8>,
}

impl FirmwareCode {
    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read, is larger than 8 MiB, is not whole pages, holds variables, or has no reset vector.
    pub fn open(path: &Path) -> Result<Self, FirmwareError> {
        let bytes = read_bounded(path, LARGEST)?;
        Self::of(bytes).map_err(|reason| FirmwareError::NotCode {
            path: path.to_owned(),
            reason,
        })
    }

    fn of(bytes: Vec<u8>) -> Result<Self, String> {
        let size = bytes.len();
        if size > LARGEST {
            return Err(format!("it has more than {LARGEST} bytes"));
        }
        if size == 0 || !size.is_multiple_of(PAGE) {
            return Err(format!("its {size} bytes are not whole pages of {PAGE}"));
        }
        if is_variable_volume(&bytes) {
            return Err("it is a variable store, or code and variables in one file".to_owned());
        }
        let vector = bytes.get(size - RESET_VECTOR..).unwrap_or_default();
        let first = vector.first().copied().unwrap_or(0);
        if matches!(first, 0 | 0xff) && vector.iter().all(|byte| *byte == first) {
            return Err("it has no reset vector in its last 16 bytes".to_owned());
        }
        Ok(Self { bytes })
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The size of the variable store that goes with it: together they are a power of two.
    #[must_use]
    pub fn store_size(&self) -> u64 {
        let size = self.bytes.len() as u64;
        size.next_power_of_two() - size
    }
}

impl std::fmt::Debug for FirmwareCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirmwareCode")
            .field("size", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// A file's bytes, one more than `most` at most.
pub(super) fn read_bounded(path: &Path, most: usize) -> Result<Vec<u8>, FirmwareError> {
    let failed = |source| FirmwareError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

const LARGEST: usize = 8 << 20;
const PAGE: usize = 4096;
const RESET_VECTOR: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_without_a_reset_vector_or_of_odd_size_is_refused() {
        let reason = |bytes: &[u8]| FirmwareCode::of(bytes.to_vec()).unwrap_err();
        assert!(reason(&[]).contains("whole pages"));
        assert!(reason(&[0x90; 4095]).contains("whole pages"));
        assert!(reason(&[0xff; 4096]).contains("reset vector"));
        assert!(reason(&[0; 4096]).contains("reset vector"));
        assert!(reason(&vec![0x90; LARGEST + 1]).contains("more than"));
        let mut vector = [0xff; 0x3000];
        vector[0x2ff0] = 0xe9;
        assert_eq!(FirmwareCode::of(vector.to_vec()).unwrap().store_size(), 0x1000);
    }
}
