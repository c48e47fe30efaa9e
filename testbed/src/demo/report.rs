//! What a demo found, and whether all of it holds.

use std::fmt;
use std::time::Duration;

use super::questions::Findings;
use super::table::{Row, compare, render};
use crate::disk::Fingerprint;

/// The findings of all boots.
#[derive(Debug, Default)]
pub struct Report {
    /// What the system said at each boot: physical, logical, physical again.
    pub boots: Vec<Findings>,
    /// Exits of each vCPU of the logical server, from its start until it had powered off.
    pub exits: Vec<u64>,
    /// The disk's digests: before all boots and after each.
    pub fingerprints: Vec<Fingerprint>,
    /// Of the logical server with its root read-only: how the root was mounted, and the whole disk's digest before
    /// and after.
    pub proof: Option<(String, String, String)>,
    /// How often the emulator spoiled a boot that was then run again.
    pub reruns: u32,
    /// What took how long.
    pub times: Vec<(&'static str, Duration)>,
}

impl Report {
    /// Notes how long a phase took.
    pub(crate) fn took(&mut self, phase: &'static str, time: Duration) {
        self.times.push((phase, time));
    }

    /// Whether the system found the same machine at each boot and nothing but the system wrote on the disk.
    pub fn holds(&self) -> bool {
        self.boots.len() == 3 && self.rows().iter().all(Row::holds)
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = compare(&self.boots, &self.exits);
        let outside: Vec<&str> = self
            .fingerprints
            .iter()
            .map(|print| print.outside_root.as_str())
            .collect();
        let untouched = outside.len() == 4 && outside.iter().all(|print| *print == outside[0]);
        let after = outside.iter().skip(1).map(|print| short(print));
        rows.push(Row::judged("disk outside the root", after, untouched));
        let (mode, before, after) = self.proof.clone().unwrap_or_default();
        let unwritten = mode == "ro" && !before.is_empty() && before == after;
        let cells = [
            format!("{} before", short(&before)),
            format!("{} after", short(&after)),
            format!("root {mode}"),
        ];
        rows.push(Row::judged("whole disk, read-only run", cells, unwritten));
        rows
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&render(&["physical", "logical", "physical again"], &self.rows()))?;
        writeln!(out)?;
        for (phase, time) in &self.times {
            writeln!(out, "{phase}: {:.0} s", time.as_secs_f64())?;
        }
        if self.reruns > 0 {
            writeln!(
                out,
                "boots run again because of the emulator's own faults: {}",
                self.reruns
            )?;
        }
        let verdict = if self.holds() {
            "The same disk booted on the physical server and as a logical server, and found the same machine."
        } else {
            "Not all of it holds: see the rows marked DIFFERS or FAILED."
        };
        writeln!(out, "{verdict}")
    }
}

/// Enough of a digest to tell it from others.
fn short(digest: &str) -> String {
    digest.chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let found = Findings {
            kernel: "6.1.0".into(),
            cpus: "2".into(),
            root: "/dev/nvme0n1p2".into(),
            root_uuid: "b2d4".into(),
            serial: "S1".into(),
            controller: "0000:01:00.0".into(),
            parent: "0000:00:02.0".into(),
            ..Findings::default()
        };
        let print = |root: &str| Fingerprint {
            root: root.into(),
            outside_root: "e39e".into(),
        };
        Report {
            boots: vec![found.clone(), found.clone(), found],
            exits: vec![3000, 2000],
            fingerprints: vec![print("0"), print("1"), print("2"), print("3")],
            proof: Some(("ro".into(), "abcd".into(), "abcd".into())),
            reruns: 0,
            times: vec![("physical server", Duration::from_secs(41))],
        }
    }

    #[test]
    fn a_report_without_differences_holds() {
        let report = report();
        assert!(report.holds(), "{report}");
        assert!(report.to_string().contains("physical server: 41 s"));
    }

    #[test]
    fn a_byte_outside_the_root_that_changed_is_told() {
        let mut report = report();
        report.fingerprints[2].outside_root = "ffff".into();
        assert!(!report.holds());
        assert!(report.to_string().contains("FAILED"));
    }

    #[test]
    fn a_proof_with_a_writable_root_or_a_changed_disk_proves_nothing() {
        for proof in [
            None,
            Some(("rw".into(), "a".into(), "a".into())),
            Some(("ro".into(), "a".into(), "b".into())),
        ] {
            let report = Report { proof, ..report() };
            assert!(!report.holds(), "{:?}", report.proof);
        }
    }

    #[test]
    fn a_boot_that_is_missing_is_no_success() {
        let mut report = report();
        report.boots.pop();
        assert!(!report.holds());
    }

    #[test]
    fn reruns_are_counted_in_print() {
        let report = Report {
            reruns: 2,
            ..report()
        };
        assert!(report.to_string().contains("emulator's own faults: 2"));
    }
}
