//! Two twins compared: every difference with what it does to an operating system that moves from the one to the other. Pure.

mod cpus;
mod disks;
mod findings;
mod firmware;
mod memory;
mod nics;
mod pairs;
mod pci;
mod tables;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::naming::Scheme;
use crate::twin::Twin;
use findings::Findings;
pub(crate) use pairs::{Joined, Pairs};

pub use nics::{NameRow, Side};

/// What a difference does to an operating system, from least to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Nothing: it changes from boot to boot, or nobody looks at it.
    None,
    /// It can be seen, and changes how something is shown or how fast it is.
    Cosmetic,
    /// A licence, an activation or a registration may be bound to it.
    LicenceRisk,
    /// Something gets another name, so what is configured by the name does not apply.
    ChangesName,
    /// The system may not start, or not start whole.
    BreaksBoot,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What it does.
    pub class: Class,
    /// The part of the twin: `pci`, `nics`, `smbios` and so on.
    pub part: String,
    /// What differs.
    pub subject: String,
    /// What it was; None: it was not there.
    pub before: Option<String>,
    /// What it is now; None: it is not there.
    pub after: Option<String>,
    /// Why it matters, or does not.
    pub why: String,
}

/// All differences between two twins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// The rules that names were predicted by.
    pub scheme: Scheme,
    /// Differences, the worst first.
    pub differences: Vec<Difference>,
    /// Each network interface of either machine, with its names.
    pub names: Vec<NameRow>,
    /// What could not be compared, because a capture lacks it.
    pub uncompared: Vec<String>,
}

impl Class {
    /// All of them, the worst first.
    pub const ALL: [Class; 5] = [
        Class::BreaksBoot,
        Class::ChangesName,
        Class::LicenceRisk,
        Class::Cosmetic,
        Class::None,
    ];

    /// Its name in JSON and on command lines.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Class::None => "none",
            Class::Cosmetic => "cosmetic",
            Class::LicenceRisk => "licence-risk",
            Class::ChangesName => "changes-name",
            Class::BreaksBoot => "breaks-boot",
        }
    }
}

/// A word that is no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no class of differences; write none, cosmetic, licence-risk, changes-name or breaks-boot"
)]
pub struct ClassError {
    /// The word.
    pub text: String,
}

impl FromStr for Class {
    type Err = ClassError;

    fn from_str(text: &str) -> Result<Class, ClassError> {
        let class = Class::ALL.into_iter().find(|class| class.word() == text);
        class.ok_or_else(|| ClassError {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Class::None => "none",
            Class::Cosmetic => "cosmetic",
            Class::LicenceRisk => "licence risk",
            Class::ChangesName => "changes a name",
            Class::BreaksBoot => "breaks boot",
        })
    }
}

impl Twin {
    /// Compares this machine with the one that its operating system is to find in its place. Names are predicted by `scheme`, or
    /// by that of the system that made this capture.
    #[must_use]
    pub fn diff(&self, after: &Twin, scheme: Option<Scheme>) -> Diff {
        let scheme = scheme.unwrap_or_else(|| self.scheme());
        let mut findings = Findings::default();
        let pairs = Pairs::of(self, after);
        pci::compare(&mut findings, (self, after), &pairs);
        let names = nics::compare(&mut findings, (self, after), (&pairs, scheme));
        disks::compare(&mut findings, (self, after), &pairs);
        cpus::compare(&mut findings, &self.cpus, &after.cpus);
        memory::compare(&mut findings, (self, after));
        tables::compare(&mut findings, (self, after));
        firmware::compare(&mut findings, (self, after));
        let Findings {
            mut differences,
            uncompared,
            ..
        } = findings;
        // The order of parts stays within a class.
        differences.sort_by_key(|difference| std::cmp::Reverse(difference.class));
        Diff {
            scheme,
            differences,
            names,
            uncompared,
        }
    }
}

impl Diff {
    /// The worst class of all differences; none without any.
    #[must_use]
    pub fn worst(&self) -> Class {
        let classes = self.differences.iter().map(|difference| difference.class);
        classes.max().unwrap_or(Class::None)
    }

    /// How many differences there are of a class.
    #[must_use]
    pub fn count(&self, class: Class) -> usize {
        self.differences
            .iter()
            .filter(|difference| difference.class == class)
            .count()
    }
}
