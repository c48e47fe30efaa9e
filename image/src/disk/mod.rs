//! A server's disk, read and never written: image format, partition table, FAT file system, files.
//!
//! Every byte here may be hostile: offsets are checked before use, chains and counts are bounded, nothing panics.

mod directory;
mod ext4;
mod fat;
mod file;
mod guid;
mod image;
mod mbr;
mod qcow2;
mod source;
mod system;
mod table;

pub(crate) use directory::DirectoryEntry;
pub(crate) use fat::Fat;
pub use file::DiskFile;
pub use image::DiskImage;
pub(crate) use source::{DiskSource, fill};
pub(crate) use system::FileSystem;
pub(crate) use table::{Partition, TableError, boot_partitions};
