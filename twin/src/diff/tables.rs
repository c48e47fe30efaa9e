//! What the firmware left in tables: SMBIOS and ACPI.

use std::collections::{BTreeMap, BTreeSet};

use pellucid_image::Smbios as Tables;

use super::Class;
use super::findings::Findings;
use crate::tables::{AcpiTable, Smbios};
use crate::twin::Twin;

pub(super) fn compare(findings: &mut Findings, (before, after): (&Twin, &Twin)) {
    smbios(findings, (before, after));
    findings.part("acpi");
    let names: BTreeSet<&String> = before.acpi.keys().chain(after.acpi.keys()).collect();
    for name in names {
        let (own, its) = (before.acpi.get(name), after.acpi.get(name));
        let judgement = match name.get(..4) {
            Some("SLIC" | "MSDM") => (Class::LicenceRisk, "an operating system's activation is in it"),
            Some("DMAR" | "IVRS") => (
                Class::Cosmetic,
                "the IOMMU is the host's: the system has none of its own",
            ),
            Some("WAET") => (Class::Cosmetic, "tells that timers are emulated"),
            Some("DSDT" | "SSDT") => (
                Class::Cosmetic,
                "devices of the board that are not on PCI, and power states",
            ),
            _ => (Class::Cosmetic, "what it describes is there or not, or otherwise"),
        };
        if own.is_some_and(unread) != its.is_some_and(unread) && own.is_some() && its.is_some() {
            findings.uncompared("ACPI tables: a capture has only their names");
            continue;
        }
        findings.value(name, (own.map(shown), its.map(shown)), judgement);
    }
}

fn unread(table: &AcpiTable) -> bool {
    table.length == 0
}

fn shown(table: &AcpiTable) -> String {
    if unread(table) {
        return "there".to_owned();
    }
    format!(
        "revision {} of {} {} ({:#x}), {} bytes",
        table.revision, table.oem, table.oem_table, table.oem_revision, table.length
    )
}

fn smbios(findings: &mut Findings, (before, after): (&Twin, &Twin)) {
    findings.part("smbios");
    let (own, its) = (&before.smbios, &after.smbios);
    let names: BTreeSet<&String> = own.ids.keys().chain(its.ids.keys()).collect();
    // The kernel shows serial numbers and the UUID to root only.
    let hidden = |name: &str| ROOT_ONLY.contains(&name);
    for name in names {
        let (one, other) = (own.ids.get(name), its.ids.get(name));
        let partial =
            (one.is_none() && before.is_partial("smbios")) || (other.is_none() && after.is_partial("smbios"));
        if hidden(name) && partial && !its.ids.is_empty() && !own.ids.is_empty() {
            findings.uncompared("SMBIOS serial numbers: one of the captures was not made by root");
            continue;
        }
        let judgement =
            if name.starts_with("bios_") || name == "ec_firmware_release" || name == "chassis_type" {
                (
                    Class::Cosmetic,
                    "only shown, and looked at by workarounds for particular firmware",
                )
            } else {
                (
                    Class::LicenceRisk,
                    "licences, activations, and management that knows the machine by it",
                )
            };
        findings.value(name, (one, other), judgement);
    }
    match (records(own), records(its)) {
        (Some(one), Some(other)) => {
            for kind in one.keys().chain(other.keys()).collect::<BTreeSet<_>>() {
                record(findings, *kind, (one.get(kind), other.get(kind)));
            }
        }
        (None, None) if own.table == its.table => {}
        _ => findings.uncompared("SMBIOS records: a capture lacks them, or was not made by root"),
    }
}

/// What the records of one type say, in some order, without their handles.
type Records = Vec<Vec<u8>>;

fn records(smbios: &Smbios) -> Option<BTreeMap<u8, Records>> {
    let tables = Tables::parse(&smbios.entry_point.as_ref()?.0, &smbios.table.as_ref()?.0).ok()?;
    let mut found: BTreeMap<u8, Records> = BTreeMap::new();
    for structure in tables.structures().filter(|structure| structure.kind() != END) {
        let body = structure.formatted().get(4..).unwrap_or_default();
        let strings: Vec<&[u8]> = structure.strings().collect();
        found
            .entry(structure.kind())
            .or_default()
            .push([body, &strings.join(&0)].join(&0));
    }
    found.values_mut().for_each(|records| records.sort_unstable());
    Some(found)
}

fn record(findings: &mut Findings, kind: u8, (own, its): (Option<&Records>, Option<&Records>)) {
    if own == its {
        return;
    }
    let (what, judgement) = match kind {
        0 => (
            "firmware",
            (Class::Cosmetic, "only shown, and looked at by workarounds"),
        ),
        1 => (
            "system",
            (Class::LicenceRisk, "licences and activations are bound to it"),
        ),
        2 => (
            "board",
            (Class::LicenceRisk, "licences and activations are bound to it"),
        ),
        3 => (
            "chassis",
            (Class::LicenceRisk, "management knows the machine by it"),
        ),
        11 | 12 => (
            "free text",
            (
                Class::Cosmetic,
                "its maker's or owner's words, which may be secret: a guest has them only by a policy",
            ),
        ),
        4 | 7 | 16 | 17 | 19 => (
            "processors and memory",
            (Class::Cosmetic, "rewritten for the share that a guest has"),
        ),
        9 | 41 => (
            "slots and onboard devices",
            (
                Class::Cosmetic,
                "a guest has those of what it was lent; a network interface's name is predicted for itself",
            ),
        ),
        _ => ("other", (Class::Cosmetic, "only management looks at it")),
    };
    let count = |records: Option<&Records>| records.map(|records| format!("{} records", records.len()));
    let (own, mut its) = (count(own), count(its));
    if own == its {
        its = its.map(|text| format!("{text}, otherwise"));
    }
    findings.value(&format!("type {kind}, {what}"), (own, its), judgement);
}

/// The end marker.
const END: u8 = 127;
const ROOT_ONLY: [&str; 4] = ["product_uuid", "product_serial", "board_serial", "chassis_serial"];
