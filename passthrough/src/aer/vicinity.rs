//! Who could have had an error that the kernel signals to a function: that one, the ports above it, and what else is below its port. Only
//! of ports are the registers read: reading those of a sleeping function wakes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use pellucid_partition::Bdf;

use super::Severity;
use super::registers::{Reported, Taken, block_of, uncorrectable};
use crate::inventory::{Counts, ErrorCounts};

/// An error that somebody had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) severity: Severity,
    pub(crate) kinds: BTreeMap<String, u64>,
}

/// What all of them say at one moment.
#[derive(Debug, Default)]
pub(crate) struct Vicinity {
    own: Option<ErrorCounts>,
    others: BTreeMap<Bdf, Other>,
    /// The root port's domain, and from whom it has heard.
    heard: Option<(u32, Reported)>,
}

#[derive(Debug, Default)]
struct Other {
    counts: Option<ErrorCounts>,
    /// A port's error registers, if they can be read.
    registers: Vec<u8>,
}

impl Vicinity {
    /// Around the function whose folder in sysfs is `function`; nobody, if there is none.
    pub(crate) fn of(function: Option<&Path>) -> Vicinity {
        let mut vicinity = Vicinity::default();
        let Some(real) = function.and_then(|function| fs::canonicalize(function).ok()) else {
            return vicinity;
        };
        vicinity.own = ErrorCounts::read(&real);
        let ports = real.ancestors().skip(1);
        for (port, device) in ports.map_while(|port| Some((port, name(port)?))) {
            if vicinity.others.is_empty() {
                vicinity.add_below(port, &real);
            }
            let other = Other {
                counts: ErrorCounts::read(port),
                registers: block_of(&fs::read(port.join("config")).unwrap_or_default()),
            };
            // The last one is the root port.
            vicinity.heard = Reported::of(&other.registers).map(|heard| (device.domain(), heard));
            vicinity.others.insert(device, other);
        }
        vicinity
    }

    fn add_below(&mut self, port: &Path, own: &Path) {
        for entry in fs::read_dir(port).into_iter().flatten().flatten() {
            let path = entry.path();
            if let Some(device) = name(&path).filter(|_| path != own) {
                let counts = ErrorCounts::read(&path);
                let registers = Vec::new();
                self.others.insert(device, Other { counts, registers });
            }
        }
    }

    /// Whether somebody counts the function's errors.
    pub(crate) fn is_counted(&self) -> bool {
        self.own.is_some()
    }

    /// The errors of the function itself that were counted since `before`.
    pub(crate) fn counted_since(&self, before: &Vicinity) -> Option<Found> {
        rise(before.own.as_ref()?, self.own.as_ref()?)
    }

    /// Who of the others had the worst error that was counted since `before`.
    pub(crate) fn another_counted_since(&self, before: &Vicinity) -> Option<(Bdf, Severity)> {
        let none = ErrorCounts::default();
        self.worst(before, |now, before| {
            let before = before.and_then(|before| before.counts.as_ref());
            rise(before.unwrap_or(&none), now.counts.as_ref()?)
        })
    }

    /// Which of the ports says that it had an error since `before`.
    pub(crate) fn port_since(&self, before: &Vicinity) -> Option<(Bdf, Severity)> {
        self.worst(before, |now, before| {
            let stale = before.and_then(|before| uncorrectable(&before.registers));
            match Taken::of(&now.registers, stale.unwrap_or(0)) {
                Taken::Errors(found, _) => Some(found),
                Taken::Gone | Taken::Nothing => None,
            }
        })
    }

    fn worst(
        &self,
        before: &Vicinity,
        found: impl Fn(&Other, Option<&Other>) -> Option<Found>,
    ) -> Option<(Bdf, Severity)> {
        let had = |(device, now): (&Bdf, &Other)| {
            let found = found(now, before.others.get(device))?;
            Some((*device, found.severity))
        };
        let all: Vec<_> = self.others.iter().filter_map(had).collect();
        let fatal = all.iter().find(|(_, severity)| *severity == Severity::Fatal);
        fatal.or(all.first()).copied()
    }

    /// From whom the root port has heard of an error since `before`.
    pub(crate) fn heard_since(&self, before: &Vicinity) -> Option<Bdf> {
        let (domain, heard) = self.heard?;
        let is_new = heard.pending || before.heard != self.heard;
        let [bus, devfn] = heard.source.to_be_bytes();
        is_new.then(|| Bdf::of_devfn(domain, bus, devfn))
    }
}

impl Found {
    /// One of which nothing else is known.
    pub(crate) fn of(severity: Severity) -> Found {
        let kinds = BTreeMap::new();
        Found { severity, kinds }
    }
}

/// The worse errors of those that were counted in between.
fn rise(before: &ErrorCounts, now: &ErrorCounts) -> Option<Found> {
    let (fatal, nonfatal) = (
        now.fatal.since(&before.fatal),
        now.nonfatal.since(&before.nonfatal),
    );
    let (severity, Counts { kinds, .. }) = match (fatal.total, nonfatal.total) {
        (0, 0) => return None,
        (0, _) => (Severity::NonFatal, nonfatal),
        _ => (Severity::Fatal, fatal),
    };
    Some(Found { severity, kinds })
}

/// The address that a folder is named for.
fn name(path: &Path) -> Option<Bdf> {
    path.file_name()?.to_str()?.parse().ok()
}
