//! Names of files on a disk: on which of its file systems, which path, and which bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A file system of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Volume {
    /// The EFI system partition.
    Esp,
    /// The extended boot loader partition (XBOOTLDR) beside it.
    Xbootldr,
    /// The partition with this number in the disk's table, counted from 1; 0 is a disk without a table.
    Partition(u32),
}

/// A file to load, or a part of one. Paths are written as the volume's own boot loader writes them: with backslashes by
/// systemd-boot, with slashes by GRUB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFile {
    /// The file system that it is on.
    pub volume: Volume,
    /// Its path there.
    pub path: String,
    /// The part that is meant, where it is not the whole file.
    pub part: Option<FilePart>,
}

/// A named range of a file: a section of a unified kernel image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    /// The section's name.
    pub name: String,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

impl BootFile {
    /// A whole file.
    #[must_use]
    pub fn new(volume: Volume, path: &str) -> Self {
        Self {
            volume,
            path: path.to_owned(),
            part: None,
        }
    }

    /// This part of the file.
    #[must_use]
    pub fn with_part(&self, part: &FilePart) -> Self {
        Self {
            part: Some(part.clone()),
            ..self.clone()
        }
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Esp => f.write_str("esp"),
            Self::Xbootldr => f.write_str("xbootldr"),
            Self::Partition(number) => write!(f, "partition{number}"),
        }
    }
}

/// `esp:\EFI\Linux\debian.efi[.linux]`.
impl fmt::Display for BootFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.volume, self.path)?;
        match &self.part {
            Some(part) => write!(f, "[{}]", part.name),
            None => Ok(()),
        }
    }
}
