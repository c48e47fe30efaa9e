//! Which function of the one machine is which of the other.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_partition::Bdf;

use crate::pci::PciFunction;
use crate::twin::Twin;

/// Functions that are the same: at the same address, or recognized by what is unique about them.
pub(crate) struct Pairs {
    forward: BTreeMap<Bdf, Bdf>,
    back: BTreeMap<Bdf, Bdf>,
}

impl Pairs {
    pub(crate) fn of(before: &Twin, after: &Twin) -> Pairs {
        let mut pairs = Pairs {
            forward: BTreeMap::new(),
            back: BTreeMap::new(),
        };
        let what = |function: &PciFunction| (function.ids.vendor, function.ids.device, function.ids.class);
        for (bdf, function) in &before.pci.functions {
            let same = after.pci.functions.get(bdf);
            if same.is_some_and(|same| what(same) == what(function)) {
                pairs.join(*bdf, *bdf);
            }
        }
        pairs.unique(marks(before), marks(after));
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

    /// Joins what is left and has a key that nothing else left on its side has.
    fn unique<K: Ord>(&mut self, owns: BTreeMap<Bdf, K>, theirs: BTreeMap<Bdf, K>) {
        let left = |keys: BTreeMap<Bdf, K>, done: &BTreeMap<Bdf, Bdf>| {
            let mut found: BTreeMap<K, Vec<Bdf>> = BTreeMap::new();
            for (bdf, key) in keys.into_iter().filter(|(bdf, _)| !done.contains_key(bdf)) {
                found.entry(key).or_default().push(bdf);
            }
            found
        };
        let (owns, theirs) = (left(owns, &self.forward), left(theirs, &self.back));
        for (key, own) in owns {
            if let ([own], Some([their])) = (own.as_slice(), theirs.get(&key).map(Vec::as_slice)) {
                self.join(*own, *their);
            }
        }
    }

    fn join(&mut self, before: Bdf, after: Bdf) {
        self.forward.insert(before, after);
        self.back.insert(after, before);
    }

    /// Where a function is afterwards.
    pub(crate) fn after(&self, before: Bdf) -> Option<Bdf> {
        self.forward.get(&before).copied()
    }

    /// Where a function was.
    pub(crate) fn before(&self, after: Bdf) -> Option<Bdf> {
        self.back.get(&after).copied()
    }
}

/// What no other device has: serial numbers and hardware addresses, by function.
fn marks(twin: &Twin) -> BTreeMap<Bdf, BTreeSet<String>> {
    let mut marks: BTreeMap<Bdf, BTreeSet<String>> = BTreeMap::new();
    let mut mark = |bdf: Option<Bdf>, text: Option<String>| {
        if let (Some(bdf), Some(text)) = (bdf, text) {
            marks.entry(bdf).or_default().insert(text);
        }
    };
    for disk in twin.disks.values() {
        mark(
            disk.pci,
            disk.serial.as_ref().map(|serial| format!("disk {serial}")),
        );
    }
    for nic in twin.nics.values() {
        mark(nic.pci, (!nic.mac.is_empty()).then(|| format!("nic {}", nic.mac)));
    }
    marks
}
