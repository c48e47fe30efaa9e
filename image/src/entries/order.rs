//! The order in which systemd-boot lists entries; the first one is booted when no default is configured.

use std::cmp::{Ordering, Reverse};

use super::{LoaderEntry, compare_versions};

/// Sorts entries as the boot menu shows them. Entries that compare equal keep the order of the directory.
pub(crate) fn sort(entries: &mut [LoaderEntry]) {
    entries.sort_by(compare);
}

fn compare(a: &LoaderEntry, b: &LoaderEntry) -> Ordering {
    let exhausted = |entry: &LoaderEntry| entry.tries_left == Some(0);
    let by_tries = exhausted(a).cmp(&exhausted(b));
    let by_style = || a.sort_key.is_none().cmp(&b.sort_key.is_none());
    by_tries
        .then_with(by_style)
        .then_with(|| by_sort_key(a, b))
        .then_with(|| by_name(a, b))
}

/// Only between two entries that both have a sort key.
fn by_sort_key(a: &LoaderEntry, b: &LoaderEntry) -> Ordering {
    let (Some(first), Some(second)) = (&a.sort_key, &b.sort_key) else {
        return Ordering::Equal;
    };
    let version = |entry: &LoaderEntry| entry.version.clone().unwrap_or_default();
    let newest_first = || compare_versions(&version(b), &version(a));
    first
        .cmp(second)
        .then_with(|| a.machine_id.cmp(&b.machine_id))
        .then_with(newest_first)
}

fn by_name(a: &LoaderEntry, b: &LoaderEntry) -> Ordering {
    let by_tries = || match (a.tries_left, b.tries_left) {
        (Some(first), Some(second)) => Reverse(first)
            .cmp(&Reverse(second))
            .then(a.tries_done.cmp(&b.tries_done)),
        _ => Ordering::Equal,
    };
    compare_versions(&b.id, &a.id).then_with(by_tries)
}
