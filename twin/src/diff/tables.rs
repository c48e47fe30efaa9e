//! What the firmware left in tables: SMBIOS and ACPI.

use std::collections::BTreeSet;

use super::Class;
use super::findings::Findings;
use crate::tables::AcpiTable;
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
            findings.uncompared("ACPI tables: one of the captures was not made by root");
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
    match (&own.table, &its.table) {
        (Some(one), Some(other)) => {
            if one != other {
                let shown = |bytes: &crate::tables::Bytes| Some(format!("{} bytes", bytes.0.len()));
                let why = "the records that matter to a system are judged by themselves";
                let (mut one, other) = (shown(one), shown(other));
                if one == other {
                    one = one.map(|text| format!("{text}, otherwise"));
                }
                findings.value("table", (one, other), (Class::Cosmetic, why));
            }
        }
        (None, None) => {}
        _ => findings.uncompared("the SMBIOS table: a capture lacks it, or was not made by root"),
    }
}

const ROOT_ONLY: [&str; 4] = ["product_uuid", "product_serial", "board_serial", "chassis_serial"];
