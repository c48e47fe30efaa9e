//! How the machine was started: by which firmware, with which boot entries and variables. Of a variable only size and digest are
//! kept, since some hold secrets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::Files;

/// How a machine was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Firmware {
    /// Whether by UEFI, with its runtime services in reach; else by a BIOS, or directly.
    pub efi: bool,
    /// Whether secure boot is on.
    pub secure_boot: Option<bool>,
    /// The entry that was booted.
    pub current: Option<u16>,
    /// The order in which entries are tried.
    pub order: Vec<u16>,
    /// Boot entries by number.
    pub entries: BTreeMap<u16, BootEntry>,
    /// Variables by `NAME-GUID`.
    pub variables: BTreeMap<String, Variable>,
}

/// A boot entry (UEFI 2.10, 3.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct BootEntry {
    /// What menus show.
    pub title: String,
    /// Whether it is tried.
    pub active: bool,
    /// Its device path in a short form: partition and file.
    pub path: String,
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Variable {
    /// Bytes.
    pub size: usize,
    /// The first 16 digits of the content's SHA-256.
    pub digest: String,
}

impl Firmware {
    pub(crate) fn read(files: &Files<'_>) -> Firmware {
        let mut firmware = Firmware {
            efi: files.exists("sys/firmware/efi"),
            ..Firmware::default()
        };
        let folder = "sys/firmware/efi/efivars";
        let names = files.names(folder);
        if firmware.efi && names.is_empty() {
            files.note("EFI variables are not known: /sys/firmware/efi/efivars is not mounted".to_owned());
        }
        for name in names.into_iter().take(MOST_VARIABLES) {
            // Four bytes of attributes, then the content.
            let bytes = files.bytes(&format!("{folder}/{name}"), VARIABLE_LIMIT);
            if let Some(content) = bytes.as_deref().and_then(|bytes| bytes.get(4..)) {
                firmware.add(name, content);
            }
        }
        firmware
    }

    fn add(&mut self, name: String, content: &[u8]) {
        if let Some(own) = name.strip_suffix(GLOBAL) {
            let number = own.strip_prefix("Boot").and_then(entry_number);
            match (own, number) {
                ("SecureBoot", _) => self.secure_boot = content.first().map(|byte| *byte == 1),
                ("BootCurrent", _) => self.current = words(content).next(),
                ("BootOrder", _) => self.order = words(content).collect(),
                (_, Some(number)) => {
                    self.entries
                        .extend(BootEntry::parse(content).map(|entry| (number, entry)));
                }
                _ => {}
            }
        }
        let digest = Sha256::digest(content);
        let variable = Variable {
            size: content.len(),
            digest: digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
        };
        self.variables.insert(name, variable);
    }
}

impl BootEntry {
    /// Attributes (4 bytes), the length of the path (2), the title ending in zero, the path.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<BootEntry> {
        let attributes = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        let length = usize::from(u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?));
        let rest = bytes.get(6..)?;
        let title: Vec<u16> = words(rest)
            .take_while(|unit| *unit != 0)
            .take(MOST_LETTERS)
            .collect();
        let path = rest.get((title.len() + 1) * 2..).unwrap_or_default();
        Some(BootEntry {
            title: String::from_utf16_lossy(&title),
            active: attributes & 1 == 1,
            path: path_text(path.get(..length).unwrap_or(path)),
        })
    }
}

/// A device path (UEFI 2.10, 10.3): hardware, messaging and media nodes by their numbers, but partitions by their GUID and files by name.
fn path_text(mut path: &[u8]) -> String {
    let mut text = String::new();
    for _ in 0..MOST_NODES {
        let [kind, sub, low, high, ..] = *path else { break };
        let length = usize::from(u16::from_le_bytes([low, high]));
        let Some(body) = path.get(4..length.max(4)) else {
            break;
        };
        text.push_str(&match (kind, sub) {
            (0x7f, _) => break,
            (1, 1) => format!(
                "/Pci({:02x}.{:x})",
                body.get(1).unwrap_or(&0),
                body.first().unwrap_or(&0)
            ),
            (4, 1) => format!("/HD({})", body.get(20..36).map(guid).unwrap_or_default()),
            (4, 4) => {
                let name: Vec<u16> = words(body).take_while(|unit| *unit != 0).collect();
                format!("/{}", String::from_utf16_lossy(&name))
            }
            (3, 11) => "/MAC".to_owned(),
            (3, 23) => "/NVMe".to_owned(),
            (kind, sub) => format!("/{kind}.{sub}"),
        });
        path = path.get(length.max(4)..).unwrap_or_default();
    }
    text.trim_start_matches('/').to_owned()
}

