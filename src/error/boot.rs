//! What a server cannot boot, or with which variables not.

use std::path::PathBuf;

use pellucid_image::{DiscoverError, FirmwareError, LoadError};

/// Why there is nothing to boot.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The disk has nothing to boot.
    #[error(transparent)]
    Disk(#[from] DiscoverError),
    /// The kernel cannot be loaded.
    #[error(transparent)]
    Kernel(#[from] LoadError),
    /// The firmware cannot be used.
    #[error(transparent)]
    Firmware(#[from] VariablesError),
}

/// Why a firmware or its variables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VariablesError {
    /// A file is not what it should be.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// Another server has the variables.
    #[error(
        "{}: another logical server uses these variables; give each server a file of its own with --vars", path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A file of variables could not be used.
    #[error("{}: the file of variables cannot be {act}: {source}; it must be in a folder that this user may write to", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        act: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No variables to begin with.
    #[error(
        "{}: no OVMF_VARS file is beside it to make the first variables from; name one with --vars-template", code.display()
    )]
    NoTemplate {
        /// The firmware's code.
        code: PathBuf,
    },
}
