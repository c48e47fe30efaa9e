//! What the firmware left in tables: SMBIOS, whole, and of ACPI which tables there are and who made them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::files::Files;

/// SMBIOS as the machine has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Smbios {
    /// The ids that the kernel takes from it (`/sys/class/dmi/id`): `product_uuid`, `board_serial` and so on.
    pub ids: BTreeMap<String, String>,
    /// The entry point; None: not there, or not for us.
    pub entry_point: Option<Bytes>,
    /// The table; None: not there, or not for us.
    pub table: Option<Bytes>,
}

/// Bytes, in JSON as hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(into = "String", try_from = "String")]
pub struct Bytes(pub Vec<u8>);

/// An ACPI table's header (ACPI 6.5, 5.2.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct AcpiTable {
    /// Bytes; 0: the header could not be read.
    pub length: u32,
    /// Revision.
    pub revision: u8,
    /// OEM id.
    pub oem: String,
    /// OEM table id.
    pub oem_table: String,
    /// OEM revision.
    pub oem_revision: u32,
}

impl Smbios {
    pub(crate) fn read(files: &Files<'_>) -> Smbios {
        let id = |name: &str| {
            let value = files.text(&format!("sys/class/dmi/id/{name}"))?;
            Some((name.to_owned(), value))
        };
        let folder = "sys/firmware/dmi/tables";
        let bytes = |name: &str, limit| files.bytes(&format!("{folder}/{name}"), limit).map(Bytes);
        let smbios = Smbios {
            ids: IDS.iter().filter_map(|name| id(name)).collect(),
            entry_point: bytes("smbios_entry_point", 64),
            table: bytes("DMI", TABLE_LIMIT),
        };
        if smbios.ids.is_empty() && smbios.table.is_none() {
            files.note("the machine has no SMBIOS tables, or its kernel does not show them".to_owned());
        }
        smbios
    }
}

/// The ACPI tables by file name.
pub(crate) fn acpi(files: &Files<'_>) -> BTreeMap<String, AcpiTable> {
    let folder = "sys/firmware/acpi/tables";
    let names = files.names(folder).into_iter().filter(|name| is_table(name));
    let table = |name: String| {
        let bytes = files.bytes(&format!("{folder}/{name}"), TABLE_LIMIT);
        let table = bytes
            .and_then(|bytes| AcpiTable::parse(&bytes))
            .unwrap_or_default();
        (name, table)
    };
    names.take(MOST_TABLES).map(table).collect()
}

/// Four letters or digits and perhaps a number; the folders beside them are `data` and `dynamic`.
fn is_table(name: &str) -> bool {
    name.len() >= 4
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

impl AcpiTable {
    fn parse(bytes: &[u8]) -> Option<AcpiTable> {
        let dword = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let text = |from: usize, to: usize| {
            let text = String::from_utf8_lossy(bytes.get(from..to)?);
            Some(text.trim_end_matches(['\0', ' ']).to_owned())
        };
        Some(AcpiTable {
            length: dword(4)?,
            revision: *bytes.get(8)?,
            oem: text(10, 16)?,
            oem_table: text(16, 24)?,
            oem_revision: dword(24)?,
        })
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl From<Bytes> for String {
    fn from(Bytes(bytes): Bytes) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl TryFrom<String> for Bytes {
    type Error = String;

    fn try_from(text: String) -> Result<Bytes, String> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = |pair: &[u8]| match pair {
            [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes
            .map(Bytes)
            .ok_or_else(|| "bytes are written as pairs of hexadecimal digits".to_owned())
    }
}

const IDS: [&str; 22] = [
    "bios_date",
    "bios_release",
    "bios_vendor",
    "bios_version",
    "board_asset_tag",
    "board_name",
    "board_serial",
    "board_vendor",
    "board_version",
    "chassis_asset_tag",
    "chassis_serial",
    "chassis_type",
    "chassis_vendor",
    "chassis_version",
    "ec_firmware_release",
    "product_family",
    "product_name",
    "product_serial",
    "product_sku",
    "product_uuid",
    "product_version",
    "sys_vendor",
];
/// SMBIOS 3 tables of large servers have some 100 KiB, their DSDTs up to a MiB.
const TABLE_LIMIT: u64 = 4 << 20;
const MOST_TABLES: usize = 256;
