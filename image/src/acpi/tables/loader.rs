//! The tables as firmware takes them from fw_cfg: two files with pointers relative to each other, and a script that says which to
//! allocate, which pointers to make absolute and which checksums to set (QEMU's hw/acpi/bios-linker-loader.c tells the format).

use pellucid_partition::Layout;

use super::AcpiTables;

/// Three files of fw_cfg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderFiles {
    /// `etc/acpi/rsdp`.
    pub pointer: Vec<u8>,
    /// `etc/acpi/tables`.
    pub tables: Vec<u8>,
    /// `etc/table-loader`.
    pub script: Vec<u8>,
}

impl LoaderFiles {
    /// The name of [`LoaderFiles::pointer`].
    pub const POINTER: &'static str = "etc/acpi/rsdp";
    /// The name of [`LoaderFiles::tables`].
    pub const TABLES: &'static str = "etc/acpi/tables";
    /// The name of [`LoaderFiles::script`].
    pub const SCRIPT: &'static str = "etc/table-loader";
}

impl AcpiTables {
    /// The tables for firmware that places them itself.
    #[must_use]
    pub fn loader_files(&self) -> LoaderFiles {
        let bytes = self.bytes();
        let split = self.starts.first().copied().unwrap_or(bytes.len());
        let mut build = Build {
            base: Layout::ACPI.start + split as u64,
            pointer: bytes.get(..RSDP_SIZE).unwrap_or_default().to_vec(),
            tables: bytes.get(split..).unwrap_or_default().to_vec(),
            pointers: Vec::new(),
            checksums: Vec::new(),
        };
        build.relocate(true, RSDP_XSDT, 8);
        build.checksum(true, 8, 0..20);
        build.checksum(true, 32, 0..RSDP_SIZE);
        for start in self.starts.iter().map(|start| start - split) {
            build.table(start);
        }
        build.finish()
    }
}

/// The files under work. Places are offsets in them; `true` is the root pointer's file.
struct Build {
    /// Where the tables' first byte is in their absolute form.
    base: u64,
    pointer: Vec<u8>,
    tables: Vec<u8>,
    pointers: Vec<Vec<u8>>,
    checksums: Vec<Vec<u8>>,
}

impl Build {
    /// One table: its pointers by its signature, then its checksum. The FACS has neither.
    fn table(&mut self, start: usize) {
        let Some(header) = self.tables.get(start..start + 8) else {
            return;
        };
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        match &header[..4] {
            b"FACS" => return,
            b"XSDT" => (36..size)
                .step_by(8)
                .for_each(|at| self.relocate(false, start + at, 8)),
            b"FACP" => FADT_POINTERS
                .iter()
                .for_each(|&(at, width)| self.relocate(false, start + at, width)),
            _ => {}
        }
        self.checksum(false, start + 9, start..start + size);
    }

    /// Makes the pointer at `at` relative to the tables, and has firmware make it absolute. A null pointer stays one.
    fn relocate(&mut self, root: bool, at: usize, width: usize) {
        let base = self.base;
        let (file, name) = self.file(root);
        let Some(field) = file.get_mut(at..at + width) else {
            return;
        };
        let mut value = [0; 8];
        value[..width].copy_from_slice(field);
        let value = u64::from_le_bytes(value);
        if value == 0 {
            return;
        }
        field.copy_from_slice(&value.wrapping_sub(base).to_le_bytes()[..width]);
        let mut entry = command(ADD_POINTER, name);
        entry.extend(name_field(LoaderFiles::TABLES));
        entry.extend((at as u32).to_le_bytes());
        entry.push(width as u8);
        self.pointers.push(entry);
    }

    /// Has firmware set the checksum of `range` at `at`.
    fn checksum(&mut self, root: bool, at: usize, range: std::ops::Range<usize>) {
        let (file, name) = self.file(root);
        if let Some(byte) = file.get_mut(at) {
            *byte = 0;
        }
        let mut entry = command(ADD_CHECKSUM, name);
        for number in [at, range.start, range.end - range.start] {
            entry.extend((number as u32).to_le_bytes());
        }
        self.checksums.push(entry);
    }

    fn file(&mut self, root: bool) -> (&mut Vec<u8>, &'static str) {
        match root {
            true => (&mut self.pointer, LoaderFiles::POINTER),
            false => (&mut self.tables, LoaderFiles::TABLES),
        }
    }

    fn finish(self) -> LoaderFiles {
        let allocate = |name, alignment: u32, zone| {
            let mut entry = command(ALLOCATE, name);
            entry.extend(alignment.to_le_bytes());
            entry.push(zone);
            entry
        };
        let first = [
            allocate(LoaderFiles::POINTER, 16, ZONE_F_SEGMENT),
            allocate(LoaderFiles::TABLES, 64, ZONE_HIGH),
        ];
        let entries = first.into_iter().chain(self.pointers).chain(self.checksums);
        let script = entries.flat_map(|mut entry| {
            entry.resize(ENTRY, 0);
            entry
        });
        LoaderFiles {
            script: script.collect(),
            pointer: self.pointer,
            tables: self.tables,
        }
    }
}

fn command(number: u32, file: &str) -> Vec<u8> {
    let mut entry = number.to_le_bytes().to_vec();
    entry.extend(name_field(file));
    entry
}

fn name_field(name: &str) -> [u8; 56] {
    let mut field = [0; 56];
    for (to, byte) in field.iter_mut().zip(name.bytes()) {
        *to = byte;
    }
    field
}

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
const ZONE_HIGH: u8 = 1;
const ZONE_F_SEGMENT: u8 = 2;
const ENTRY: usize = 128;
const RSDP_SIZE: usize = 36;
const RSDP_XSDT: usize = 24;
/// FIRMWARE_CTRL, DSDT, X_FIRMWARE_CTRL, X_DSDT (ACPI 6.5, table 5.9).
const FADT_POINTERS: [(usize, usize); 4] = [(36, 4), (40, 4), (132, 8), (140, 8)];
