//! The section table of a PE program (Microsoft's PE format, sections 3 and 4), read from hostile bytes: at most 96 sections, each
//! inside the file.

use super::UkiError;
use crate::boot_file::FilePart;
use crate::bytes::{half, long};
use crate::kernel::SourceFile;

/// An EFI program for x86-64, known by its sections. Names may come more than once.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) sections: Vec<FilePart>,
}

impl Program {
    /// Reads the headers of `file`.
    pub(crate) fn parse(file: &mut SourceFile<'_>) -> Result<Self, UkiError> {
        let mut magic = [0; 2];
        if file.read_at(0, &mut magic)? < magic.len() || magic != *b"MZ" {
            return Err(UkiError::NotProgram);
        }
        let start = bytes(file, 0, 0x40)?;
        let header = u64::from(long(&start, 0x3c));
        let coff = bytes(file, header, 24)?;
        if !coff.starts_with(b"PE\0\0") {
            return Err(UkiError::NotProgram);
        }
        if half(&coff, 4) != X86_64 {
            return Err(UkiError::Architecture);
        }
        let (count, optional) = (half(&coff, 6), half(&coff, 20));
        if count > MAX_SECTIONS {
            return Err(UkiError::Damaged {
                what: "its section count",
            });
        }
        let table = bytes(
            file,
            header + 24 + u64::from(optional),
            usize::from(count) * SECTION,
        )?;
        let sections = table.chunks_exact(SECTION).map(|raw| section(raw, file.size()));
        Ok(Self {
            sections: sections.collect::<Result<_, _>>()?,
        })
    }

    /// The first section of this name.
    pub(crate) fn section(&self, name: &str) -> Option<&FilePart> {
        self.sections.iter().find(|section| section.name == name)
    }
}

/// A section's bytes in the file. In memory it may be longer, by zeros, or shorter, by the padding of the file.
fn section(raw: &[u8], file_size: u64) -> Result<FilePart, UkiError> {
    let name = raw[..8].split(|&byte| byte == 0).next().unwrap_or_default();
    let (in_memory, in_file, offset) = (long(raw, 8), long(raw, 16), u64::from(long(raw, 20)));
    let size = u64::from(if in_memory == 0 {
        in_file
    } else {
        in_memory.min(in_file)
    });
    if size > 0 && offset + size > file_size {
        return Err(UkiError::Damaged {
            what: "a section that ends behind the file",
        });
    }
    let name = String::from_utf8_lossy(name).into_owned();
    Ok(FilePart { name, offset, size })
}

/// Exactly `count` bytes from `offset`.
fn bytes(file: &mut SourceFile<'_>, offset: u64, count: usize) -> Result<Vec<u8>, UkiError> {
    let mut data = vec![0; count];
    if file.read_at(offset, &mut data)? < count {
        return Err(UkiError::Damaged {
            what: "headers that end behind the file",
        });
    }
    Ok(data)
}

const X86_64: u16 = 0x8664;
const SECTION: usize = 40;
/// What Windows loads; a unified kernel image has about twenty.
const MAX_SECTIONS: u16 = 96;
