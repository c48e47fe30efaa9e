#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod acpi;
mod boot_disk;
mod boot_file;
mod boot_menu;
mod boot_plan;
mod bytes;
mod disk;
mod entries;
mod error;
mod file_systems;
mod firmware;
mod grub;
mod initrd;
mod kernel;
mod smbios;
mod uki;

pub use acpi::{
    AcpiBoard, AcpiNodes, AcpiTables, LoaderFiles, RootBridge, RootBus, RootPort, SOFT_OFF_TYPE, intx_gsi,
};
pub use boot_disk::BootDisk;
pub use boot_file::{BootFile, FilePart, Volume};
pub use boot_menu::{BootMenu, Choice, EntrySource, LinuxFiles, MenuEntry, Verdict};
pub use boot_plan::BootPlan;
pub use disk::{DiskFile, DiskImage};
pub use entries::{EntryKind, LoaderEntry, compare_versions};
pub use error::{AcpiError, DiscoverError, LoadError};
pub use firmware::{EfiProgram, FirmwareCode, FirmwareError, StoreWrite, Variable, VariableStore};
pub use initrd::{InitrdModules, Presence, StorageController};
pub use kernel::{BzImageHeader, HeaderError, Linux, ReadSeek, SourceFile};
pub use smbios::{
    Anchor, EntryPoint, FreeText, LeftOut, Smbios, SmbiosError, SmbiosShare, SmbiosTables, Structure,
    Structures, WhyLeftOut,
};
pub use uki::{OsRelease, Profile, UkiError, UnifiedKernel};
