//! All tables together, laid out for one place in guest memory.

use acpi_tables::facs::FACS;
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use pellucid_partition::{GuestAddress, GuestMemory, Layout};

use super::board::AcpiBoard;
use super::bytes::{OEM, OEM_REVISION, OEM_TABLE, aml_bytes};
use super::{dsdt, fixed, madt};
use crate::error::AcpiError;

mod loader;

pub use loader::LoaderFiles;

/// The tables of a board as bytes for [`Layout::ACPI`]. Not yet in guest memory.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcpiTables {
    bytes: Vec<u8>,
    /// Where each table begins in `bytes`.
    starts: Vec<usize>,
}

impl AcpiBoard {
    /// Builds the tables: RSDP, XSDT, FADT, FACS, MADT, MCFG, DSDT; with nodes SRAT and SLIT too.
    pub fn tables(&self) -> Result<AcpiTables, AcpiError> {
        self.check()?;
        let mut tables = AcpiTables {
            bytes: vec![0; 64],
            starts: Vec::new(),
        };
        let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
        mcfg.add_ecam(self.ecam.start, 0, 0, self.last_bus());
        let facs = tables.append(&aml_bytes(&FACS::new()));
        let dsdt = tables.append(&dsdt::dsdt(self));
        let mut leaves = vec![
            fixed::fadt((facs, dsdt), self.sleep_button),
            madt::madt(self),
            aml_bytes(&mcfg),
        ];
        if let Some(nodes) = &self.nodes {
            leaves.extend([nodes.affinity(&self.apic_ids), nodes.distances()]);
        }
        let mut index = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
        for leaf in &leaves {
            index.add_entry(tables.append(leaf));
        }
        let index = tables.append(&aml_bytes(&index));
        let pointer = aml_bytes(&Rsdp::new(OEM, index));
        tables.bytes[..pointer.len()].copy_from_slice(&pointer);
        let (size, limit) = (
            tables.bytes.len(),
            (Layout::ACPI.end - Layout::ACPI.start) as usize,
        );
        if size > limit {
            return Err(AcpiError::TooLarge { size, limit });
        }
        Ok(tables)
    }
}

impl AcpiTables {
    /// Where the root pointer is: at the start of the tables.
    #[must_use]
    pub fn root_pointer(&self) -> GuestAddress {
        GuestAddress(Layout::ACPI.start)
    }

    /// All bytes, for [`AcpiTables::root_pointer`] on.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The table with this signature (`FACP`, `APIC`, `DSDT`, ...).
    #[must_use]
    pub fn table(&self, signature: &[u8; 4]) -> Option<&[u8]> {
        self.starts.iter().find_map(|&start| {
            let rest = self.bytes.get(start..)?;
            let size = rest.get(4..8)?;
            let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]);
            rest.starts_with(signature)
                .then(|| rest.get(..size as usize))
                .flatten()
        })
    }

    /// Writes the tables into guest memory.
    pub fn write(&self, memory: &GuestMemory) -> Result<(), AcpiError> {
        Ok(memory.write(self.root_pointer(), &self.bytes)?)
    }

    /// Adds a table at the next multiple of 64 (the FACS needs it) and returns its address.
    fn append(&mut self, table: &[u8]) -> u64 {
        let start = self.bytes.len().next_multiple_of(64);
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(table);
        self.starts.push(start);
        Layout::ACPI.start + start as u64
    }
}
