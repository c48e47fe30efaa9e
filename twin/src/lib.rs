#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod capture;
mod clock;
mod cpus;
mod diff;
mod disks;
mod efi;
mod error;
mod files;
mod guest;
mod memory;
mod naming;
mod network;
mod pci;
mod recognized;
mod report;
mod tables;
mod twin;

pub use clock::Clock;
pub use cpus::{Cpus, Leaf, Thread};
pub use diff::{Class, ClassError, Diff, Difference, NameRow, Side};
pub use disks::Disk;
pub use efi::{BootEntry, Firmware, Variable};
pub use error::TwinError;
pub use guest::{GuestPort, GuestShare};
pub use memory::{Memory, MemoryNode, Range};
pub use naming::{Names, Scheme, SchemeError};
pub use network::Nic;
pub use pci::{Carries, ConfigSeen, Pci, PciFunction, VirtualOf};
pub use tables::{AcpiTable, Bytes, Smbios};
pub use twin::{FORMAT, MOST_BYTES, Note, Origin, Twin};
