//! What the bus refuses.

/// A range that the bus does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// A range of no addresses.
    #[error("{name}: a range of no addresses at {base:#x}; give it at least one")]
    Empty {
        /// Who asked.
        name: String,
        /// First address.
        base: u64,
    },
    /// Past the end of the address space.
    #[error("{name}: {size:#x} addresses from {base:#x} go past {last:#x}, the last there is; begin lower")]
    Beyond {
        /// Who asked.
        name: String,
        /// First address.
        base: u64,
        /// Addresses.
        size: u64,
        /// The last address that the bus has.
        last: u64,
    },
    /// Another device answers there.
    #[error(
        "{name}: {size:#x} addresses from {base:#x} overlap {other} ({other_base:#x} to {other_last:#x}); take that off the bus first, or begin elsewhere"
    )]
    Overlap {
        /// Who asked.
        name: String,
        /// First address.
        base: u64,
        /// Addresses.
        size: u64,
        /// Who is there.
        other: String,
        /// The first address of who is there.
        other_base: u64,
        /// And the last.
        other_last: u64,
    },
}
