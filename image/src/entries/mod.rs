//! Boot loader entries (Boot Loader Specification type 1): reading them, ordering them, choosing one as systemd-boot does.

mod entry;
mod lines;
mod order;
mod pattern;
mod systemd_boot;
mod version;

pub use entry::{EntryKind, LoaderEntry};
pub(crate) use lines::default_pattern;
pub(crate) use order::sort;
pub(crate) use pattern::matches;
pub(crate) use systemd_boot::systemd_boot;
pub use version::compare_versions;