/// A GUID as it is written: the first three groups are little-endian.
fn guid(bytes: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::new();
    for (place, at) in ORDER.into_iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes.get(at).unwrap_or(&0)));
    }
    text
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let pairs = bytes.chunks_exact(2);
    pairs.map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
}

/// `0001` of `Boot0001`: four hexadecimal digits in capitals.
fn entry_number(digits: &str) -> Option<u16> {
    let plain = digits.len() == 4
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte));
    plain.then(|| u16::from_str_radix(digits, 16).ok())?
}

/// The end of the names of the variables that UEFI itself defines.
const GLOBAL: &str = "-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const VARIABLE_LIMIT: u64 = 1 << 20;
const MOST_VARIABLES: usize = 2048;
const MOST_LETTERS: usize = 256;
const MOST_NODES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// What an installer of Debian writes, by its parts.
    fn debian() -> Vec<u8> {
        let utf16 = |text: &str| -> Vec<u8> {
            text.encode_utf16()
                .chain([0])
                .flat_map(u16::to_le_bytes)
                .collect()
        };
        let file = utf16("\\EFI\\debian\\shimx64.efi");
        let node = |kind: u8, sub: u8, body: &[u8]| {
            let length = u16::try_from(body.len() + 4).unwrap().to_le_bytes();
            [&[kind, sub, length[0], length[1]], body].concat()
        };
        let mut disk = [0; 38];
        disk[20..36].copy_from_slice(&[
            0xa6, 0xf0, 0xd4, 0xb2, 0x58, 0x3c, 0x7b, 0x4e, 0x9a, 0x11, 1, 2, 3, 4, 5, 6,
        ]);
        let path = [node(4, 1, &disk), node(4, 4, &file), node(0x7f, 0xff, &[])].concat();
        let length = u16::try_from(path.len()).unwrap().to_le_bytes();
        [&[1, 0, 0, 0], &length[..], &utf16("debian"), &path].concat()
    }

    #[test]
    fn a_boot_entry_says_its_title_partition_and_file() {
        let entry = BootEntry::parse(&debian()).unwrap();
        assert!(entry.active);
        assert_eq!(entry.title, "debian");
        assert_eq!(
            entry.path,
            "HD(b2d4f0a6-3c58-4e7b-9a11-010203040506)/\\EFI\\debian\\shimx64.efi"
        );
    }

    #[test]
    fn a_boot_entry_cut_anywhere_is_read_as_far_as_it_goes() {
        let whole = debian();
        for length in 0..whole.len() {
            let _ = BootEntry::parse(&whole[..length]);
        }
        let mut endless = whole.clone();
        // A node of length 0 in the place of the first.
        let at = 6 + 14;
        (endless[at + 2], endless[at + 3]) = (0, 0);
        assert!(BootEntry::parse(&endless).unwrap().path.len() < 1024);
    }

    #[test]
    fn only_the_firmwares_own_variables_are_boot_entries() {
        let mut firmware = Firmware::default();
        firmware.add(format!("Boot00A1{GLOBAL}"), &debian());
        firmware.add(format!("Boot00a2{GLOBAL}"), &debian());
        firmware.add(
            "Boot0003-00000000-0000-0000-0000-000000000000".to_owned(),
            &debian(),
        );
        firmware.add(format!("BootOrder{GLOBAL}"), &[0xa1, 0, 3, 0]);
        firmware.add(format!("BootCurrent{GLOBAL}"), &[0xa1, 0]);
        assert_eq!(firmware.entries.keys().collect::<Vec<_>>(), [&0xa1]);
        assert_eq!((firmware.order, firmware.current), (vec![0xa1, 3], Some(0xa1)));
        assert_eq!(firmware.variables.len(), 5);
    }
}
