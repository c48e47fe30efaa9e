//! Counters of accesses on which vCPUs count at once without sharing a cache line.
//!
//! A page of counters serves a few ranges; in it each reader of a bus counts on a line of its own, and a total is the sum over the
//! lines. Readers that come when all lines are owned share the rest, and count with atomic additions.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, LazyLock};

use super::atomic::{AtomicU64, Ordering};
use super::lines::{Lines, count_as_owner};

/// Where the accesses of one range are counted.
#[derive(Clone)]
pub(crate) struct Tally {
    page: Arc<Page>,
    pair: usize,
}

/// Hands out tallies.
pub(crate) struct Tallies {
    page: Arc<Page>,
    used: usize,
}

/// The line on which one reader counts, on every page.
pub(crate) struct Line {
    index: usize,
    is_own: bool,
}

struct Page([Pairs; LINES]);

/// Two cache lines, since processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Pairs([Pair; PAIRS]);

#[derive(Default)]
struct Pair {
    reads: AtomicU64,
    writes: AtomicU64,
}

impl Tally {
    #[inline]
    pub(crate) fn count_read(&self, line: &Line) {
        line.count(&self.pair(line.index).reads);
    }

    #[inline]
    pub(crate) fn count_write(&self, line: &Line) {
        line.count(&self.pair(line.index).writes);
    }

    /// Reads and writes so far.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let lines = (0..LINES).map(|line| self.pair(line));
        lines.fold((0, 0), |(reads, writes), pair| {
            (
                reads + pair.reads.load(Ordering::Relaxed),
                writes + pair.writes.load(Ordering::Relaxed),
            )
        })
    }

    #[inline]
    fn pair(&self, line: usize) -> &Pair {
        &self.page.0[line % LINES].0[self.pair % PAIRS]
    }
}

impl Tallies {
    pub(crate) fn new() -> Self {
        Self {
            page: Arc::default(),
            used: 0,
        }
    }

    /// A tally that nobody has counted on. Its page goes with the last range on it.
    pub(crate) fn take(&mut self) -> Tally {
        if self.used == PAIRS {
            *self = Self::new();
        }
        self.used += 1;
        Tally {
            page: Arc::clone(&self.page),
            pair: self.used - 1,
        }
    }
}

impl Line {
    /// A line of one's own, else a place on one of those that are shared.
    pub(crate) fn take() -> Self {
        static NEXT_SHARED: AtomicUsize = AtomicUsize::new(0);
        let own = OWNED.take();
        let index = own.unwrap_or_else(|| OWN + NEXT_SHARED.fetch_add(1, Ordering::Relaxed) % (LINES - OWN));
        let is_own = own.is_some();
        Self { index, is_own }
    }

    #[inline]
    fn count(&self, counter: &AtomicU64) {
        if self.is_own {
            count_as_owner(counter);
        } else {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.is_own {
            OWNED.give_back(self.index);
        }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Pairs::default()))
    }
}

static OWNED: LazyLock<Lines> = LazyLock::new(|| Lines::new(OWN));
/// A vCPU has two readers, one for each bus: enough for 56 vCPUs.
const OWN: usize = 112;
const LINES: usize = 128;
const PAIRS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_cache_line_and_a_page_of_counters_is_sixteen_kib() {
        assert_eq!(size_of::<crate::bus::table::Range<dyn crate::MmioHandler>>(), 64);
        assert_eq!(size_of::<Page>(), 16 << 10);
    }

    #[test]
    fn a_line_has_one_owner_until_it_is_given_back() {
        let lines = Lines::new(3);
        assert_eq!(
            [lines.take(), lines.take(), lines.take()],
            [Some(0), Some(1), Some(2)]
        );
        assert_eq!(lines.take(), None);
        lines.give_back(1);
        lines.give_back(7);
        assert_eq!([lines.take(), lines.take()], [Some(1), None]);
    }

    #[test]
    fn readers_beyond_the_lines_share_some_that_nobody_owns() {
        let lines: Vec<Line> = (0..LINES + 50).map(|_| Line::take()).collect();
        let is_sound = |line: &Line| line.is_own == (line.index < OWN) && line.index < LINES;
        assert!(lines.iter().all(is_sound));
        let mut own: Vec<usize> = lines
            .iter()
            .filter(|line| line.is_own)
            .map(|line| line.index)
            .collect();
        own.sort_unstable();
        let count = own.len();
        own.dedup();
        assert_eq!(own.len(), count, "two own one line");
    }

    #[test]
    fn tallies_are_their_own_also_past_a_page() {
        let mut tallies = Tallies::new();
        let line = Line::take();
        let all: Vec<Tally> = (0..20).map(|_| tallies.take()).collect();
        for (times, tally) in all.iter().enumerate() {
            (0..times).for_each(|_| tally.count_read(&line));
            tally.count_write(&line);
        }
        let totals: Vec<_> = all.iter().map(Tally::totals).collect();
        assert_eq!(totals, (0..20).map(|times| (times, 1)).collect::<Vec<_>>());
    }
}
