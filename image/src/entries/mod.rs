//! systemd-boot's entries (Boot Loader Specification types 1 and 2): reading them, ordering them, choosing one as it does.

mod entry;
mod fallback;
mod lines;
mod order;
mod pattern;
mod systemd_boot;
mod unified;
mod version;

pub use entry::{EntryKind, LoaderEntry};
pub(crate) use fallback::fallback_program;
pub(crate) use lines::{assignments, default_pattern, key_values};
pub(crate) use order::Rank;
pub(crate) use pattern::matches;
pub(crate) use systemd_boot::systemd_boot;
pub use version::compare_versions;
