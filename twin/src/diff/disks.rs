//! Disks: what they are called, and what they are recognized by.

use std::collections::{BTreeMap, BTreeSet};

use super::findings::Findings;
use super::{Class, Pairs};
use crate::disks::Disk;
use crate::pci::Carries;
use crate::twin::Twin;

pub(super) fn compare(findings: &mut Findings, (before, after): (&Twin, &Twin), pairs: &Pairs) {
    findings.part("disks");
    let joined = join(before, after, pairs);
    for (name, disk) in &before.disks {
        let now = joined
            .get(name.as_str())
            .and_then(|now| Some((*now, after.disks.get(*now)?)));
        match now {
            Some((now, its)) => same(findings, (name, disk), (now, its)),
            None => {
                let function = disk.pci.and_then(|bdf| before.pci.functions.get(&bdf));
                let used = function.is_some_and(|function| function.carries > Carries::Nothing);
                let judgement = if used {
                    (Class::BreaksBoot, "a disk behind its controller was in use")
                } else {
                    (
                        Class::ChangesName,
                        "its names below /dev/disk are gone; nothing of it was in use",
                    )
                };
                findings.value(name, (Some(told(disk)), None), judgement);
            }
        }
    }
    let found: BTreeSet<&str> = joined.values().copied().collect();
    for (name, disk) in after
        .disks
        .iter()
        .filter(|(name, _)| !found.contains(name.as_str()))
    {
        let why = "the system did not have it before";
        findings.value(name, (None, Some(told(disk))), (Class::Cosmetic, why));
    }
}

fn told(disk: &Disk) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
    format!("{} {}", part(&disk.model), part(&disk.serial))
}

fn same(findings: &mut Findings, (name, before): (&str, &Disk), (now, after): (&str, &Disk)) {
    let mut value = |what: &str, values: (Option<String>, Option<String>), judgement| {
        findings.value(&format!("{name}: {what}"), values, judgement);
    };
    value(
        "name",
        (Some(name.to_owned()), Some(now.to_owned())),
        (
            Class::ChangesName,
            "the kernel counts disks in the order that it finds them; use /dev/disk/by-uuid",
        ),
    );
    let by_id = "/dev/disk/by-id names the disk by it, and licences may be bound to it";
    let fields = [
        ("model", &before.model, &after.model),
        ("serial number", &before.serial, &after.serial),
        ("world-wide name", &before.wwid, &after.wwid),
    ];
    for (what, own, its) in fields {
        value(what, (own.clone(), its.clone()), (Class::ChangesName, by_id));
    }
    value(
        "firmware",
        (before.firmware.clone(), after.firmware.clone()),
        (Class::Cosmetic, "only shown"),
    );
    let size = if after.size < before.size {
        (
            Class::BreaksBoot,
            "it is smaller: partitions may reach behind its end",
        )
    } else {
        (
            Class::Cosmetic,
            "it is larger: the second partition table is not at its end",
        )
    };
    let bytes = |size: u64| Some(format!("{size} bytes"));
    value("size", (bytes(before.size), bytes(after.size)), size);
    value(
        "logical block",
        (bytes(before.block.into()), bytes(after.block.into())),
        (Class::BreaksBoot, "partition tables count in these blocks"),
    );
}

/// By name and serial number, then by either where it is unique, then by name.
fn join<'t>(before: &'t Twin, after: &'t Twin, pairs: &Pairs) -> BTreeMap<&'t str, &'t str> {
    let mut joined: BTreeMap<&str, &str> = BTreeMap::new();
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for (name, disk) in &before.disks {
        let same = after
            .disks
            .get_key_value(name)
            .filter(|(_, now)| now.serial == disk.serial && now.wwid == disk.wwid);
        if let Some((now, _)) = same {
            joined.insert(name, now);
            taken.insert(now);
        }
    }
    type Key = fn(&str, &Disk) -> Option<String>;
    let by_serial: Key = |_, disk| Some(format!("{:?} {}", disk.model, disk.serial.as_ref()?));
    let by_wwid: Key = |_, disk| disk.wwid.clone();
    for key in [by_serial, by_wwid] {
        let left = |disks: &'t BTreeMap<String, Disk>, done: &dyn Fn(&str) -> bool| {
            let mut keyed: BTreeMap<String, Vec<&'t str>> = BTreeMap::new();
            for (name, disk) in disks.iter().filter(|(name, _)| !done(name)) {
                if let Some(key) = key(name, disk) {
                    keyed.entry(key).or_default().push(name);
                }
            }
            keyed
        };
        let owns = left(&before.disks, &|name| joined.contains_key(name));
        let theirs = left(&after.disks, &|name| taken.contains(name));
        for (key, own) in owns {
            if let ([own], Some([now])) = (own.as_slice(), theirs.get(&key).map(Vec::as_slice)) {
                joined.insert(own, now);
                taken.insert(now);
            }
        }
    }
    for (name, disk) in &before.disks {
        let now = after
            .disks
            .get_key_value(name)
            .filter(|(now, _)| !taken.contains(now.as_str()));
        let here = |now: &Disk| disk.pci.and_then(|own| pairs.after(own)) == now.pci;
        if let (Some((now, _)), false) = (
            now.filter(|(_, now)| here(now)),
            joined.contains_key(name.as_str()),
        ) {
            joined.insert(name, now);
            taken.insert(now);
        }
    }
    joined
}
