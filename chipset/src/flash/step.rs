//! Where a chip is in the sequence of its commands, and the commands and status bits themselves.

use super::FlashMode;

/// What the next write means.
pub(super) enum Step {
    /// A command; reads are the contents.
    Array,
    /// A command; reads are the status.
    Status,
    /// Data to program.
    Program,
    /// The confirmation of an erase.
    Erase,
    /// How many writes of data follow, less one.
    Count,
    /// Data to program later; `left` more of them.
    Buffer { left: usize, filled: Vec<(u64, Word)> },
}

/// What one write carries.
#[derive(Clone, Copy)]
pub(super) struct Word {
    pub(super) bytes: [u8; 8],
    pub(super) length: usize,
}

impl Step {
    pub(super) fn mode(&self) -> FlashMode {
        match self {
            Self::Array => FlashMode::Array,
            _ => FlashMode::Status,
        }
    }
}

impl Word {
    pub(super) fn of(data: &[u8]) -> Option<Self> {
        let mut bytes = [0; 8];
        bytes.get_mut(..data.len())?.copy_from_slice(data);
        let length = data.len();
        (length > 0).then_some(Self { bytes, length })
    }
}

pub(super) const PROGRAM_TOO: u8 = 0x10;
pub(super) const ERASE: u8 = 0x20;
pub(super) const PROGRAM: u8 = 0x40;
pub(super) const CLEAR_STATUS: u8 = 0x50;
pub(super) const READ_STATUS: u8 = 0x70;
pub(super) const CONFIRM: u8 = 0xd0;
pub(super) const PROGRAM_BUFFER: u8 = 0xe8;
pub(super) const READ_ARRAY: u8 = 0xff;
/// The status register reads 0 after it was cleared until the next operation is done, as QEMU's chip has it and OVMF looks for.
pub(super) const READY: u8 = 0x80;
pub(super) const ERASE_FAILED: u8 = 0x20;
pub(super) const PROGRAM_FAILED: u8 = 0x10;
