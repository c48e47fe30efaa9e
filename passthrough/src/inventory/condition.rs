//! How a function is at the moment: its power state, and the errors that it has reported so far.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::attribute::text;

/// The condition of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Condition {
    /// Its power state.
    pub power: PowerState,
    /// The errors it has reported since the host started; None where nobody counts them.
    pub errors: Option<ErrorCounts>,
}

/// The power states of PCI (PCI Power Management 1.2, chapter 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum PowerState {
    /// Working.
    D0,
    /// Light sleep.
    D1,
    /// Deeper sleep.
    D2,
    /// Off but for its configuration space.
    D3Hot,
    /// Without power.
    D3Cold,
    /// The kernel does not know or say.
    #[default]
    Unknown,
}

/// Errors by advanced error reporting (PCI Express 6.0, 6.2), as the kernel counts them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ErrorCounts {
    /// Those that hardware has repaired.
    pub correctable: Counts,
    /// Those that lost something and left the link usable.
    pub nonfatal: Counts,
    /// Those after which the link cannot be trusted.
    pub fatal: Counts,
}

/// One severity's counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Counts {
    /// All kinds together.
    pub total: u64,
    /// Each kind that has occurred, by the kernel's name for it (`RxErr`, `CmpltTO`).
    pub kinds: BTreeMap<String, u64>,
}

impl Condition {
    pub(super) fn read(path: &Path) -> Condition {
        let power = match text(path, "power_state").as_deref() {
            Some("D0") => PowerState::D0,
            Some("D1") => PowerState::D1,
            Some("D2") => PowerState::D2,
            Some("D3hot") => PowerState::D3Hot,
            Some("D3cold") => PowerState::D3Cold,
            _ => PowerState::Unknown,
        };
        let errors = ErrorCounts::read(path);
        Condition { power, errors }
    }
}

impl ErrorCounts {
    /// The counters of the function whose folder in sysfs is `path`; None where nobody counts.
    pub(crate) fn read(path: &Path) -> Option<ErrorCounts> {
        let counts = |name: &str| Some(Counts::parse(&text(path, &format!("aer_dev_{name}"))?));
        counts("correctable").map(|correctable| ErrorCounts {
            correctable,
            nonfatal: counts("nonfatal").unwrap_or_default(),
            fatal: counts("fatal").unwrap_or_default(),
        })
    }

    /// Whether anything was lost: correctable errors alone lose nothing.
    #[must_use]
    pub fn uncorrected(&self) -> u64 {
        self.nonfatal.total.saturating_add(self.fatal.total)
    }
}

impl Counts {
    /// What was counted since `before`; nothing, where counting began again.
    pub(crate) fn since(&self, before: &Counts) -> Counts {
        let rise = |(name, count): (&String, &u64)| {
            let rise = count.saturating_sub(before.kinds.get(name).copied().unwrap_or(0));
            (rise > 0).then(|| (name.clone(), rise))
        };
        Counts {
            total: self.total.saturating_sub(before.total),
            kinds: self.kinds.iter().filter_map(rise).collect(),
        }
    }

    pub(crate) fn add(&mut self, more: &Counts) {
        self.total = self.total.saturating_add(more.total);
        for (name, count) in &more.kinds {
            let all = self.kinds.entry(name.clone()).or_default();
            *all = all.saturating_add(*count);
        }
    }

    /// Lines of a name and a number, the last of which is a total (Documentation/ABI/testing/sysfs-bus-pci-devices-aer).
    fn parse(text: &str) -> Counts {
        let mut counts = Counts::default();
        for line in text.lines() {
            let Some((name, number)) = line.trim().rsplit_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            if name.starts_with("TOTAL_ERR_") {
                counts.total = number;
            } else if number > 0 {
                counts.kinds.insert(name.trim().to_owned(), number);
            }
        }
        counts
    }
}
