//! Boot loader entries (Boot Loader Specification type 1): reading them, ordering them, choosing one as systemd-boot does.

mod entry;
mod lines;
mod order;
mod pattern;
mod version;

pub use entry::{EntryKind, LoaderEntry};
pub(crate) use lines::default_pattern;
pub(crate) use order::sort;
pub(crate) use pattern::matches;
pub use version::compare_versions;
