//! The summary of a suite: one row per binary, the sum as the very last line.

use std::fmt;
use std::time::{Duration, Instant};

use crate::Fault;
use crate::suite::libtest::Tally;

/// What one binary came to.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its tier.
    pub tier: u8,
    /// Its name.
    pub name: String,
    /// Where it ran.
    pub place: String,
    /// Its tests.
    pub tally: Tally,
    /// The emulator's faults for which it was run again.
    pub reruns: Vec<Fault>,
    /// Why it ended, if not by itself and with success.
    pub note: Option<String>,
    /// How long it took.
    pub took: Duration,
    began: Instant,
}

/// What the suite came to.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Row>,
    refusals: Vec<String>,
    refused: bool,
}

impl Row {
    /// A binary that starts now.
    pub(crate) fn new(tier: u8, name: &str, place: &str) -> Self {
        Self {
            tier,
            name: name.to_owned(),
            place: place.to_owned(),
            tally: Tally::default(),
            reruns: Vec::new(),
            note: None,
            took: Duration::ZERO,
            began: Instant::now(),
        }
    }

    /// The binary ended.
    pub(crate) fn finish(mut self, tally: Tally, note: Option<String>) -> Self {
        self.took = self.began.elapsed();
        self.tally = tally;
        self.note = note;
        self
    }
}

impl Table {
    /// Adds a row.
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Notes that something did not run, which is a failure if `strict`.
    pub(crate) fn refuse(&mut self, what: &str, why: &str, strict: bool) {
        self.refusals.push(format!("{what}: {why}"));
        self.refused |= strict;
    }

    /// The sum of all rows.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for row in &self.rows {
            total += row.tally;
        }
        total
    }

    /// Whether nothing failed and everything ran that had to.
    pub fn is_good(&self) -> bool {
        !self.refused && self.total().failed == 0
    }
}

impl fmt::Display for Table {
    /// The rows, what did not run, the number of reruns, and as the last line the sum.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .rows
            .iter()
            .map(|row| row.name.len())
            .max()
            .unwrap_or(0)
            .max(6);
        writeln!(
            out,
            "tier  {:width$}  passed  failed  ignored  reruns  seconds  where",
            "binary"
        )?;
        for row in &self.rows {
            let Tally {
                passed,
                failed,
                ignored,
            } = row.tally;
            let (name, reruns, seconds) = (&row.name, row.reruns.len(), row.took.as_secs_f64());
            write!(
                out,
                "{:>4}  {name:width$}  {passed:>6}  {failed:>6}  {ignored:>7}",
                row.tier
            )?;
            write!(out, "  {reruns:>6}  {seconds:>7.1}  {}", row.place)?;
            match &row.note {
                Some(note) => writeln!(out, " ({note})")?,
                None => writeln!(out)?,
            }
        }
        for refusal in &self.refusals {
            writeln!(out, "{refusal}")?;
        }
        let faults: Vec<Fault> = self.rows.iter().flat_map(|row| row.reruns.clone()).collect();
        writeln!(out, "reruns for faults of the emulator: {}", faults.len())?;
        for fault in &faults {
            writeln!(out, "  {fault}")?;
        }
        let total = self.total();
        write!(out, "{} passed, {} failed", total.passed, total.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, passed: u64, failed: u64) -> Row {
        Row::new(2, name, "there").finish(
            Tally {
                passed,
                failed,
                ignored: 0,
            },
            None,
        )
    }

    #[test]
    fn the_last_line_is_the_sum() {
        let mut table = Table::default();
        table.add(row("a", 3, 0));
        table.add(row("b", 4, 1));
        assert_eq!(table.to_string().lines().last(), Some("7 passed, 1 failed"));
        assert!(!table.is_good());
    }

    #[test]
    fn a_tier_that_did_not_run_is_a_failure_only_where_nothing_may_be_skipped() {
        for strict in [false, true] {
            let mut table = Table::default();
            table.add(row("a", 1, 0));
            table.refuse("tier 2 did not run", "no emulator", strict);
            assert_eq!(table.is_good(), !strict);
            assert!(table.to_string().contains("tier 2 did not run: no emulator"));
        }
    }

    #[test]
    fn reruns_are_counted_and_named() {
        let mut table = Table::default();
        let mut rerun = row("a", 1, 0);
        rerun.reruns.push(Fault::KernelPanic);
        table.add(rerun);
        let text = table.to_string();
        assert!(text.contains("reruns for faults of the emulator: 1"), "{text}");
        assert!(text.contains(&Fault::KernelPanic.to_string()), "{text}");
        assert!(table.is_good(), "a rerun that passes is no failure");
    }
}
