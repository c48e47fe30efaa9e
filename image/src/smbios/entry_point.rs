//! The anchors that lead to the table: `_SM_` of SMBIOS 2.1 to 2.8 and `_SM3_` of 3.0 on (DSP0134 section 5.2).

use serde::{Deserialize, Serialize};

use super::error::SmbiosError;

/// Which of the two anchors a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Anchor {
    /// `_SM_`: a table below 4 GiB of at most 64 KiB.
    Bits32,
    /// `_SM3_`.
    Bits64,
}

/// What an entry point says, its address of the table left aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryPoint {
    /// Its form.
    pub anchor: Anchor,
    /// SMBIOS version, major and minor.
    pub version: [u8; 2],
    /// `_SM_`: the same version as a BCD number, 0 if not said; `_SM3_`: the revision of the specification.
    pub revision: u8,
    /// Bytes that the table has (`_SM_`) or has at most (`_SM3_`).
    pub table_size: u32,
}

impl EntryPoint {
    /// Reads an entry point from its first byte on; bytes behind it do not matter.
    pub fn parse(bytes: &[u8]) -> Result<Self, SmbiosError> {
        if let Some(bytes) = bytes.first_chunk::<BITS64_SIZE>()
            && bytes.starts_with(b"_SM3_")
        {
            sums(bytes, bytes[6])?;
            return Ok(Self {
                anchor: Anchor::Bits64,
                version: [bytes[7], bytes[8]],
                revision: bytes[9],
                table_size: u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]),
            });
        }
        let refuse = |reason| Err(SmbiosError::EntryPoint { reason });
        let Some(bytes) = bytes.first_chunk::<BITS32_SIZE>() else {
            return refuse("it is too short");
        };
        if !bytes.starts_with(b"_SM_") {
            return refuse("it has another anchor");
        }
        sums(bytes, bytes[5])?;
        if !bytes[16..].starts_with(b"_DMI_") || !is_zero_sum(&bytes[16..]) {
            return refuse("its second part has another anchor or a wrong checksum");
        }
        Ok(Self {
            anchor: Anchor::Bits32,
            version: [bytes[6], bytes[7]],
            revision: bytes[30],
            table_size: u32::from(u16::from_le_bytes([bytes[22], bytes[23]])),
        })
    }

    /// Bytes of such an entry point.
    #[must_use]
    pub fn size(&self) -> usize {
        match self.anchor {
            Anchor::Bits32 => BITS32_SIZE,
            Anchor::Bits64 => BITS64_SIZE,
        }
    }

    /// The entry point of this version for a table at `address` of `count` structures, the largest of which has `largest` bytes.
    pub(crate) fn encode(&self, address: u32, (size, count, largest): (u16, u16, u16)) -> Vec<u8> {
        let [major, minor] = self.version;
        let mut bytes = Vec::with_capacity(BITS32_SIZE);
        match self.anchor {
            Anchor::Bits64 => {
                let head = [0, BITS64_SIZE as u8, major, minor, self.revision, 1, 0];
                bytes.extend_from_slice(b"_SM3_");
                bytes.extend_from_slice(&head);
                bytes.extend_from_slice(&u32::from(size).to_le_bytes());
                bytes.extend_from_slice(&u64::from(address).to_le_bytes());
                bytes[5] = missing(&bytes);
            }
            Anchor::Bits32 => {
                bytes.extend_from_slice(b"_SM_");
                bytes.extend_from_slice(&[0, BITS32_SIZE as u8, major, minor]);
                bytes.extend_from_slice(&largest.to_le_bytes());
                bytes.extend_from_slice(&[0; 6]);
                bytes.extend_from_slice(b"_DMI_\0");
                bytes.extend_from_slice(&size.to_le_bytes());
                bytes.extend_from_slice(&address.to_le_bytes());
                bytes.extend_from_slice(&count.to_le_bytes());
                bytes.push(self.revision);
                bytes[21] = missing(&bytes[16..]);
                bytes[4] = missing(&bytes);
            }
        }
        bytes
    }
}

/// Refuses an entry point that says another length than `bytes` have, or whose bytes do not sum to 0.
fn sums(bytes: &[u8], said: u8) -> Result<(), SmbiosError> {
    match usize::from(said) == bytes.len() && is_zero_sum(bytes) {
        true => Ok(()),
        false => Err(SmbiosError::EntryPoint {
            reason: "its length or checksum is wrong",
        }),
    }
}

fn is_zero_sum(bytes: &[u8]) -> bool {
    missing(bytes) == 0
}

/// What makes the sum of all bytes 0.
fn missing(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

const BITS32_SIZE: usize = 31;
const BITS64_SIZE: usize = 24;
