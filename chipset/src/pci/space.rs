//! The registers of one emulated function: 256 bytes, each bit constant, writable or cleared by writing 1.
//!
//! No lock: a register is an atomic double word. The extended space (0x100 up) reads 0, an empty capability list.

use std::sync::atomic::{AtomicU32, Ordering};

/// 64 double words with the masks of what a guest may change. Built first, shared after.
#[derive(Debug)]
pub(crate) struct Space {
    values: [AtomicU32; WORDS],
    writable: [u32; WORDS],
    clearable: [u32; WORDS],
}

/// What a write did to its double word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// The register number of the double word.
    pub(crate) register: u16,
    pub(crate) before: u32,
    pub(crate) after: u32,
}

impl Space {
    /// A function's identity and class; nothing is writable.
    pub(crate) fn new(vendor: u16, device: u16, class: u32, revision: u8) -> Self {
        let space = Self {
            values: std::array::from_fn(|_| AtomicU32::new(0)),
            writable: [0; WORDS],
            clearable: [0; WORDS],
        };
        space
            .with_u32(VENDOR, u32::from(device) << 16 | u32::from(vendor))
            .with_u32(REVISION, class << 8 | u32::from(revision))
    }

    /// Presets a double word.
    pub(crate) fn with_u32(mut self, register: u16, value: u32) -> Self {
        *self.values[index(register)].get_mut() = value;
        self
    }

    /// Presets a word.
    pub(crate) fn with_u16(mut self, register: u16, value: u16) -> Self {
        let shift = register % 4 / 2 * 16;
        let word = self.values[index(register)].get_mut();
        *word = *word & !(0xffff << shift) | u32::from(value) << shift;
        self
    }

    /// Presets a byte.
    pub(crate) fn with_u8(mut self, register: u16, value: u8) -> Self {
        let shift = register % 4 * 8;
        let word = self.values[index(register)].get_mut();
        *word = *word & !(0xff << shift) | u32::from(value) << shift;
        self
    }

    /// Adds bits to a preset double word.
    pub(crate) fn with_or(mut self, register: u16, bits: u32) -> Self {
        *self.values[index(register)].get_mut() |= bits;
        self
    }

    /// Lets the guest write the bits of `mask` in the double word that `register` is in.
    pub(crate) fn writable(mut self, register: u16, mask: u32) -> Self {
        self.writable[index(register)] |= mask << (register % 4 * 8);
        self
    }

    /// Lets the guest clear the bits of `mask` by writing 1.
    pub(crate) fn clearable(mut self, register: u16, mask: u32) -> Self {
        self.clearable[index(register)] |= mask << (register % 4 * 8);
        self
    }

    /// The double word at `register` as it stands.
    pub(crate) fn load(&self, register: u16) -> u32 {
        self.values[index(register)].load(Ordering::Relaxed)
    }

    /// Changes the double word at `register`, whatever a guest may do to it.
    pub(crate) fn modify(&self, register: u16, next: impl Fn(u32) -> u32) {
        let value = &self.values[index(register)];
        // The closure always has a next value.
        let _ = value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(next(word)));
    }

    /// Fills `data` from `offset`; beyond the double word there is nothing.
    pub(crate) fn read(&self, offset: u16, data: &mut [u8]) {
        let word = match usize::from(offset) < WORDS * 4 {
            true => self.load(offset),
            false => 0,
        };
        let bytes = word.to_le_bytes();
        for (byte, at) in data.iter_mut().zip(usize::from(offset % 4)..) {
            *byte = bytes.get(at).copied().unwrap_or(0xff);
        }
    }

    /// Takes `data` at `offset` as far as the masks allow; tells what changed.
    pub(crate) fn write(&self, offset: u16, data: &[u8]) -> Option<Change> {
        if usize::from(offset) >= WORDS * 4 {
            return None;
        }
        let (mut value, mut lanes) = ([0; 4], [0; 4]);
        for (&byte, at) in data.iter().zip(usize::from(offset % 4)..4) {
            (value[at], lanes[at]) = (byte, 0xff);
        }
        let (value, lanes) = (u32::from_le_bytes(value), u32::from_le_bytes(lanes));
        let at = index(offset);
        let (keep, clear) = (!(self.writable[at] & lanes), !(self.clearable[at] & value));
        let next = |word: u32| (word & keep | value & !keep) & clear;
        let updated =
            self.values[at].fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(next(word)));
        let (Ok(before) | Err(before)) = updated;
        Some(Change {
            register: offset & !3,
            before,
            after: next(before),
        })
    }
}

fn index(register: u16) -> usize {
    usize::from(register) / 4 % WORDS
}

const WORDS: usize = 64;
const VENDOR: u16 = 0x00;
const REVISION: u16 = 0x08;
