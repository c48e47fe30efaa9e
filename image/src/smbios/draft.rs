//! A structure in the making: its formatted area and its strings.

use super::structure::{HEADER, Structure};

/// A structure that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draft {
    formatted: Vec<u8>,
    /// Each but the last with its end.
    strings: Vec<u8>,
    count: u8,
}

impl Draft {
    /// `source` as it is, under `handle`.
    pub(crate) fn copy(source: &Structure<'_>, handle: u16) -> Self {
        let mut draft = Self {
            formatted: source.formatted().to_vec(),
            strings: source.raw_strings().to_vec(),
            count: 0,
        };
        draft.put(2, &handle.to_le_bytes());
        draft
    }

    /// The numbers of `source` under `handle`, and of its strings those that `kept` names by their offsets; `left` are the offsets of
    /// all other strings, which are none then.
    pub(crate) fn without_strings(
        source: &Structure<'_>,
        handle: u16,
        kept: &[usize],
        left: &[usize],
    ) -> Self {
        let mut draft = Self {
            formatted: source.formatted().to_vec(),
            strings: Vec::new(),
            count: 0,
        };
        draft.put(2, &handle.to_le_bytes());
        for offset in left {
            draft.put(*offset, &[0]);
        }
        for offset in kept {
            draft.put(*offset, &[0]);
            if let Some(text) = source.string(*offset) {
                draft.name(*offset, text);
            }
        }
        draft
    }

    /// Makes the formatted area `length` bytes long, between 4 and 255; what is new of it is 0.
    pub(crate) fn reach(&mut self, length: u8) {
        let length = length.max(HEADER as u8);
        self.formatted.resize(usize::from(length), 0);
        self.formatted[1] = length;
    }

    /// Takes `count` bytes at `offset` out of the formatted area, as far as it has them behind its header.
    pub(crate) fn cut(&mut self, offset: usize, count: usize) {
        let end = self.formatted.len();
        let from = offset.clamp(HEADER.min(end), end);
        self.formatted.drain(from..from.saturating_add(count).min(end));
        self.formatted[1] = self.formatted.len() as u8;
    }

    /// The length of the formatted area.
    pub(crate) fn length(&self) -> usize {
        self.formatted.len()
    }

    /// Writes a field, if the formatted area has it whole.
    pub(crate) fn put(&mut self, offset: usize, bytes: &[u8]) {
        let field = self.formatted.get_mut(offset..offset.saturating_add(bytes.len()));
        if let Some(field) = field {
            field.copy_from_slice(bytes);
        }
    }

    /// Makes the byte at `offset` name a string of its own.
    fn name(&mut self, offset: usize, text: &[u8]) {
        let (Some(number), false) = (self.count.checked_add(1), text.is_empty()) else {
            return;
        };
        if self.count > 0 {
            self.strings.push(0);
        }
        self.strings.extend_from_slice(text);
        self.count = number;
        self.put(offset, &[number]);
    }

    /// Appends it to a table.
    pub(crate) fn write(&self, table: &mut Vec<u8>) {
        table.extend_from_slice(&self.formatted);
        table.extend_from_slice(&self.strings);
        table.extend_from_slice(&[0, 0]);
    }
}
