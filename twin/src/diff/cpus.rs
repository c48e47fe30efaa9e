//! Processors: whom licences are counted by, and what programs were built for.

use super::Class;
use super::findings::Findings;
use crate::cpus::{Cpus, Leaf};

pub(super) fn compare(findings: &mut Findings, before: &Cpus, after: &Cpus) {
    findings.part("cpus");
    let bound = (
        Class::LicenceRisk,
        "licences and activations may be bound to the processor",
    );
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    findings.value("vendor", (text(&before.vendor), text(&after.vendor)), bound);
    findings.value("name", (text(&before.name), text(&after.name)), bound);
    let model = |cpus: &Cpus| {
        let [family, model, stepping] = cpus.model;
        Some(format!("family {family} model {model} stepping {stepping}"))
    };
    findings.value("model", (model(before), model(after)), bound);
    let names = ["packages", "cores", "threads"];
    for (name, (own, its)) in names.iter().zip(before.counts().into_iter().zip(after.counts())) {
        let why = "software is licensed by it, and programs are tuned to it";
        findings.value(name, (Some(own), Some(its)), (Class::LicenceRisk, why));
    }
    let own = before.microcode.as_deref();
    findings.value(
        "microcode",
        (own, after.microcode.as_deref()),
        (
            Class::Cosmetic,
            "its flaws and mitigations are reported otherwise",
        ),
    );
    findings.value(
        "physical address bits",
        (before.address_bits, after.address_bits),
        (Class::Cosmetic, "it bounds where memory and BARs can be"),
    );
    findings.sets(
        ("features gone", "features new"),
        (&before.flags, &after.flags),
        flag,
    );
    let shown = |cpus: &Cpus| {
        let caches = cpus.caches.iter();
        let told = caches.map(|cache| {
            format!(
                "L{} {:?} {} KiB x{}",
                cache.level,
                cache.kind,
                cache.size >> 10,
                cache.cpus.len()
            )
        });
        let mut told: Vec<String> = told.collect();
        told.dedup();
        (!told.is_empty()).then(|| told.join(", "))
    };
    findings.value(
        "caches",
        (shown(before), shown(after)),
        (Class::Cosmetic, "schedulers and libraries tune themselves by it"),
    );
    leaves(findings, (&before.leaves, &after.leaves));
}

fn flag(flag: &str, is_gone: bool) -> (Class, &'static str) {
    match flag {
        "hypervisor" => (
            Class::LicenceRisk,
            "software that is licensed otherwise in virtual machines, or refuses to run in them, looks at it",
        ),
        _ if is_gone && BASELINES.contains(&flag) => (
            Class::BreaksBoot,
            "distributions and programs are built for levels of x86-64 that need it",
        ),
        _ if is_gone => (Class::Cosmetic, "programs that ask for it do without"),
        _ => (Class::Cosmetic, "programs that ask for it use it"),
    }
}

fn leaves(findings: &mut Findings, (before, after): (&[Leaf], &[Leaf])) {
    if before.is_empty() || after.is_empty() {
        if before.len() != after.len() {
            findings.uncompared("CPUID: a capture lacks it, because it is not of a running machine");
        }
        return;
    }
    let key = |leaf: &Leaf| (leaf.leaf, leaf.subleaf);
    let mut keys: Vec<(u32, u32)> = before.iter().chain(after).map(key).collect();
    keys.sort_unstable();
    keys.dedup();
    for (leaf, subleaf) in keys {
        let answer = |leaves: &[Leaf]| {
            let found = leaves.iter().find(|own| key(own) == (leaf, subleaf));
            found.map(|own| own.answer.map(|register| format!("{register:08x}")).join(" "))
        };
        let why = "features, counts and caches in it are judged by themselves";
        findings.value(
            &format!("CPUID {leaf:x}.{subleaf}"),
            (answer(before), answer(after)),
            (Class::Cosmetic, why),
        );
    }
}

/// Linux's names of what x86-64-v1 to v3 need (x86-64 psABI, table 3.1).
const BASELINES: [&str; 21] = [
    "cmov", "cx8", "fpu", "fxsr", "mmx", "syscall", "sse", "sse2", "cx16", "lahf_lm", "popcnt", "pni",
    "sse4_1", "sse4_2", "ssse3", "avx", "avx2", "bmi1", "bmi2", "fma", "movbe",
];
