//! What the samples come to: medians, ratios, and whether the targets hold.

use std::fmt;

use serde::Serialize;

use crate::bench::Host;
use crate::bench::sample::{Sample, count};

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How the host was set up.
    pub host: Host,
    /// The rows of the table.
    pub rows: Vec<Row>,
    /// Every boot, the uncounted first round included.
    pub samples: Vec<Sample>,
    names: Vec<String>,
}

/// One quantity for every VMM.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub quantity: &'static str,
    /// The median of each VMM in the order of the columns; the first is the reference VMM.
    pub medians: Vec<f64>,
    /// What is promised of the reference VMM.
    pub target: Option<Target>,
    decimals: usize,
}

/// A promise, and whether it is kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Target {
    /// In words.
    pub promise: &'static str,
    /// Whether the median keeps it.
    pub kept: bool,
}

type Quantity = (&'static str, usize, fn(&Sample) -> f64, Option<Promise>);
/// Words, the greatest value allowed, and whether that is a share of the second column's.
type Promise = (&'static str, f64, bool);

impl Report {
    pub(crate) fn of(host: Host, names: Vec<String>, samples: Vec<Sample>) -> Self {
        let rows = QUANTITIES.iter().map(|quantity| row(quantity, &names, &samples));
        Self {
            host,
            rows: rows.collect(),
            samples,
            names,
        }
    }

    /// The promises that are not kept, by the name of what was measured.
    pub fn misses(&self) -> Vec<&'static str> {
        let missed = |row: &&Row| row.target.as_ref().is_some_and(|target| !target.kept);
        self.rows.iter().filter(missed).map(|row| row.quantity).collect()
    }
}

fn row(&(quantity, decimals, value, promise): &Quantity, names: &[String], samples: &[Sample]) -> Row {
    let median_of = |name: &String| {
        let counted = samples
            .iter()
            .filter(|sample| sample.round > 0 && sample.contender == *name);
        median(counted.map(value).collect())
    };
    let medians: Vec<f64> = names.iter().map(median_of).collect();
    let target = promise.map(|(promise, limit, is_share)| {
        let own = medians.first().copied().unwrap_or(f64::NAN);
        let peer = medians.get(1).copied().unwrap_or(f64::NAN);
        // What was not measured keeps no promise.
        let kept = own <= if is_share { limit * peer } else { limit };
        Target { promise, kept }
    });
    Row {
        quantity,
        medians,
        target,
        decimals,
    }
}

/// The middle value, of two the mean; not a number if there is none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (length, middle) if length % 2 == 1 => values[middle],
        (_, middle) => (values[middle - 1] + values[middle]) / 2.0,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.samples.iter().map(|sample| sample.round).max().unwrap_or(0);
        writeln!(
            out,
            "medians of {rounds} rounds in turn, 256 MiB, 1 vCPU {}, NVMe by vfio-pci; in brackets: own share of it",
            match self.host {
                Host::Tickless => "pinned to a CPU without host ticks",
                Host::AsInstalled => "where the scheduler puts it",
            }
        )?;
        write!(out, "{:34}", "")?;
        for name in &self.names {
            write!(out, "{name:>20}")?;
        }
        writeln!(out, "  target")?;
        for row in &self.rows {
            write!(out, "{:34}", row.quantity)?;
            for (column, value) in row.medians.iter().enumerate() {
                write!(out, "{:>20}", cell(row, column, *value))?;
            }
            match &row.target {
                None => writeln!(out)?,
                Some(target) => writeln!(
                    out,
                    "  {}: {}",
                    target.promise,
                    if target.kept { "holds" } else { "MISSED" }
                )?,
            }
        }
        match self.misses().as_slice() {
            [] => write!(out, "every target holds"),
            misses => write!(out, "missed: {}", misses.join(", ")),
        }
    }
}

/// A median and, for a peer, the ratio of the reference VMM to it.
fn cell(row: &Row, column: usize, value: f64) -> String {
    let decimals = row.decimals;
    match row.medians.first() {
        Some(own) if column > 0 && value > 0.0 => format!("{value:.decimals$} ({:.2})", own / value),
        _ => format!("{value:.decimals$}"),
    }
}

