//! The terms of a shared partition: a service ratio and a cap, each checked when it is made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::CpuError;

/// How a shared partition, or a group of them, takes part in the CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CpuShare {
    /// Its service ratio against others that are busy.
    pub weight: Weight,
    /// The most it gets even if nobody else is busy; all it asks for if `None`.
    pub cap: Option<Cap>,
}

/// A service ratio: a partition of weight 300 gets three times the CPU time of one of weight 100 while both are busy.
///
/// 1 to 10000, 100 at first (`cpu.weight` of cgroup v2). What idle partitions leave goes to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Weight(u32);

/// An upper limit, in hundredths of a percent of one CPU: 40 % holds a partition below half a CPU, 250 % at two and a half.
///
/// At least 1 %, in steps of 0.01 % (`cpu.max` of cgroup v2 over periods of 100 ms).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cap(u32);

impl Weight {
    /// A weight of 1 to 10000.
    pub fn new(weight: u32) -> Result<Self, CpuError> {
        match weight {
            1..=10_000 => Ok(Self(weight)),
            _ => Err(CpuError::Weight {
                asked: weight.to_string(),
            }),
        }
    }

    /// As a number.
    #[must_use]
    pub fn value(self) -> u32 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(100)
    }
}

impl Cap {
    /// A cap of that many hundredths of a percent of one CPU, 100 (1 %) at least.
    pub fn hundredths(hundredths: u32) -> Result<Self, CpuError> {
        match hundredths {
            100..=MOST_HUNDREDTHS => Ok(Self(hundredths)),
            _ => Err(CpuError::Cap {
                asked: written(hundredths),
            }),
        }
    }

    /// A cap of that many percent of one CPU.
    pub fn percent(percent: u32) -> Result<Self, CpuError> {
        Self::hundredths(percent.saturating_mul(100))
    }

    /// In percent of one CPU.
    #[must_use]
    pub fn as_percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// What `cpu.max` is given: a quota in each period.
    pub(crate) fn quota(cap: Option<Self>) -> String {
        match cap {
            Some(cap) => format!("{} {PERIOD_US}", u64::from(cap.0) * PERIOD_US / 10_000),
            None => format!("max {PERIOD_US}"),
        }
    }
}

impl FromStr for Weight {
    type Err = CpuError;

    fn from_str(text: &str) -> Result<Self, CpuError> {
        let asked = text.to_owned();
        text.parse()
            .map_err(|_| CpuError::Weight { asked })
            .and_then(Self::new)
    }
}

impl FromStr for Cap {
    type Err = CpuError;

    /// Percent with at most two decimals, with or without a sign: `40`, `12.5`, `250%`.
    fn from_str(text: &str) -> Result<Self, CpuError> {
        let wrong = || CpuError::Cap {
            asked: text.to_owned(),
        };
        let number = text.strip_suffix('%').unwrap_or(text);
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 2 {
            return Err(wrong());
        }
        let part = format!("{part:0<2}").parse::<u32>().map_err(|_| wrong())?;
        let whole = whole.parse::<u32>().map_err(|_| wrong())?;
        Self::hundredths(whole.saturating_mul(100).saturating_add(part)).map_err(|_| wrong())
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written(self.0))
    }
}

impl TryFrom<u32> for Weight {
    type Error = CpuError;

    fn try_from(weight: u32) -> Result<Self, CpuError> {
        Self::new(weight)
    }
}

impl From<Weight> for u32 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl TryFrom<String> for Cap {
    type Error = CpuError;

    fn try_from(text: String) -> Result<Self, CpuError> {
        text.parse()
    }
}

impl From<Cap> for String {
    fn from(cap: Cap) -> Self {
        cap.to_string()
    }
}

fn written(hundredths: u32) -> String {
    match (hundredths / 100, hundredths % 100) {
        (whole, 0) => format!("{whole}%"),
        (whole, part) => format!("{whole}.{part:02}%"),
    }
}

/// The kernel's own period. It takes no quota below 1 ms, so 1 % is the least cap.
const PERIOD_US: u64 = 100_000;
/// 8192 CPUs, the most that Linux is built for on x86.
const MOST_HUNDREDTHS: u32 = 8192 * 10_000;
