//! Why a server cannot be the captured machine that it is to be.

/// What a captured machine has that a server here would not have.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// It would be otherwise, and more so than is allowed.
    #[error("not the captured machine: {what}; {remedy}")]
    Differs {
        /// The class of the difference, its subject, both values, and what it does.
        what: String,
        /// What would help.
        remedy: String,
    },
    /// Who captured it could not read its SMBIOS tables.
    #[error(
        "the capture has no SMBIOS tables, so no serial numbers, slots and onboard devices of the machine; capture it as root, or leave them out with --smbios none"
    )]
    NoTables,
}