const QUANTITIES: [Quantity; 15] = [
    (
        "start to init, s",
        2,
        |sample| sample.start_ms / 1000.0,
        Some(("at most 0.90 x QEMU q35", 0.9, true)),
    ),
    (
        "resident without guest RAM, MiB",
        1,
        |sample| sample.resident_kib as f64 / 1024.0,
        Some(("at most 6", 6.0, false)),
    ),
    (
        "exits until init",
        0,
        Sample::exits_until_init,
        Some(("at most 4000", 4000.0, false)),
    ),
    (
        "  port I/O",
        0,
        |sample| count(&sample.until_init, "io_exits"),
        None,
    ),
    (
        "  MMIO",
        0,
        |sample| count(&sample.until_init, "mmio_exits"),
        None,
    ),
    (
        "  halt",
        0,
        |sample| count(&sample.until_init, "halt_exits"),
        None,
    ),
    (
        "  host interrupt",
        0,
        |sample| count(&sample.until_init, "irq_exits"),
        None,
    ),
    (
        "  interrupt window",
        0,
        |sample| count(&sample.until_init, "irq_window_exits"),
        None,
    ),
    (
        "  page fault",
        0,
        |sample| count(&sample.until_init, "pf_taken"),
        None,
    ),
    (
        "2 MiB pages mapped by KVM",
        0,
        |sample| count(&sample.until_init, "pages_2m"),
        None,
    ),
    (
        "exits per 4 KiB read",
        2,
        Sample::exits_per_read,
        Some(("at most 1.35", 1.35, false)),
    ),
    (
        "  halt",
        2,
        |sample| count(&sample.during_reads, "halt_exits") / f64::from(sample.reads),
        None,
    ),
    (
        "  host interrupt",
        2,
        |sample| count(&sample.during_reads, "irq_exits") / f64::from(sample.reads),
        None,
    ),
    (
        "  port I/O",
        2,
        |sample| count(&sample.during_reads, "io_exits") / f64::from(sample.reads),
        None,
    ),
    ("all reads, s", 2, |sample| sample.reads_ms / 1000.0, None),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contender::PELLUCID;
    use std::collections::BTreeMap;

    fn sample(contender: &str, round: u32, start_ms: f64, exits: u64) -> Sample {
        let counters = |exits| BTreeMap::from([("exits".to_owned(), exits)]);
        Sample {
            contender: contender.into(),
            round,
            start_ms,
            until_init: counters(exits),
            resident_kib: 5 << 10,
            reads_ms: 1000.0,
            reads: 4000,
            during_reads: counters(5200),
        }
    }

    fn report(own: f64, exits: u64) -> Report {
        let names = vec![PELLUCID.to_owned(), "qemu q35".to_owned()];
        let mut samples = vec![sample("pellucid", 0, 99_000.0, 99_000)];
        for round in 1..=3 {
            samples.push(sample("pellucid", round, own + f64::from(round), exits));
            samples.push(sample("qemu q35", round, 1000.0 + f64::from(round), 9000));
        }
        Report::of(Host::Tickless, names, samples)
    }

    #[test]
    fn the_first_round_does_not_count_and_the_median_does() {
        let report = report(800.0, 3900);
        assert_eq!(report.rows[0].medians, [0.802, 1.002]);
        assert_eq!(report.misses(), Vec::<&str>::new());
        let text = report.to_string();
        assert!(
            text.contains("1.00 (0.80)") && text.ends_with("every target holds"),
            "{text}"
        );
    }

    #[test]
    fn a_miss_is_named() {
        assert_eq!(
            report(950.0, 4001).misses(),
            ["start to init, s", "exits until init"]
        );
        let text = report(950.0, 3000).to_string();
        assert!(
            text.contains("MISSED") && text.ends_with("missed: start to init, s"),
            "{text}"
        );
    }

    #[test]
    fn nothing_measured_keeps_no_promise() {
        let empty = Report::of(
            Host::Tickless,
            vec![PELLUCID.to_owned(), "qemu q35".to_owned()],
            Vec::new(),
        );
        assert_eq!(empty.misses().len(), 4);
    }

    #[test]
    fn medians_of_even_and_odd_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
