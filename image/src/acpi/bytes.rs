//! Small pieces that every table needs: its frame, and AML that is bytes already.

use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

/// AML that was serialized before, as a child of something else.
pub(crate) struct Raw(pub(crate) Vec<u8>);

impl Raw {
    /// Serializes `object` now, so that what it borrows need not live longer than one statement.
    pub(crate) fn of(object: &dyn Aml) -> Self {
        Self(aml_bytes(object))
    }
}

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

pub(crate) fn aml_bytes(object: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    object.to_aml_bytes(&mut bytes);
    bytes
}

/// A whole table: header with checksum, then `body`.
pub(crate) fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Sdt::new(signature, HEADER, revision, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(body);
    table.as_slice().to_vec()
}

const HEADER: u32 = 36;
pub(crate) const OEM: [u8; 6] = *b"PELLUC";
pub(crate) const OEM_TABLE: [u8; 8] = *b"PELLUCID";
pub(crate) const OEM_REVISION: u32 = 1;
