//! One structure of the table, and the walk from one to the next (DSP0134 section 6.1).

/// A structure: a formatted area of 4 to 255 bytes, and the strings that it names by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Structure<'t> {
    formatted: &'t [u8],
    strings: &'t [u8],
}

/// Whole structures in the order of the table. It ends at the end marker, at the end of the bytes, and at the first structure that is
/// not whole.
#[derive(Debug, Clone)]
pub struct Structures<'t> {
    rest: &'t [u8],
    ended: bool,
}

impl<'t> Structure<'t> {
    /// Splits the first structure off; nothing if it is not whole.
    fn split(bytes: &'t [u8]) -> Option<(Self, &'t [u8])> {
        let length = usize::from(*bytes.get(1)?);
        if length < HEADER {
            return None;
        }
        let (formatted, tail) = bytes.split_at_checked(length)?;
        let end = tail.windows(2).position(|pair| pair == [0, 0])?;
        let (strings, rest) = tail.split_at_checked(end)?;
        Some((Self { formatted, strings }, rest.get(2..)?))
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.byte(0).unwrap_or(0)
    }

    /// Its handle, by which others refer to it.
    #[must_use]
    pub fn handle(&self) -> u16 {
        self.word(2).unwrap_or(0)
    }

    /// The formatted area, its header included.
    #[must_use]
    pub fn formatted(&self) -> &'t [u8] {
        self.formatted
    }

    /// The byte at `offset`, if the structure reaches so far.
    #[must_use]
    pub fn byte(&self, offset: usize) -> Option<u8> {
        self.formatted.get(offset).copied()
    }

    /// The little-endian word at `offset`.
    #[must_use]
    pub fn word(&self, offset: usize) -> Option<u16> {
        let bytes = self.formatted.get(offset..)?.first_chunk()?;
        Some(u16::from_le_bytes(*bytes))
    }

    /// The string that the byte at `offset` names, without its end; nothing if there is none.
    #[must_use]
    pub fn string(&self, offset: usize) -> Option<&'t [u8]> {
        let number = usize::from(self.byte(offset)?);
        self.strings().nth(number.checked_sub(1)?)
    }

    /// All strings; the first is number 1.
    pub fn strings(&self) -> impl Iterator<Item = &'t [u8]> + use<'t> {
        let none = self.strings.is_empty();
        self.strings.split(|byte| *byte == 0).filter(move |_| !none)
    }

    /// The strings as they stand, each but the last with its end.
    pub(crate) fn raw_strings(&self) -> &'t [u8] {
        self.strings
    }
}

impl<'t> Structures<'t> {
    pub(crate) fn of(table: &'t [u8]) -> Self {
        Self {
            rest: table,
            ended: false,
        }
    }
}

impl<'t> Iterator for Structures<'t> {
    type Item = Structure<'t>;

    fn next(&mut self) -> Option<Structure<'t>> {
        if self.ended {
            return None;
        }
        let Some((structure, rest)) = Structure::split(self.rest) else {
            self.ended = true;
            return None;
        };
        (self.rest, self.ended) = (rest, structure.kind() == END);
        Some(structure)
    }
}

/// Type, length, handle.
pub(crate) const HEADER: usize = 4;
/// The type of the last structure.
pub(crate) const END: u8 = 127;
