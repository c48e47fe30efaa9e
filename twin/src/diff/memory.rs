//! Memory, clocks, and the system that looked.

use super::Class;
use super::findings::Findings;
use crate::memory::Memory;
use crate::twin::Twin;

pub(super) fn compare(findings: &mut Findings, (before, after): (&Twin, &Twin)) {
    findings.part("memory");
    let (own, its) = (&before.memory, &after.memory);
    let mebibytes = |memory: &Memory| Some(format!("{} MiB", memory.total() >> 20));
    findings.value(
        "total",
        (mebibytes(own), mebibytes(its)),
        (Class::Cosmetic, "caches and programs that are sized by it"),
    );
    let nodes = |memory: &Memory| {
        let nodes = memory.nodes.iter();
        let told = nodes.map(|node| format!("{}: {} MiB {:?}", node.id, node.total >> 20, node.distances));
        Some(told.collect::<Vec<_>>().join("; "))
    };
    let why = "programs bind themselves to nodes by their numbers";
    findings.value("nodes", (nodes(own), nodes(its)), (Class::Cosmetic, why));
    let ram = |memory: &Memory| {
        let ranges = memory.ram();
        let told = ranges.iter().map(|[start, end]| format!("{start:x}-{end:x}"));
        (!ranges.is_empty()).then(|| told.collect::<Vec<_>>().join(" "))
    };
    match (ram(own), ram(its)) {
        (None, None) => {}
        (Some(own), Some(its)) => {
            let why = "nobody but the kernel knows where memory is";
            findings.value("map", (Some(own), Some(its)), (Class::None, why));
        }
        _ => findings.uncompared("the memory map: a capture lacks it, or was not made by root"),
    }
    clocks(findings, (before, after));
    findings.part("origin");
    let kernel = |twin: &Twin| (!twin.origin.kernel.is_empty()).then(|| twin.origin.kernel.clone());
    findings.value(
        "kernel",
        (kernel(before), kernel(after)),
        (
            Class::None,
            "not of the machine; what is seen of it may differ with the kernel",
        ),
    );
}

fn clocks(findings: &mut Findings, (before, after): (&Twin, &Twin)) {
    findings.part("clock");
    let (own, its) = (&before.clock, &after.clock);
    findings.value(
        "clock source",
        (own.source.as_deref(), its.source.as_deref()),
        (Class::Cosmetic, "reading the time costs more or less"),
    );
    let available = |sources: &[String]| (!sources.is_empty()).then(|| sources.join(" "));
    findings.value(
        "clock sources",
        (available(&own.available), available(&its.available)),
        (Class::Cosmetic, "what the kernel can fall back to"),
    );
    if let (Some(one), Some(other)) = (own.tsc_khz, its.tsc_khz)
        && one.abs_diff(other) > one / 1000
    {
        let shown = |khz: u64| Some(format!("{khz} kHz"));
        let why = "programs that count in cycles are off by the ratio";
        findings.value("TSC", (shown(one), shown(other)), (Class::Cosmetic, why));
    }
    let rtc = (own.rtc.as_deref(), its.rtc.as_deref());
    findings.value(
        "real-time clock",
        rtc,
        (
            Class::Cosmetic,
            "the system starts with another clock, or with none",
        ),
    );
    if let (Some(one), Some(other)) = (own.rtc_offset, its.rtc_offset)
        && one.abs_diff(other) > NEAR_SECONDS
    {
        let shown = |seconds: i64| Some(format!("{seconds} s ahead of the system"));
        let why = "until the time is set from the network, the system starts with that time";
        findings.value(
            "real-time clock's offset",
            (shown(one), shown(other)),
            (Class::Cosmetic, why),
        );
    }
}

/// The clock shows whole seconds, and is read between two of them.
const NEAR_SECONDS: u64 = 2;
