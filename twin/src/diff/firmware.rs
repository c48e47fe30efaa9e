//! How the machine is started.

use std::collections::BTreeSet;

use super::Class;
use super::findings::Findings;
use crate::efi::{BootEntry, Firmware};
use crate::twin::Twin;

pub(super) fn compare(findings: &mut Findings, (before, after): (&Twin, &Twin)) {
    findings.part("firmware");
    let (own, its) = (&before.firmware, &after.firmware);
    let mode = |firmware: &Firmware| Some(if firmware.efi { "UEFI" } else { "BIOS or direct" });
    let judgement = if after.origin.guest && !its.efi {
        (
            Class::Cosmetic,
            "the kernel was booted directly: boot entries cannot be changed from within, secure boot is not there",
        )
    } else {
        (
            Class::BreaksBoot,
            "a boot loader for the one is not started by the other",
        )
    };
    findings.value("boot mode", (mode(own), mode(its)), judgement);
    if !(own.efi && its.efi) {
        return;
    }
    if own.variables.is_empty() != its.variables.is_empty() {
        findings.uncompared("EFI variables: a capture lacks them");
        return;
    }
    let judgement = if own.secure_boot == Some(false) && its.secure_boot == Some(true) {
        (
            Class::BreaksBoot,
            "a loader or kernel without a signature is refused",
        )
    } else {
        (Class::Cosmetic, "kernel lockdown and signed modules depend on it")
    };
    findings.value("secure boot", (own.secure_boot, its.secure_boot), judgement);
    entries(findings, (own, its));
    variables(findings, (own, its));
}

fn entries(findings: &mut Findings, (own, its): (&Firmware, &Firmware)) {
    let numbers: BTreeSet<&u16> = own.entries.keys().chain(its.entries.keys()).collect();
    let shown = |entry: &BootEntry| {
        let off = if entry.active { "" } else { " (off)" };
        format!("{}{off} {}", entry.title, entry.path)
    };
    for number in numbers {
        let judgement = if own.current == Some(*number) {
            (
                Class::BreaksBoot,
                "the system was started by this entry; without it only a disk with \\EFI\\BOOT\\BOOTX64.EFI starts",
            )
        } else {
            (Class::Cosmetic, "one way less or more to start")
        };
        let entry = |firmware: &Firmware| firmware.entries.get(number).map(shown);
        findings.value(&format!("Boot{number:04X}"), (entry(own), entry(its)), judgement);
    }
    let order = |firmware: &Firmware| {
        let numbers = firmware.order.iter().map(|number| format!("{number:04X}"));
        (!firmware.order.is_empty()).then(|| numbers.collect::<Vec<_>>().join(" "))
    };
    findings.value(
        "boot order",
        (order(own), order(its)),
        (Class::Cosmetic, "another entry may be started first"),
    );
}

fn variables(findings: &mut Findings, (own, its): (&Firmware, &Firmware)) {
    let names = |firmware: &Firmware| -> BTreeSet<String> { firmware.variables.keys().cloned().collect() };
    let why = "firmware and loaders keep their settings in them";
    findings.sets(
        ("variables gone", "variables new"),
        (&names(own), &names(its)),
        |_, _| (Class::Cosmetic, why),
    );
    for (name, variable) in &own.variables {
        let now = its.variables.get(name).filter(|now| *now != variable);
        if let Some(now) = now.filter(|_| !name.starts_with("Boot")) {
            let shown = |variable: &crate::efi::Variable| {
                Some(format!("{} bytes {}", variable.size, variable.digest))
            };
            findings.value(
                name,
                (shown(variable), shown(now)),
                (Class::None, "its content is the firmware's or a loader's own"),
            );
        }
    }
}
