//! One bounded walk over a function's capability lists. A list that loops or leaves configuration space just ends.

/// A capability found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Its id: of the standard list, or of the extended one.
    pub id: u16,
    /// Where it is.
    pub offset: u16,
    /// Where the pointer to it is: byte 0x34 or the second byte of the one before (standard), the header of the one before (extended).
    pub pointer: u16,
}

/// All capabilities of a function.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// The standard list (offsets 0x40 to 0xff), in order.
    pub standard: Vec<Capability>,
    /// The extended list (offsets from 0x100), in order.
    pub extended: Vec<Capability>,
}

impl Capabilities {
    /// Walks the lists of a configuration space of 256 or 4,096 bytes.
    #[must_use]
    pub fn walk(space: &[u8]) -> Capabilities {
        Capabilities {
            standard: standard(space),
            extended: extended(space),
        }
    }

    /// The first standard capability with this id.
    #[must_use]
    pub fn find(&self, id: u8) -> Option<u16> {
        self.standard
            .iter()
            .find(|capability| capability.id == u16::from(id))
            .map(|capability| capability.offset)
    }
}

fn standard(space: &[u8]) -> Vec<Capability> {
    let mut found: Vec<Capability> = Vec::new();
    let has_list = space.get(STATUS).is_some_and(|status| status & STATUS_LIST != 0);
    let mut pointer = if has_list { LIST } else { return found };
    while let Some(at) = space.get(usize::from(pointer)).map(|at| u16::from(at & !3)) {
        let seen = found.iter().any(|capability| capability.offset == at);
        if at < 0x40 || seen || usize::from(at) + 1 >= space.len() {
            break;
        }
        found.push(Capability {
            id: u16::from(space[usize::from(at)]),
            offset: at,
            pointer,
        });
        pointer = at + 1;
    }
    found
}

fn extended(space: &[u8]) -> Vec<Capability> {
    let mut found: Vec<Capability> = Vec::new();
    let (mut at, mut pointer) = (0x100_u16, 0);
    while let Some(header) = dword(space, at) {
        let seen = found.iter().any(|capability| capability.offset == at);
        if header == 0 || header == u32::MAX || at < 0x100 || seen {
            break;
        }
        found.push(Capability {
            id: header as u16,
            offset: at,
            pointer,
        });
        pointer = at;
        at = (header >> 20) as u16 & !3;
    }
    found
}

/// The 32-bit little-endian word at `offset`.
pub(crate) fn dword(space: &[u8], offset: u16) -> Option<u32> {
    let bytes = space.get(usize::from(offset)..usize::from(offset) + 4)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Standard ids (PCI Code and ID Assignment, 2).
pub(crate) const ID_PM: u8 = 0x01;
pub(crate) const ID_MSI: u8 = 0x05;
pub(crate) const ID_EXPRESS: u8 = 0x10;
pub(crate) const ID_MSIX: u8 = 0x11;
pub(crate) const ID_AF: u8 = 0x13;

/// Extended ids.
pub(crate) const EXT_ACS: u16 = 0x0d;
pub(crate) const EXT_ARI: u16 = 0x0e;

/// Extended capabilities that a guest cannot use, with what they are called.
pub(crate) const HIDDEN: [(u16, &str); 8] = [
    (0x0f, "ATS"),
    (0x10, "SR-IOV"),
    (0x11, "MR-IOV"),
    (0x13, "PRI"),
    (0x15, "resizable BAR"),
    (0x1b, "PASID"),
    (0x1d, "DPC"),
    (0x24, "VF resizable BAR"),
];

const STATUS: usize = 0x06;
const STATUS_LIST: u8 = 0x10;
/// The pointer to the first standard capability.
pub(crate) const LIST: u16 = 0x34;
