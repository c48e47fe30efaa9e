//! Asked and got: the CPU time that vCPUs used, waited for, and were denied by their cap.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::thread::Pid;

use super::held::Place;
use crate::cgroup::CgroupTree;

/// Totals since the vCPUs began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuUsage {
    /// When they were read.
    pub at: Instant,
    /// CPU time that the vCPU threads got (`usage_usec` of `cpu.stat`, or the threads' own accounts without a control group).
    pub got: Duration,
    /// Time in which they were ready to run and did not: others ran, or the cap held them.
    pub waited: Duration,
    /// Periods in which they ran under a cap.
    pub periods: u64,
    /// Periods in which the cap held them.
    pub throttled_periods: u64,
    /// Time for which the cap held them, added up over CPUs.
    pub throttled: Duration,
}

/// What came between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuInterval {
    /// How long it was.
    pub elapsed: Duration,
    /// CPU time that the vCPU threads got.
    pub got: Duration,
    /// CPU time that they asked for: what they got, and what they waited for.
    pub asked: Duration,
    /// Periods in which they ran under a cap.
    pub periods: u64,
    /// Periods in which the cap held them.
    pub throttled_periods: u64,
    /// Time for which the cap held them, added up over CPUs.
    pub throttled: Duration,
}

impl CpuUsage {
    /// What came since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> CpuInterval {
        let got = self.got.saturating_sub(earlier.got);
        CpuInterval {
            elapsed: self.at.saturating_duration_since(earlier.at),
            got,
            asked: got + self.waited.saturating_sub(earlier.waited),
            periods: self.periods.saturating_sub(earlier.periods),
            throttled_periods: self.throttled_periods.saturating_sub(earlier.throttled_periods),
            throttled: self.throttled.saturating_sub(earlier.throttled),
        }
    }
}

impl CpuInterval {
    /// What they got, in percent of one CPU.
    #[must_use]
    pub fn got_percent(&self) -> f64 {
        percent(self.got, self.elapsed)
    }

    /// What they asked for, in percent of one CPU.
    #[must_use]
    pub fn asked_percent(&self) -> f64 {
        percent(self.asked, self.elapsed)
    }
}

impl std::fmt::Display for CpuInterval {
    /// `asked 98.2%, got 40.0%`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "asked {:.1}%, got {:.1}%",
            self.asked_percent(),
            self.got_percent()
        )
    }
}

/// Totals that outlive the groups and threads they were counted in.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    /// Counted in earlier places, less what the present one had counted before.
    group: Stat,
    base: Stat,
    /// Counted by threads that have ended.
    ended: Times,
}

impl Counted {
    /// Changes from one place to another: what the old one counted is kept.
    pub(super) fn turn(
        &mut self,
        tree: &CgroupTree,
        from: Option<&Place>,
        threads: &BTreeMap<u32, Pid>,
        to: Option<&Place>,
    ) {
        let now = self.read(tree, from, threads);
        self.group = self.group.plus(now.minus(self.base));
        self.base = self.read(tree, to, threads);
    }

    /// A thread has ended.
    pub(super) fn end(&mut self, tree: &CgroupTree, thread: Pid) {
        self.ended = self.ended.plus(Times::of(tree, thread));
    }

    pub(super) fn usage(
        &self,
        tree: &CgroupTree,
        place: Option<&Place>,
        threads: &BTreeMap<u32, Pid>,
    ) -> CpuUsage {
        let stat = self.group.plus(self.read(tree, place, threads).minus(self.base));
        CpuUsage {
            at: Instant::now(),
            got: stat.usage,
            waited: self.times(tree, threads).waited,
            periods: stat.periods,
            throttled_periods: stat.throttled_periods,
            throttled: stat.throttled,
        }
    }

    /// What the place says, or the threads themselves where there is none.
    fn read(&self, tree: &CgroupTree, place: Option<&Place>, threads: &BTreeMap<u32, Pid>) -> Stat {
        match place.and_then(|place| place.group.read("cpu.stat").ok()) {
            Some(text) => Stat::parse(&text),
            None => Stat {
                usage: self.times(tree, threads).ran,
                ..Stat::default()
            },
        }
    }

    fn times(&self, tree: &CgroupTree, threads: &BTreeMap<u32, Pid>) -> Times {
        let running = threads.values().map(|thread| Times::of(tree, *thread));
        running.fold(self.ended, Times::plus)
    }
}

/// The lines of `cpu.stat` that count here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stat {
    pub(super) usage: Duration,
    periods: u64,
    throttled_periods: u64,
    throttled: Duration,
}

impl Stat {
    /// Lines that are missing count as nothing: without the controller there is only the usage.
    pub(super) fn parse(text: &str) -> Self {
        let number = |key: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        Self {
            usage: Duration::from_micros(number("usage_usec")),
            periods: number("nr_periods"),
            throttled_periods: number("nr_throttled"),
            throttled: Duration::from_micros(number("throttled_usec")),
        }
    }

    fn plus(self, more: Self) -> Self {
        Self {
            usage: self.usage + more.usage,
            periods: self.periods + more.periods,
            throttled_periods: self.throttled_periods + more.throttled_periods,
            throttled: self.throttled + more.throttled,
        }
    }

    fn minus(self, less: Self) -> Self {
        Self {
            usage: self.usage.saturating_sub(less.usage),
            periods: self.periods.saturating_sub(less.periods),
            throttled_periods: self.throttled_periods.saturating_sub(less.throttled_periods),
            throttled: self.throttled.saturating_sub(less.throttled),
        }
    }
}

/// A thread's own account (`/proc/PID/task/TID/schedstat`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Times {
    pub(super) ran: Duration,
    pub(super) waited: Duration,
}

impl Times {
    /// Nothing, if the thread or the file is not there.
    pub(super) fn of(tree: &CgroupTree, thread: Pid) -> Self {
        let path = tree.proc(&format!("self/task/{}/schedstat", thread.as_raw_nonzero()));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap_or(0));
        let mut next = || Duration::from_nanos(numbers.next().unwrap_or(0));
        Self {
            ran: next(),
            waited: next(),
        }
    }

    fn plus(self, more: Self) -> Self {
        Self {
            ran: self.ran + more.ran,
            waited: self.waited + more.waited,
        }
    }
}

fn percent(part: Duration, whole: Duration) -> f64 {
    match whole.is_zero() {
        true => 0.0,
        false => part.as_secs_f64() / whole.as_secs_f64() * 100.0,
    }
}
