//! Clocks: the source that the kernel keeps time by, the TSC, and how far the RTC is off.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::cpus::Leaf;
use crate::files::Files;

/// The clocks of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Clock {
    /// The clock source in use.
    pub source: Option<String>,
    /// All that could be used.
    pub available: Vec<String>,
    /// The frequency of the TSC in kHz, where the kernel or CPUID leaf 0x15 says it.
    pub tsc_khz: Option<u64>,
    /// The driver of the real-time clock.
    pub rtc: Option<String>,
    /// Seconds that the real-time clock is ahead of the system's time; None: not known.
    pub rtc_offset: Option<i64>,
}

impl Clock {
    /// `leaves` are CPUID's answers; `now` is the system's time, where the tree is the running machine's.
    pub(crate) fn read(files: &Files<'_>, leaves: &[Leaf], now: Option<SystemTime>) -> Clock {
        let folder = "sys/devices/system/clocksource/clocksource0";
        let available = files
            .text(&format!("{folder}/available_clocksource"))
            .unwrap_or_default();
        let seconds: Option<i64> = files.number("sys/class/rtc/rtc0/since_epoch");
        let now = now.and_then(|now| now.duration_since(UNIX_EPOCH).ok());
        let now = now.and_then(|now| i64::try_from(now.as_secs()).ok());
        let told = files.number("sys/devices/system/cpu/cpu0/tsc_freq_khz");
        Clock {
            source: files.text(&format!("{folder}/current_clocksource")),
            available: available.split_whitespace().map(str::to_owned).collect(),
            tsc_khz: told.or_else(|| tsc_khz(leaves)),
            rtc: files.text("sys/class/rtc/rtc0/name"),
            rtc_offset: seconds.zip(now).map(|(rtc, now)| rtc.saturating_sub(now)),
        }
    }
}

/// The TSC's frequency as the ratio to a crystal whose frequency is said (Intel SDM volume 2, CPUID leaf 0x15).
fn tsc_khz(leaves: &[Leaf]) -> Option<u64> {
    let [denominator, numerator, crystal, _] = leaves.iter().find(|leaf| leaf.leaf == 0x15)?.answer;
    let product = u64::from(crystal).checked_mul(u64::from(numerator))?;
    let hertz = product.checked_div(u64::from(denominator))?;
    (hertz > 0).then_some(hertz / 1000)
}
