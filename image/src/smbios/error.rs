//! Why a host's SMBIOS tables cannot be taken over.

use std::io;
use std::path::PathBuf;

use pellucid_partition::MemoryError;

/// Tables that cannot be read, make no sense, or do not fit a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SmbiosError {
    /// The host has no tables, or keeps them from this user.
    #[error(
        "{}: the host's SMBIOS tables cannot be read: {source}; they are in sysfs on machines with SMBIOS, for root alone", path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An entry point that is none.
    #[error(
        "the SMBIOS entry point is not one: {reason}; expected is a whole `_SM_` or `_SM3_` structure with its checksums"
    )]
    EntryPoint {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A table without a single whole structure.
    #[error("the SMBIOS table of {size} bytes has no whole structure in it; the host's firmware is at fault")]
    Empty {
        /// Its bytes.
        size: usize,
    },
    /// More than any machine has, or than guests have room for.
    #[error("the SMBIOS table takes {size} bytes, there is room for {limit}; start the server without it")]
    TooLarge {
        /// Bytes.
        size: usize,
        /// Room.
        limit: usize,
    },
    /// Guest memory refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}
