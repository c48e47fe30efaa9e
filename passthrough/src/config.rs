//! A function's configuration space as its guest sees it: 4,096 bytes, each from the hardware, a shadow or a constant,
//! with a mask of what the guest may write. Pure: it needs no device, it only says what to write to one.

mod build;

use std::ops::Range;

pub use build::ConfigOrigin;

/// Where a byte comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Read from and written to the device.
    Hardware,
    /// Kept here; the device is not told.
    Shadow,
    /// Kept here, never changing.
    Constant,
}

/// A register whose change means more than its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Register {
    /// Memory, I/O and bus master enable.
    Command,
    /// A base address register.
    Bar(u8),
    /// Power state.
    Power,
    /// The MSI capability.
    Msi,
    /// MSI-X enable and function mask.
    Msix,
    /// Device control of the PCI Express capability: function-level reset.
    DeviceControl,
}

/// The table.
#[derive(Debug, Clone)]
pub struct ConfigTable {
    value: Box<[u8; SIZE]>,
    mask: Box<[u8; SIZE]>,
    source: Box<[Source; SIZE]>,
    registers: Vec<(Range<u16>, Register)>,
    hidden: Vec<&'static str>,
}

/// What a guest's write comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// Bytes for the device, by offset, in pieces that do not cross a 4-byte boundary.
    pub hardware: Vec<(u16, Vec<u8>)>,
}

impl ConfigTable {
    /// Extended or other capabilities that were taken out, by name.
    #[must_use]
    pub fn hidden(&self) -> &[&'static str] {
        &self.hidden
    }

    /// Where the byte at `offset` comes from; Constant behind the end.
    #[must_use]
    pub fn source(&self, offset: u16) -> Source {
        self.source
            .get(usize::from(offset))
            .copied()
            .unwrap_or(Source::Constant)
    }

    /// Whether any byte of an access comes from the device.
    #[must_use]
    pub fn wants_hardware(&self, offset: u16, length: usize) -> bool {
        (0..length as u16).any(|index| self.source(offset.saturating_add(index)) == Source::Hardware)
    }

    /// The registers that an access of so many bytes touches.
    pub fn touched(&self, offset: u16, length: usize) -> impl Iterator<Item = Register> {
        let end = offset.saturating_add(length as u16);
        let meets = move |range: &Range<u16>| range.start < end && offset < range.end;
        let registers = self.registers.iter().filter(move |(range, _)| meets(range));
        registers.map(|(_, register)| *register)
    }

    /// Puts the table's own bytes over what the device said.
    pub fn overlay(&self, offset: u16, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            let at = usize::from(offset) + index;
            match self.source.get(at) {
                Some(Source::Hardware) => {}
                Some(Source::Shadow | Source::Constant) => *byte = self.value[at],
                None => *byte = 0xff,
            }
        }
    }

    /// Takes a guest's write: changes the shadows, and says what goes to the device. `current` is what the device has
    /// at the same place, so that bits which the guest may not write keep their value.
    pub fn write(&mut self, offset: u16, data: &[u8], current: &[u8]) -> Written {
        let mut written = Written::default();
        for (index, byte) in data.iter().enumerate() {
            let at = usize::from(offset) + index;
            if at >= SIZE {
                break;
            }
            let mask = self.mask[at];
            match self.source[at] {
                Source::Shadow => self.value[at] = (self.value[at] & !mask) | (byte & mask),
                Source::Hardware if mask != 0 => {
                    let kept = current.get(index).copied().unwrap_or(0) & !mask;
                    written.push(at as u16, kept | (byte & mask));
                }
                Source::Hardware | Source::Constant => {}
            }
        }
        written
    }

    /// The shadow or constant at `offset`, 32 bits.
    #[must_use]
    pub fn dword(&self, offset: u16) -> u32 {
        crate::capabilities::dword(self.value.as_slice(), offset).unwrap_or(0)
    }

    /// The shadow or constant at `offset`, 16 bits.
    #[must_use]
    pub fn word(&self, offset: u16) -> u16 {
        (self.dword(offset & !3) >> ((offset & 2) * 8)) as u16
    }

    /// Where a register is.
    #[must_use]
    pub fn place(&self, register: Register) -> Option<u16> {
        self.registers
            .iter()
            .find(|(_, known)| *known == register)
            .map(|(range, _)| range.start)
    }

    /// Sets shadow bytes, as a reset or a firmware would.
    pub(crate) fn preset(&mut self, offset: u16, bytes: &[u8]) {
        let at = usize::from(offset);
        if let Some(place) = self.value.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

impl Written {
    /// Adds a byte to the piece before it, if both are of one aligned word.
    fn push(&mut self, at: u16, byte: u8) {
        match self.hardware.last_mut() {
            Some((start, bytes)) if *start + bytes.len() as u16 == at && *start / 4 == at / 4 => {
                bytes.push(byte)
            }
            _ => self.hardware.push((at, vec![byte])),
        }
    }
}

/// Bytes of a function's configuration space.
pub const SIZE: usize = 4096;
