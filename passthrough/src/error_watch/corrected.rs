//! Corrected errors of one function, and when they have become too many to be silent about.

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pellucid_partition::Bdf;

use super::Watched;
use crate::aer::Registers;
use crate::inventory::{Counts, ErrorCounts};
use crate::transport::Transport;

/// How many corrected errors are too many. Once told, they are counted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold {
    /// This many.
    pub count: NonZeroU64,
    /// Within this time; however long it takes, if `None`.
    pub within: Option<Duration>,
}

/// A function whose corrected errors are counted.
pub(super) struct Counted {
    pub(super) device: Bdf,
    counter: Counter,
    threshold: Threshold,
    /// Since the watch began.
    corrected: u64,
    /// How many of these count towards the threshold.
    recent: u64,
    /// Those, by when they were seen; all as one, if they count for however long.
    seen: VecDeque<(Instant, Counts)>,
}

/// Who counts.
enum Counter {
    /// The kernel, in this folder; what it had counted at the last look.
    Kernel(PathBuf, Counts),
    /// We, by the function's own registers, since the kernel does not.
    Registers(Registers, Arc<dyn Transport>),
}

impl Counted {
    /// None if nobody wants to know, or the function does not tell. `functions` is where those of the host are, if it is one.
    pub(super) fn begin(watched: &Watched, functions: Option<&Path>) -> Option<Counted> {
        let threshold = watched.corrected?;
        let folder = functions.map(|functions| functions.join(watched.device.to_string()));
        let counter = match folder.and_then(|folder| Some((counts(&folder)?, folder))) {
            Some((counts, folder)) => Counter::Kernel(folder, counts),
            None => {
                let registers = Registers::find(watched.transport.as_ref())?;
                Counter::Registers(registers, Arc::clone(&watched.transport))
            }
        };
        let mut counted = Counted {
            device: watched.device,
            counter,
            threshold,
            corrected: 0,
            recent: 0,
            seen: VecDeque::new(),
        };
        // What was there before is not this user's.
        counted.counter.risen();
        Some(counted)
    }

    /// How many there were since the beginning, and those that count towards the threshold, if they have reached it.
    pub(super) fn passed(&mut self, now: Instant) -> Option<(u64, Counts)> {
        let risen = self.counter.risen();
        self.corrected = self.corrected.saturating_add(risen.total);
        self.recent = self.recent.saturating_add(risen.total);
        match (self.seen.back_mut(), self.threshold.within) {
            (Some((_, seen)), None) => seen.add(&risen),
            _ if risen.total > 0 => self.seen.push_back((now, risen)),
            _ => {}
        }
        if let Some(within) = self.threshold.within {
            let is_old = |(at, _): &mut (Instant, Counts)| now.duration_since(*at) >= within;
            while let Some((_, counts)) = self.seen.pop_front_if(is_old) {
                self.recent = self.recent.saturating_sub(counts.total);
            }
        }
        if self.recent < self.threshold.count.get() {
            return None;
        }
        self.recent = 0;
        let mut recent = Counts::default();
        self.seen.drain(..).for_each(|(_, counts)| recent.add(&counts));
        Some((self.corrected, recent))
    }
}

impl Counter {
    /// Those since the last look.
    fn risen(&mut self) -> Counts {
        match self {
            Counter::Kernel(folder, seen) => match counts(folder) {
                Some(now) => now.since(&mem::replace(seen, now.clone())),
                None => Counts::default(),
            },
            Counter::Registers(registers, transport) => {
                registers.take_corrected(transport.as_ref()).unwrap_or_default()
            }
        }
    }
}

