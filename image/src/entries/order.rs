//! The order in which systemd-boot lists entries; the first one is booted when no default is configured.

use std::cmp::{Ordering, Reverse};

use super::compare_versions;

/// What the place of an entry in the menu depends on, be it a loader entry or a unified kernel image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rank {
    /// The entry's name, in lower case.
    pub(crate) id: String,
    pub(crate) sort_key: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) machine_id: Option<String>,
    pub(crate) tries_left: Option<u32>,
    pub(crate) tries_done: Option<u32>,
}

impl Rank {
    /// Which of two entries the boot menu shows first. Those that compare equal keep the order in which they were found.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let exhausted = |rank: &Self| rank.tries_left == Some(0);
        let by_tries = exhausted(self).cmp(&exhausted(other));
        let by_style = || self.sort_key.is_none().cmp(&other.sort_key.is_none());
        by_tries
            .then_with(by_style)
            .then_with(|| by_sort_key(self, other))
            .then_with(|| by_name(self, other))
    }
}

/// Only between two entries that both have a sort key.
fn by_sort_key(a: &Rank, b: &Rank) -> Ordering {
    let (Some(first), Some(second)) = (&a.sort_key, &b.sort_key) else {
        return Ordering::Equal;
    };
    let version = |rank: &Rank| rank.version.clone().unwrap_or_default();
    let newest_first = || compare_versions(&version(b), &version(a));
    first
        .cmp(second)
        .then_with(|| a.machine_id.cmp(&b.machine_id))
        .then_with(newest_first)
}

fn by_name(a: &Rank, b: &Rank) -> Ordering {
    let by_tries = || match (a.tries_left, b.tries_left) {
        (Some(first), Some(second)) => Reverse(first)
            .cmp(&Reverse(second))
            .then(a.tries_done.cmp(&b.tries_done)),
        _ => Ordering::Equal,
    };
    compare_versions(&b.id, &a.id).then_with(by_tries)
}
