//! Counts tests from the stream of a test harness: its `test result` lines, and looks into what failed ones said.

use crate::l1::fault;

/// How many tests did what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and binaries that ended without a result.
    pub failed: u64,
    /// Tests that are marked to be ignored.
    pub ignored: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

/// Reads the tally of a stream as it comes.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    line: Vec<u8>,
    tally: Tally,
    results: u64,
    /// For each failure that is described: whether a guest died in it.
    deaths: Vec<bool>,
}

impl Counter {
    /// Takes the next bytes.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.line.len() < LONGEST {
                self.line.push(byte);
            }
        }
    }

    /// The tally of a process that ended with `success`: one that fails without saying
    /// which test, or succeeds without a result, counts as one failure.
    pub(crate) fn finish(mut self, success: bool) -> Tally {
        self.end_line();
        if self.tally.failed == 0 && (!success || self.results == 0) {
            self.tally.failed = 1;
        }
        self.tally
    }

    /// Whether a guest died in each test that failed, in a way of which the emulator is known.
    pub(crate) fn is_of_dead_guests(&self) -> bool {
        let told = self.tally.failed == self.deaths.len() as u64;
        told && !self.deaths.is_empty() && self.deaths.iter().all(|death| *death)
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            self.deaths.push(false);
        } else if let Some(death) = self.deaths.last_mut() {
            *death |= fault::in_guest(&line).is_some();
        }
        if let Some(tally) = tally_of(&line) {
            self.tally += tally;
            self.results += 1;
        }
        self.line.clear();
    }
}

/// The tally in a `test result` line, if that is one. What a test printed without an
/// end of line may stand before it.
pub fn tally_of(line: &str) -> Option<Tally> {
    let (_, rest) = line.split_once("test result: ")?;
    let (verdict, counts) = rest.split_once(". ")?;
    if !matches!(verdict, "ok" | "FAILED") {
        return None;
    }
    let count = |kind: &str| {
        let part = counts.split("; ").find_map(|part| part.strip_suffix(kind))?;
        part.trim().parse::<u64>().ok()
    };
    Some(Tally {
        passed: count(" passed")?,
        failed: count(" failed")?,
        ignored: count(" ignored")?,
    })
}

const LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str =
        "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out; finished in 0.02s";

    #[test]
    fn results_are_counted() {
        assert_eq!(
            tally_of(OK),
            Some(Tally {
                passed: 12,
                failed: 0,
                ignored: 3
            })
        );
        let failed = "noise test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            tally_of(failed),
            Some(Tally {
                passed: 1,
                failed: 2,
                ignored: 0
            })
        );
    }

    #[test]
    fn failures_are_of_dead_guests_if_all_of_them_are() {
        let of = |text: &str| {
            let mut counter = Counter::default();
            counter.take(text.as_bytes());
            counter.is_of_dead_guests()
        };
        let death = "---- a stdout ----\nvmm: the guest crashed: vCPU 0 at 0x1000000: KVM internal error 1\n";
        let other = "---- b stdout ----\nassertion failed\n";
        let end = |failed| format!("test result: FAILED. 1 passed; {failed} failed; 0 ignored; 0 measured\n");
        assert!(of(&format!("{death}{}", end(1))));
        assert!(!of(&format!("{other}{}", end(1))));
        assert!(!of(&format!("{death}{other}{}", end(2))), "one is not");
        assert!(!of(&format!("{death}{}", end(2))), "one is not described");
        assert!(!of(
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\n"
        ));
    }

    #[test]
    fn other_lines_are_not() {
        for line in [
            "",
            "test result: ",
            "test result: fine. 1 passed",
            "test result: ok. x passed; 1 failed; 0 ignored",
        ] {
            assert_eq!(tally_of(line), None, "{line}");
        }
    }

    #[test]
    fn a_stream_in_pieces_is_counted_whole() {
        let mut counter = Counter::default();
        let text = format!("running 12 tests\r\n{OK}\n\n{OK}");
        for piece in text.as_bytes().chunks(7) {
            counter.take(piece);
        }
        assert_eq!(
            counter.finish(true),
            Tally {
                passed: 24,
                failed: 0,
                ignored: 6
            }
        );
    }

    #[test]
    fn a_process_that_dies_or_says_nothing_counts_as_a_failure() {
        assert_eq!(Counter::default().finish(false).failed, 1);
        assert_eq!(Counter::default().finish(true).failed, 1);
        let mut counter = Counter::default();
        counter.take(OK.as_bytes());
        assert_eq!(
            counter.finish(false),
            Tally {
                passed: 12,
                failed: 1,
                ignored: 3
            }
        );
    }
}
