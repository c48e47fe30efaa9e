//! Which function of the one machine is which of the other.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_partition::Bdf;

use crate::pci::PciFunction;
use crate::twin::Twin;

/// Things of two machines that are the same, each by what it is called.
pub(crate) struct Joined<K> {
    forward: BTreeMap<K, K>,
    back: BTreeMap<K, K>,
}

/// Functions that are the same: at the same address, or recognized by what is unique about them.
pub(crate) type Pairs = Joined<Bdf>;

impl Joined<Bdf> {
    pub(crate) fn of(before: &Twin, after: &Twin) -> Pairs {
        let mut pairs = Joined::new();
        let what = |function: &PciFunction| (function.ids.vendor, function.ids.device, function.ids.class);
        for (bdf, function) in &before.pci.functions {
            let same = after.pci.functions.get(bdf);
            if same.is_some_and(|same| what(same) == what(function)) {
                pairs.join(*bdf, *bdf);
            }
        }
        pairs.unique(shown_numbers(before), shown_numbers(after));
        // A bridge is no particular one: any port is like another.
        let kinds = |twin: &Twin| -> BTreeMap<Bdf, _> {
            let functions = twin
                .pci
                .functions
                .iter()
                .filter(|(_, function)| !function.is_bridge());
            functions
                .map(|(bdf, function)| (*bdf, (what(function), function.ids.subsystem)))
                .collect()
        };
        pairs.unique(kinds(before), kinds(after));
        pairs
    }
}

impl<K: Ord + Copy> Joined<K> {
    pub(crate) fn new() -> Self {
        Self {
            forward: BTreeMap::new(),
            back: BTreeMap::new(),
        }
    }

    /// Joins what is left and has a key that nothing else left on its side has.
    pub(crate) fn unique<Key: Ord>(
        &mut self,
        owns: impl IntoIterator<Item = (K, Key)>,
        theirs: impl IntoIterator<Item = (K, Key)>,
    ) {
        self.unique_if(owns, theirs, |_, _| true);
    }

    /// The same for those that may be the same.
    pub(crate) fn unique_if<Key: Ord>(
        &mut self,
        owns: impl IntoIterator<Item = (K, Key)>,
        theirs: impl IntoIterator<Item = (K, Key)>,
        may_be: impl Fn(K, K) -> bool,
    ) {
        let (owns, theirs) = (left(owns, &self.forward), left(theirs, &self.back));
        for (key, own) in owns {
            if let ([own], Some([their])) = (own.as_slice(), theirs.get(&key).map(Vec::as_slice))
                && may_be(*own, *their)
            {
                self.join(*own, *their);
            }
        }
    }

    /// Joins two, unless one of them is joined already.
    pub(crate) fn join(&mut self, before: K, after: K) {
        if self.after(before).is_none() && self.before(after).is_none() {
            self.forward.insert(before, after);
            self.back.insert(after, before);
        }
    }

    /// What each was, by what it is.
    pub(crate) fn into_before(self) -> BTreeMap<K, K> {
        self.back
    }

    /// What it is afterwards.
    pub(crate) fn after(&self, before: K) -> Option<K> {
        self.forward.get(&before).copied()
    }

    /// What it was.
    pub(crate) fn before(&self, after: K) -> Option<K> {
        self.back.get(&after).copied()
    }
}

/// What is not yet joined, by key.
fn left<K: Ord + Copy, Key: Ord>(
    keys: impl IntoIterator<Item = (K, Key)>,
    done: &BTreeMap<K, K>,
) -> BTreeMap<Key, Vec<K>> {
    let mut found: BTreeMap<Key, Vec<K>> = BTreeMap::new();
    for (name, key) in keys.into_iter().filter(|(name, _)| !done.contains_key(name)) {
        found.entry(key).or_default().push(name);
    }
    found
}

/// What no other device has: serial numbers and hardware addresses, by function.
fn shown_numbers(twin: &Twin) -> BTreeMap<Bdf, BTreeSet<String>> {
    let mut numbers: BTreeMap<Bdf, BTreeSet<String>> = BTreeMap::new();
    let mut add = |bdf: Option<Bdf>, text: Option<String>| {
        if let (Some(bdf), Some(text)) = (bdf, text) {
            numbers.entry(bdf).or_default().insert(text);
        }
    };
    for disk in twin.disks.values() {
        add(
            disk.pci,
            disk.serial.as_ref().map(|serial| format!("disk {serial}")),
        );
    }
    for nic in twin.nics.values() {
        add(nic.pci, (!nic.mac.is_empty()).then(|| format!("nic {}", nic.mac)));
    }
    numbers
}
