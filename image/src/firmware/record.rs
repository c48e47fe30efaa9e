//! One variable in a store, as EDK II writes it (MdeModulePkg's VariableFormat.h): a header, the name in UTF-16, the data.

use std::ops::Range;

use super::number;

/// Which of the two headers a store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// With a time stamp and a counter, which only authenticated variables use.
    Authenticated,
    Plain,
}

/// Where a record's parts are, checked against the store's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) start: usize,
    pub(super) state: u8,
    pub(super) attributes: u32,
    pub(super) vendor: Range<usize>,
    pub(super) name: Range<usize>,
    pub(super) data: Range<usize>,
}

impl Format {
    pub(super) fn header(self) -> usize {
        match self {
            Self::Authenticated => 60,
            Self::Plain => 32,
        }
    }

    /// Where the two sizes are, which the vendor's GUID follows.
    fn sizes(self) -> usize {
        self.header() - 24
    }

    /// The record at `start`; none where no record begins, or one that goes past `end`.
    pub(super) fn record(self, bytes: &[u8], start: usize, end: usize) -> Option<Record> {
        let bytes = bytes.get(..end)?;
        if number::<2>(bytes, start)? != START {
            return None;
        }
        let size =
            |at| Some(number::<4>(bytes, start + at)?).map(|size| if size == ERASED { 0 } else { size });
        let (name_size, data_size) = (size(self.sizes())?, size(self.sizes() + 4)?);
        let name = start + self.header();
        let data = name.checked_add(usize::try_from(name_size).ok()?)?;
        let after = data.checked_add(usize::try_from(data_size).ok()?)?;
        (after <= end).then_some(Record {
            start,
            state: *bytes.get(start + STATE)?,
            attributes: number::<4>(bytes, start + 4)? as u32,
            vendor: name - 16..name,
            name: name..data,
            data: data..after,
        })
    }

    /// A whole record whose state is that of erased flash: it counts only once its state is written.
    pub(super) fn bytes(self, name: &[u8], vendor: [u8; 16], attributes: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (START as u16).to_le_bytes().to_vec();
        bytes.extend([0xff, 0]);
        bytes.extend(attributes.to_le_bytes());
        bytes.resize(self.sizes(), 0);
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(vendor);
        bytes.extend(name);
        bytes.extend(data);
        bytes
    }
}

impl Record {
    /// Whether it is a variable; the old one while a new one is written counts until the new one does.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, ADDED | BEING_DELETED)
    }

    /// Where the next record begins.
    pub(super) fn next(&self) -> usize {
        self.data.end.next_multiple_of(4)
    }
}

const START: u64 = 0x55aa;
const ERASED: u64 = 0xffff_ffff;
pub(super) const STATE: usize = 2;
pub(super) const ADDED: u8 = 0x3f;
pub(super) const HEADER_VALID: u8 = 0x7f;
/// Added, and about to be deleted.
pub(super) const BEING_DELETED: u8 = 0x3e;
/// What deletion clears.
pub(super) const NOT_DELETED: u8 = 0xfd;
