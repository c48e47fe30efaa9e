//! Why a server disk could not be built or read.

use std::io;
use std::path::PathBuf;

/// A step of building or reading a disk that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// A tool that the build needs is not installed.
    #[error("{tool} is not installed: install the package {package} (`cargo testbed doctor --install` does)")]
    ToolMissing {
        /// The program.
        tool: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A tool ran and failed.
    #[error("{tool} ended with {status}; its last words:\n{tail}")]
    ToolFailed {
        /// The program.
        tool: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it wrote to standard error.
        tail: String,
    },
    /// The machine names no Debian package source.
    #[error(
        "no Debian package source found in this machine's apt configuration: \
         set PELLUCID_DEBIAN_MIRROR to the address of a Debian archive"
    )]
    NoSources,
    /// The bootstrapped system does not fit the layout or lacks a part.
    #[error("the bootstrapped system has no {part}: the package list and the installer's script disagree")]
    Incomplete {
        /// What is missing.
        part: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes `io::Error`s name their file.
pub(crate) trait Subject<T> {
    /// Adds the path that the failed operation was about.
    fn of(self, path: impl Into<PathBuf>) -> Result<T, DiskError>;
}

impl<T> Subject<T> for io::Result<T> {
    fn of(self, path: impl Into<PathBuf>) -> Result<T, DiskError> {
        self.map_err(|source| DiskError::File {
            path: path.into(),
            source,
        })
    }
}
