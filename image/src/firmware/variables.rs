//! The store of UEFI variables in a flash image: read, and added to as the firmware itself would.
//!
//! The image is foreign: every size in it is checked against its end, and a walk ends after as many records as fit.

use std::path::Path;

use super::code::read_bounded;
use super::error::FirmwareError;
use super::number;
use super::program::{EfiProgram, utf16};
use super::record::{ADDED, BEING_DELETED, Format, HEADER_VALID, NOT_DELETED, Record, STATE};

/// A flash image with a store of variables at its start.
#[derive(Clone, PartialEq, Eq)]
pub struct VariableStore {
    bytes: Vec<u8>,
    format: Format,
    /// The first record, and where the last one must end.
    first: usize,
    end: usize,
}

/// A variable that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its vendor's GUID, as it is in memory.
    pub vendor: [u8; 16],
    /// Its attributes: 1 non-volatile, 2 of boot services, 4 of the running system, and others.
    pub attributes: u32,
    /// Its value.
    pub data: Vec<u8>,
}

/// One write to the image. The writes of a change are made in order: whichever is the last made, the store holds the old value or the new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreWrite {
    /// Where, in bytes from the image's start.
    pub offset: u64,
    /// What.
    pub data: Vec<u8>,
}

impl VariableStore {
    /// The vendor of the variables that the UEFI specification defines: 8BE4DF61-93CA-11D2-AA0D-00E098032B8C.
    pub const GLOBAL: [u8; 16] = [
        0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c,
    ];

    /// Reads an image.
    ///
    /// # Errors
    /// It cannot be read, is larger than 8 MiB, or has no store of variables at its start.
    pub fn open(path: &Path) -> Result<Self, FirmwareError> {
        Self::of(read_bounded(path, LARGEST)?).map_err(|reason| FirmwareError::NotVariables {
            path: path.to_owned(),
            reason: reason.to_owned(),
        })
    }

