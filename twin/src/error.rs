//! Why a file is not a twin.

/// A file that is not a twin of this format.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TwinError {
    /// It is larger than any twin.
    #[error("a twin of {size} bytes is refused, {limit} at most; capture it anew with `vmm twin capture`")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The most that is read.
        limit: usize,
    },
    /// It has more of something than a machine has.
    #[error(
        "a twin with {count} {part} is refused, {limit} at most; capture it anew with `vmm twin capture`"
    )]
    Crowded {
        /// What there are too many of.
        part: &'static str,
        /// How many.
        count: usize,
        /// The most that are taken.
        limit: usize,
    },
    /// It is of another version of the format.
    #[error(
        "the twin has format {found}, this program reads format {known}; capture it with a program of the same version"
    )]
    Format {
        /// What it says.
        found: u64,
        /// What is read here.
        known: u32,
    },
    /// It is no twin at all.
    #[error("not a twin ({0}); `vmm twin capture` writes one")]
    Malformed(#[from] serde_json::Error),
}
