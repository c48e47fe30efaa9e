//! Which function here is which of a captured machine: by what nothing else has, then by its place, then by being the only one of
//! its kind. Pure.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_partition::Bdf;

use crate::diff::Pairs;
use crate::disks::Disk;
use crate::network::Nic;
use crate::pci::PciFunction;
use crate::twin::{Note, Twin};

impl Twin {
    /// The functions of `here` that are functions of this machine, each with its address on this one. A function is recognized by serial
    /// numbers and hardware addresses; one that has none that is known, by its ids at the same address, then by being the only one with its
    /// ids. Bridges belong to a board and virtual functions to their card, so neither is recognized.
    #[must_use]
    pub fn recognize(&self, here: &Twin) -> BTreeMap<Bdf, Bdf> {
        let (owns, theirs) = (Marks::of(self), Marks::of(here));
        let mut found = Pairs::new();
        for (mark, own) in &owns.owners {
            if let (Some(own), Some(Some(its))) = (own, theirs.owners.get(mark)) {
                found.join(*own, *its);
            }
        }
        let may_be = |own: Bdf, its: Bdf| !owns.contradict(own, &theirs, its);
        let (own_kinds, its_kinds) = (kinds(self), kinds(here));
        for (own, kind) in &own_kinds {
            if its_kinds.get(own) == Some(kind) && may_be(*own, *own) {
                found.join(*own, *own);
            }
        }
        found.unique_if(own_kinds, its_kinds, may_be);
        found.into_before()
    }

    /// This machine as it would show itself with the drivers of `captured`: a function of which nothing is seen, because another driver than
    /// there has it or none, is taken to have the interfaces and disks that it had there. Also the functions of which that is assumed.
    #[must_use]
    pub fn shown_as(&self, captured: &Twin, recognized: &BTreeMap<Bdf, Bdf>) -> (Twin, Vec<Bdf>) {
        let mut shown = self.clone();
        let mut assumed = Vec::new();
        for (here, there) in recognized {
            let (Some(function), Some(before)) =
                (self.pci.functions.get(here), captured.pci.functions.get(there))
            else {
                continue;
            };
            let nics = || captured.nics.iter().filter(|(_, nic)| nic.pci == Some(*there));
            let disks = || captured.disks.iter().filter(|(_, disk)| disk.pci == Some(*there));
            let had = nics().next().is_some() || disks().next().is_some();
            if !had || function.driver == before.driver || self.shows(*here) {
                continue;
            }
            for (name, nic) in nics() {
                let pci = Some(*here);
                let nic = Nic { pci, ..nic.clone() };
                shown.nics.insert(free(&shown.nics, name, *here), nic);
            }
            for (name, disk) in disks() {
                let pci = Some(*here);
                let disk = Disk { pci, ..disk.clone() };
                shown.disks.insert(free(&shown.disks, name, *here), disk);
            }
            shown.notes.push(Note {
                part: "pci".to_owned(),
                what: format!("{here}: no driver shows what it has; taken for {there} of the capture"),
            });
            assumed.push(*here);
        }
        (shown, assumed)
    }

    /// Whether an interface or a disk of the function is seen.
    fn shows(&self, bdf: Bdf) -> bool {
        let mut nics = self.nics.values().map(|nic| nic.pci);
        let mut disks = self.disks.values().map(|disk| disk.pci);
        nics.any(|pci| pci == Some(bdf)) || disks.any(|pci| pci == Some(bdf))
    }
}

/// The name, or another where something here has it.
fn free<T>(named: &BTreeMap<String, T>, name: &str, at: Bdf) -> String {
    match named.contains_key(name) {
        true => format!("{name} of {at}"),
        false => name.to_owned(),
    }
}

/// Vendor, device, class and subsystem.
type Kind = (u16, u16, u32, [u16; 2]);

fn kinds(twin: &Twin) -> BTreeMap<Bdf, Kind> {
    let functions = twin.pci.functions.iter().filter(|(_, function)| is_one(function));
    functions
        .map(|(bdf, PciFunction { ids, .. })| (*bdf, (ids.vendor, ids.device, ids.class, ids.subsystem)))
        .collect()
}

/// Whether it is a device of its own.
fn is_one(function: &PciFunction) -> bool {
    function.ids.class >> 16 != 0x06 && function.virtual_of.is_none()
}

/// Something that no other function of any machine has.
type Mark = (Sort, String);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    HardwareAddress,
    Disk,
    SerialNumber,
}

/// The marks of a machine.
struct Marks {
    /// Whose it is; `None`: several have it, so it tells nothing.
    owners: BTreeMap<Mark, Option<Bdf>>,
    of: BTreeMap<Bdf, BTreeSet<Mark>>,
}

impl Marks {
    fn of(twin: &Twin) -> Marks {
        let mut marks = Marks {
            owners: BTreeMap::new(),
            of: BTreeMap::new(),
        };
        for nic in twin.nics.values() {
            // A random address, or one that was set, is of today.
            if matches!(nic.mac_origin, None | Some(0)) && !nic.mac.is_empty() {
                marks.add(twin, nic.pci, (Sort::HardwareAddress, nic.mac.clone()));
            }
        }
        for disk in twin.disks.values() {
            if let Some(serial) = disk.serial.as_ref().or(disk.wwid.as_ref()) {
                let text = format!("{} {serial}", disk.model.as_deref().unwrap_or_default());
                marks.add(twin, disk.pci, (Sort::Disk, text));
            }
        }
        for (bdf, function) in &twin.pci.functions {
            // All functions of a card have the same number.
            let serial = function
                .config
                .serial
                .filter(|serial| ![0, u64::MAX].contains(serial));
            if let Some(serial) = serial {
                let text = format!("{serial:016x} {}", bdf.devfn() & 7);
                marks.add(twin, Some(*bdf), (Sort::SerialNumber, text));
            }
        }
        marks
    }

    fn add(&mut self, twin: &Twin, bdf: Option<Bdf>, mark: Mark) {
        let Some(bdf) = bdf.filter(|bdf| twin.pci.functions.get(bdf).is_some_and(is_one)) else {
            return;
        };
        let owner = self.owners.entry(mark.clone()).or_insert(Some(bdf));
        if *owner != Some(bdf) {
            *owner = None;
        }
        self.of.entry(bdf).or_default().insert(mark);
    }

    /// Whether both have marks of one sort, and none in common.
    fn contradict(&self, own: Bdf, other: &Marks, its: Bdf) -> bool {
        let (Some(own), Some(its)) = (self.of.get(&own), other.of.get(&its)) else {
            return false;
        };
        [Sort::HardwareAddress, Sort::Disk, Sort::SerialNumber]
            .into_iter()
            .any(|sort| {
                let of_sort = |(kind, _): &&Mark| *kind == sort;
                let (mut own, its) = (own.iter().filter(of_sort).peekable(), its);
                own.peek().is_some()
                    && its.iter().any(|mark| of_sort(&mark))
                    && !own.any(|mark| its.contains(mark))
            })
    }
}