    /// The same for bytes; says what is wrong with them.
    pub fn of(bytes: Vec<u8>) -> Result<Self, &'static str> {
        if bytes.len() > LARGEST {
            return Err("it has more than 8 MiB");
        }
        if !is_variable_volume(&bytes) {
            return Err("it does not begin with a firmware volume for variables");
        }
        let read = |at| number::<2>(&bytes, at).map(|word| word as usize);
        let header = read(HEADER_LENGTH).ok_or("its header is not whole")?;
        let volume = number::<8>(&bytes, VOLUME_LENGTH).unwrap_or(u64::MAX);
        if volume > bytes.len() as u64 {
            return Err("its firmware volume is larger than the file");
        }
        let words = bytes.get(..header).ok_or("its header is not whole")?.chunks(2);
        let sum = words.fold(0u16, |sum, word| {
            sum.wrapping_add(number::<2>(word, 0).unwrap_or(1) as u16)
        });
        if sum != 0 {
            return Err("the checksum of its header is wrong");
        }
        let format = match bytes.get(header..header + 16) {
            Some(guid) if guid == AUTHENTICATED => Format::Authenticated,
            Some(guid) if guid == PLAIN => Format::Plain,
            _ => return Err("it has no store of variables behind its header"),
        };
        let size = number::<4>(&bytes, header + 16).unwrap_or(0) as usize;
        let end = header.checked_add(size).filter(|&end| end as u64 <= volume);
        let end = end.ok_or("its store of variables goes past its end")?;
        if bytes.get(header + 20..header + 22) != Some(&[FORMATTED, HEALTHY]) {
            return Err("its store of variables is not formatted");
        }
        let first = (header + STORE_HEADER).next_multiple_of(4);
        Ok(Self {
            bytes,
            format,
            first,
            end,
        })
    }

    /// The image.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The variables in force.
    #[must_use]
    pub fn variables(&self) -> Vec<Variable> {
        self.in_force()
            .iter()
            .map(|record| self.variable(record))
            .collect()
    }

    fn in_force(&self) -> Vec<Record> {
        let records: Vec<_> = self.records().collect();
        let of = |record: &Record| {
            (
                &self.bytes[record.vendor.clone()],
                &self.bytes[record.name.clone()],
            )
        };
        let replaced = |record: &Record| {
            let by_new = |other: &Record| other.state == ADDED && of(other) == of(record);
            record.state == BEING_DELETED && records.iter().any(by_new)
        };
        let live = records
            .iter()
            .filter(|record| record.is_live() && !replaced(record));
        live.cloned().collect()
    }

    /// What a variable of the specification's own holds. Firmware compares the bytes of names, their terminators too, so this does.
    #[must_use]
    pub fn global(&self, name: &str) -> Option<Vec<u8>> {
        let name = utf16(name);
        let is_it = |record: &Record| {
            self.bytes[record.vendor.clone()] == Self::GLOBAL && self.bytes[record.name.clone()] == name
        };
        let found = self.in_force().into_iter().find(is_it)?;
        Some(self.bytes[found.data].to_vec())
    }

    /// Puts `file` first in the boot order, unless an option for it is there: then nothing changes.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn boot_first(&mut self, file: &EfiProgram) -> Result<Vec<StoreWrite>, FirmwareError> {
        let option = file.load_option();
        let known = self.variables().into_iter().any(|variable| {
            variable.vendor == Self::GLOBAL && is_boot_option(&variable.name) && variable.data == option
        });
        if known {
            return Ok(Vec::new());
        }
        let names: Vec<_> = self
            .variables()
            .into_iter()
            .map(|variable| variable.name)
            .collect();
        let order = self.global(BOOT_ORDER).unwrap_or_default();
        let free = (0..=u16::MAX).find(|number| {
            let named = names.contains(&format!("Boot{number:04X}"));
            !named && order.chunks(2).all(|entry| entry != number.to_le_bytes())
        });
        let number = free.unwrap_or(u16::MAX);
        let mut writes = self.set(&format!("Boot{number:04X}"), &option)?;
        let order = [&number.to_le_bytes()[..], &order].concat();
        writes.extend(self.set(BOOT_ORDER, &order)?);
        Ok(writes)
    }

    /// Sets a variable of the specification's own, which the running system sees: the writes, made here already.
    ///
    /// # Errors
    /// There is no room for it, or something is where nothing should be.
    pub fn set(&mut self, name: &str, data: &[u8]) -> Result<Vec<StoreWrite>, FirmwareError> {
        let refused = |reason| FirmwareError::Variable {
            name: name.to_owned(),
            reason,
        };
        let name_bytes = utf16(name);
        let record = self.format.bytes(&name_bytes, Self::GLOBAL, ATTRIBUTES, data);
        let records: Vec<_> = self.records().collect();
        let start = records.last().map_or(self.first, Record::next);
        let end = start.checked_add(record.len());
        if end.is_none_or(|end| end > self.end) {
            return Err(refused(
                "the store is full; delete variables, or start with a new store",
            ));
        }
        // A record that lies behind what is free would count once the new one leads to it.
        let free = self.bytes.get(start..self.end).unwrap_or_default();
        if free.iter().any(|byte| *byte != 0xff) {
            return Err(refused(
                "what should be free in the store is not; start with a new store",
            ));
        }
        let is_same = |old: &&Record| {
            old.is_live()
                && self.bytes[old.vendor.clone()] == Self::GLOBAL
                && self.bytes[old.name.clone()] == name_bytes
        };
        let old: Vec<_> = records
            .iter()
            .filter(is_same)
            .map(|old| (old.start, old.state))
            .collect();
        let write = |offset: usize, data: Vec<u8>| StoreWrite {
            offset: offset as u64,
            data,
        };
        let mut writes = vec![write(start, record)];
        writes.extend(old.iter().map(|(at, _)| write(at + STATE, vec![BEING_DELETED])));
        writes.extend([HEADER_VALID, ADDED].map(|state| write(start + STATE, vec![state])));
        writes.extend(
            old.iter()
                .map(|(at, _)| write(at + STATE, vec![BEING_DELETED & NOT_DELETED])),
        );
        for StoreWrite { offset, data } in &writes {
            let at = *offset as usize;
            self.bytes[at..at + data.len()].copy_from_slice(data);
        }
        Ok(writes)
    }

    fn records(&self) -> impl Iterator<Item = Record> {
        let first = self.format.record(&self.bytes, self.first, self.end);
        std::iter::successors(first, |record| {
            self.format.record(&self.bytes, record.next(), self.end)
        })
    }

    fn variable(&self, record: &Record) -> Variable {
        let units = self.bytes[record.name.clone()].chunks_exact(2);
        let units: Vec<u16> = units.map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        let name = String::from_utf16_lossy(&units);
        let mut vendor = [0; 16];
        vendor.copy_from_slice(&self.bytes[record.vendor.clone()]);
        Variable {
            name: name.trim_end_matches('\0').to_owned(),
            vendor,
            attributes: record.attributes,
            data: self.bytes[record.data.clone()].to_vec(),
        }
    }
}

impl std::fmt::Debug for VariableStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VariableStore")
            .field("size", &self.bytes.len())
            .field("variables", &self.variables().len())
            .finish_non_exhaustive()
    }
}

/// Whether these bytes begin with a firmware volume for variables.
pub(super) fn is_variable_volume(bytes: &[u8]) -> bool {
    bytes.get(16..32) == Some(&VARIABLES_VOLUME) && bytes.get(40..44) == Some(b"_FVH")
}

fn is_boot_option(name: &str) -> bool {
    let digits = name.strip_prefix("Boot").unwrap_or_default();
    digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

const LARGEST: usize = 8 << 20;
const BOOT_ORDER: &str = "BootOrder";
/// Non-volatile, of boot services, of the running system.
const ATTRIBUTES: u32 = 7;
/// FFF12B8D-7696-4C8B-A985-2747075B4F50 (PI 1.7, volume 3, 3.2.1 and EDK II's SystemNvDataGuid.h).
const VARIABLES_VOLUME: [u8; 16] = [
    0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50,
];
/// AAF32C78-947B-439A-A180-2E144EC37792.
const AUTHENTICATED: [u8; 16] = [
    0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92,
];
/// DDCF3616-3275-4164-98B6-FE85707FFE7D.
const PLAIN: [u8; 16] = [
    0x16, 0x36, 0xcf, 0xdd, 0x75, 0x32, 0x64, 0x41, 0x98, 0xb6, 0xfe, 0x85, 0x70, 0x7f, 0xfe, 0x7d,
];
const VOLUME_LENGTH: usize = 32;
const HEADER_LENGTH: usize = 48;
const STORE_HEADER: usize = 28;
const FORMATTED: u8 = 0x5a;
const HEALTHY: u8 = 0xfe;
