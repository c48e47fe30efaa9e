//! Disks: what they are called, and what they are recognized by.

use super::findings::Findings;
use super::{Class, Joined, Pairs};
use crate::disks::Disk;
use crate::pci::Carries;
use crate::twin::Twin;

pub(super) fn compare(findings: &mut Findings, (before, after): (&Twin, &Twin), pairs: &Pairs) {
    findings.part("disks");
    let joined = join(before, after, pairs);
    for (name, disk) in &before.disks {
        let now = joined
            .after(name.as_str())
            .and_then(|now| Some((now, after.disks.get(now)?)));
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
    for (name, disk) in after
        .disks
        .iter()
        .filter(|(name, _)| joined.before(name.as_str()).is_none())
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
fn join<'t>(before: &'t Twin, after: &'t Twin, pairs: &Pairs) -> Joined<&'t str> {
    let mut joined = Joined::new();
    for (name, disk) in &before.disks {
        let same = |now: &Disk| now.serial == disk.serial && now.wwid == disk.wwid;
        if after.disks.get(name).is_some_and(same) {
            joined.join(name.as_str(), name.as_str());
        }
    }
    type Key = fn(&Disk) -> Option<String>;
    let by_serial: Key = |disk| Some(format!("{:?} {}", disk.model, disk.serial.as_ref()?));
    let by_wwid: Key = |disk| disk.wwid.clone();
    for key in [by_serial, by_wwid] {
        let keyed = |twin: &'t Twin| {
            let disks = twin.disks.iter();
            disks.filter_map(move |(name, disk)| Some((name.as_str(), key(disk)?)))
        };
        joined.unique(keyed(before), keyed(after));
    }
    for (name, disk) in &before.disks {
        let name = name.as_str();
        let here = |now: &Disk| disk.pci.and_then(|own| pairs.after(own)) == now.pci;
        if after.disks.get(name).is_some_and(here) {
            joined.join(name, name);
        }
    }
    joined
}
