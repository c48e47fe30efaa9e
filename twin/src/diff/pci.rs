//! The PCI trees: what is where, behind what, in which slot.

use std::collections::BTreeSet;

use pellucid_partition::Bdf;
use pellucid_passthrough::Bar;

use super::findings::Findings;
use super::{Class, Pairs};
use crate::pci::{Carries, PciFunction};
use crate::twin::Twin;

pub(super) fn compare(findings: &mut Findings, (before, after): (&Twin, &Twin), pairs: &Pairs) {
    findings.part("pci");
    for (bdf, function) in &before.pci.functions {
        let found = pairs
            .after(*bdf)
            .and_then(|at| Some((at, after.pci.functions.get(&at)?)));
        match found {
            Some((at, now)) => same(findings, (*bdf, function), (at, now)),
            None => gone(findings, (*bdf, function), after),
        }
    }
    for (bdf, function) in &after.pci.functions {
        if pairs.before(*bdf).is_none() {
            let why = "the system did not have it before; its driver is loaded if there is one";
            let value = (None, Some(function.ids.to_string()));
            findings.value(&subject(*bdf, function), value, (Class::Cosmetic, why));
        }
    }
    let slots = |twin: &Twin| -> BTreeSet<String> {
        let slots = twin.pci.slots.iter();
        slots.map(|(name, address)| format!("{name}={address}")).collect()
    };
    let why = "names by slot are predicted for each network interface; nothing else is called so";
    findings.sets(
        ("slots gone", "slots new"),
        (&slots(before), &slots(after)),
        |_, _| (Class::Cosmetic, why),
    );
}

fn subject(bdf: Bdf, function: &PciFunction) -> String {
    format!("{bdf} {}", function.what())
}

fn gone(findings: &mut Findings, (bdf, function): (Bdf, &PciFunction), after: &Twin) {
    let (class, why) = match function.carries {
        Carries::Root => (Class::BreaksBoot, "the root file system is on its disk"),
        Carries::Data => (
            Class::BreaksBoot,
            "file systems or swap on its disk were in use; a boot that waits for them fails",
        ),
        Carries::Nothing if function.ids.class >> 16 == 0x01 => (
            Class::Cosmetic,
            "its disks are not there; nothing of them was in use",
        ),
        Carries::Nothing if function.is_bridge() => {
            (Class::Cosmetic, "nothing that the system uses is a bridge itself")
        }
        Carries::Nothing => (Class::Cosmetic, "what it did is not there"),
    };
    let reason = if after.origin.withheld.contains(&bdf) {
        "; withheld on purpose: it was not lent to this server"
    } else if after.origin.guest {
        "; it was not lent to this server, or the board of a logical server has none"
    } else {
        ""
    };
    let value = (Some(function.ids.to_string()), None);
    findings.value(&subject(bdf, function), value, (class, &format!("{why}{reason}")));
}

fn same(findings: &mut Findings, (bdf, before): (Bdf, &PciFunction), (at, after): (Bdf, &PciFunction)) {
    let subject = subject(bdf, before);
    let moved = if before.ids.class >> 16 == 0x01 {
        (
            Class::ChangesName,
            "/dev/disk/by-path names its disks by this address",
        )
    } else {
        (
            Class::Cosmetic,
            "drivers find it all the same; a network interface's name is predicted for itself",
        )
    };
    findings.value(&format!("{subject}: address"), (Some(bdf), Some(at)), moved);
    let ids = (Some(before.ids.to_string()), Some(after.ids.to_string()));
    findings.value(
        &format!("{subject}: ids"),
        ids,
        (Class::Cosmetic, "the same kind of device, made otherwise"),
    );
    let driver = (before.driver.as_deref(), after.driver.as_deref());
    findings.value(
        &format!("{subject}: driver"),
        driver,
        (Class::Cosmetic, "another driver has it, or none"),
    );
    let path = |function: &PciFunction| {
        let ports: Vec<String> = function.upstream.iter().map(Bdf::to_string).collect();
        (!ports.is_empty()).then(|| ports.join(" "))
    };
    let why = "a network interface's name is predicted for itself; nothing else is named by its ports";
    findings.value(
        &format!("{subject}: behind"),
        (path(before), path(after)),
        (Class::Cosmetic, why),
    );
    place(findings, &subject, (before, after));
    let (own, its) = (&before.config, &after.config);
    findings.value(
        &format!("{subject}: device serial number"),
        both(
            own.serial.map(|id| format!("{id:016x}")),
            its.serial.map(|id| format!("{id:016x}")),
        ),
        (Class::LicenceRisk, "another specimen of the device"),
    );
    if own.bytes > HEADER && its.bytes > HEADER {
        capabilities(findings, &subject, (before, after));
    } else if own.bytes != its.bytes {
        findings.uncompared("PCI capabilities: one of the captures was not made by root");
    }
    bars(findings, &subject, (&before.bars, &after.bars));
}

