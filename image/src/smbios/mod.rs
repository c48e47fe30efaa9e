//! SMBIOS: a host's tables read as hostile bytes, and a logical server's tables made from them.
//!
//! What the machine is (firmware, system, board, chassis) stays as it is; what its parts are is rewritten for the server's share; what
//! the server does not have, and what is nobody's business but the host's, is left out and reported.

mod draft;
mod entry_point;
mod error;
mod guest;
mod memory;
mod processor;
mod rules;
mod share;
mod structure;
mod table;
mod tables;

pub use entry_point::{Anchor, EntryPoint};
pub use error::SmbiosError;
pub use rules::{FreeText, LeftOut, WhyLeftOut};
pub use share::SmbiosShare;
pub use structure::{Structure, Structures};
pub use table::Smbios;
pub use tables::SmbiosTables;
