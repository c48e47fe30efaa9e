//! Firmware files that are refused, by name.

use std::io;
use std::path::PathBuf;

/// A firmware file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// A file could not be read.
    #[error("{}: the firmware file cannot be read: {source}; name a file that this user may read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is no firmware code.
    #[error("{}: not the code of a UEFI firmware: {reason}; give an OVMF_CODE file, as /usr/share/OVMF/OVMF_CODE_4M.fd", path.display())]
    NotCode {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It is no variable store.
    #[error("{}: not a store of UEFI variables: {reason}; give an OVMF_VARS file, or a new name to have one made from the template", path.display())]
    NotVariables {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store is of another build than the code.
    #[error(
        "{}: a variable store of {size} bytes does not go with firmware code of {code} bytes, which wants one of {wanted}; give the OVMF_VARS file of the same build", path.display()
    )]
    OtherBuild {
        /// The store.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The size of the code.
        code: u64,
        /// The size that would be right.
        wanted: u64,
    },
    /// A variable does not fit the store.
    #[error("the variable {name} cannot be written to the store: {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// Why, and what would help.
        reason: &'static str,
    },
    /// A path that no file on an EFI system partition has.
    #[error(
        "{path:?} is no file that firmware could start: {reason}; write it as \\EFI\\debian\\shimx64.efi"
    )]
    EfiProgram {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}