fn place(findings: &mut Findings, subject: &str, (before, after): (&PciFunction, &PciFunction)) {
    let (own, its) = (&before.place, &after.place);
    let shown = "a network interface's name is predicted for itself; for others it is only shown";
    let slots = (own.slot.clone(), its.slot.clone());
    findings.value(&format!("{subject}: slot"), slots, (Class::Cosmetic, shown));
    let labels = (own.label.clone(), its.label.clone());
    findings.value(&format!("{subject}: label"), labels, (Class::Cosmetic, shown));
    let index = (own.onboard(), its.onboard());
    findings.value(
        &format!("{subject}: number on the board"),
        index,
        (Class::Cosmetic, shown),
    );
    let nodes = (own.numa_node, its.numa_node);
    findings.value(
        &format!("{subject}: memory node"),
        nodes,
        (
            Class::Cosmetic,
            "interrupts and buffers may be placed farther away",
        ),
    );
    let several = (before.config.multifunction, after.config.multifunction);
    if several.0.is_some() && several.1.is_some() {
        findings.value(
            &format!("{subject}: several functions"),
            several,
            (Class::Cosmetic, shown),
        );
    }
}

fn capabilities(findings: &mut Findings, subject: &str, (before, after): (&PciFunction, &PciFunction)) {
    let set = |function: &PciFunction| -> BTreeSet<String> {
        let standard = function.config.standard.iter().map(|id| format!("{id:02x}"));
        let extended = function.config.extended.iter().map(|id| format!("{id:04x}"));
        let extended = extended.filter(|_| function.config.bytes > STANDARD);
        standard.chain(extended).collect()
    };
    let why = "a driver that would use them works without; those that a guest cannot use are hidden from it";
    findings.sets(
        (
            &format!("{subject}: capabilities gone"),
            &format!("{subject}: capabilities new"),
        ),
        (&set(before), &set(after)),
        |_, _| (Class::Cosmetic, why),
    );
}

fn bars(findings: &mut Findings, subject: &str, (before, after): (&[Bar], &[Bar])) {
    for index in 0..6 {
        let bar = |bars: &[Bar]| bars.iter().find(|bar| bar.index == index).copied();
        let (own, its) = (bar(before), bar(after));
        let size = |bar: Option<Bar>| bar.map(|bar| format!("{:#x} bytes", bar.size));
        findings.value(
            &format!("{subject}: size of BAR {index}"),
            (size(own), size(its)),
            (Class::Cosmetic, "another part of its memory is in reach"),
        );
        if own.is_some() && its.is_some() {
            let address = |bar: Option<Bar>| bar.map(|bar| format!("{:#x}", bar.address));
            findings.value(
                &format!("{subject}: address of BAR {index}"),
                (address(own), address(its)),
                (
                    Class::None,
                    "drivers ask where it is, and it may change with each boot",
                ),
            );
        }
    }
}

/// Both values, or neither where one is not known.
fn both<T>(before: Option<T>, after: Option<T>) -> (Option<T>, Option<T>) {
    match (before, after) {
        (Some(before), Some(after)) => (Some(before), Some(after)),
        _ => (None, None),
    }
}

/// What everybody may read of configuration space, and what there is of it on conventional PCI.
const HEADER: u16 = 64;
const STANDARD: u16 = 256;