fn counts(folder: &Path) -> Option<Counts> {
    Some(ErrorCounts::read(folder)?.correctable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::Script;
    use tempfile::TempDir;

    fn watched(script: &Arc<Script>, count: u64, within: Option<Duration>) -> Watched {
        Watched {
            device: "0000:03:00.0".parse().unwrap(),
            transport: Arc::clone(script) as Arc<dyn Transport>,
            corrected: Some(Threshold {
                count: NonZeroU64::new(count).unwrap(),
                within,
            }),
        }
    }

    fn count(functions: &TempDir, total: u64) {
        let folder = functions.path().join("0000:03:00.0");
        std::fs::create_dir_all(&folder).unwrap();
        let text = format!("RxErr {total}\nBadTLP 0\nTOTAL_ERR_COR {total}\n");
        std::fs::write(folder.join("aer_dev_correctable"), text).unwrap();
    }

    fn totals(passed: Option<(u64, Counts)>) -> Option<(u64, u64)> {
        passed.map(|(corrected, recent)| (corrected, recent.total))
    }

    #[test]
    fn corrected_errors_are_told_when_there_are_that_many_more() {
        let root = tempfile::tempdir().unwrap();
        count(&root, 7);
        let watched = watched(&Arc::new(Script::new()), 10, None);
        let mut counted = Counted::begin(&watched, Some(root.path())).unwrap();
        let mut after = |total| {
            count(&root, total);
            totals(counted.passed(Instant::now()))
        };
        assert_eq!(after(16), None, "nine since the beginning");
        assert_eq!(after(17), Some((10, 10)));
        assert_eq!(after(18), None, "told once");
        assert_eq!(after(40), Some((33, 23)));
        assert_eq!(after(3), None, "counters that began again");
        assert_eq!(after(13), Some((43, 10)));
    }

    #[test]
    fn corrected_errors_that_are_spread_over_a_longer_time_are_not_told() {
        let root = tempfile::tempdir().unwrap();
        count(&root, 0);
        let watched = watched(&Arc::new(Script::new()), 3, Some(Duration::from_secs(60)));
        let mut counted = Counted::begin(&watched, Some(root.path())).unwrap();
        let begun = Instant::now();
        let mut after = |seconds, total| {
            count(&root, total);
            totals(counted.passed(begun + Duration::from_secs(seconds)))
        };
        assert_eq!(after(0, 2), None);
        assert_eq!(after(60, 3), None, "the first two are a minute old");
        assert_eq!(after(119, 5), Some((5, 3)));
        assert_eq!(after(119, 7), None, "counted anew");
        assert_eq!(after(120, 8), Some((8, 3)));
    }

    #[test]
    fn a_function_that_the_kernel_does_not_count_is_asked_itself() {
        let (script, nowhere) = (Arc::new(Script::new()), tempfile::tempdir().unwrap());
        script.stick(1 << 12);
        script.set(Script::CORRECTABLE, 1 | 1 << 12);
        let watched = watched(&script, 2, None);
        let mut counted = Counted::begin(&watched, Some(nowhere.path())).unwrap();
        let mut after = |status| {
            script.set(Script::CORRECTABLE, status);
            let passed = counted.passed(Instant::now());
            let kinds = passed.map(|(_, recent)| recent.kinds.into_iter().collect::<Vec<_>>());
            (kinds.unwrap_or_default(), script.register(Script::CORRECTABLE))
        };
        let named = |kinds: &[(&str, u64)]| -> Vec<_> {
            let owned = kinds.iter().map(|(name, count)| ((*name).to_owned(), *count));
            owned.collect()
        };
        assert_eq!(after(1 << 12), (vec![], 1 << 12), "it does not clear, and is old");
        assert_eq!(after(1 << 12 | 1), (vec![], 1 << 12));
        assert_eq!(after(1), (named(&[("RxErr", 2)]), 0));
        script.set(Script::CORRECTABLE_MASK, 1 << 13);
        assert_eq!(after(1 << 13), (vec![], 0), "that one is masked");
        assert_eq!(after(1 << 6 | 1 << 5), (named(&[("BadTLP", 1), ("bit 5", 1)]), 0));
        script.vanish();
        assert_eq!(counted.passed(Instant::now()), None, "all ones are no errors");
    }

    #[test]
    fn a_function_without_a_threshold_or_registers_is_not_counted() {
        let script = Arc::new(Script::new());
        let silent = Watched {
            corrected: None,
            ..watched(&script, 1, None)
        };
        assert!(Counted::begin(&silent, None).is_none());
        script.vanish();
        assert!(Counted::begin(&watched(&script, 1, None), None).is_none());
    }
}
