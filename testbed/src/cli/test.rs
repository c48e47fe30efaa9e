//! `test`: the suite in its tiers.

use std::time::Duration;

use clap::Args;
use pellucid_testbed::Progress;
use pellucid_testbed::suite::Suite;

use super::Acted;

/// Runs the test suite; the last line is the sum of all tests.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only this tier; may be given more than once
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=2))]
    tier: Vec<u8>,
    /// Only test targets of tiers 1 and 2 whose name contains this
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Run tier 1 in the emulated server too where this machine's own /dev/kvm can run it
    #[arg(long)]
    emulated: bool,
    /// Ends a test binary that says nothing for longer, in the emulated server; on this machine one that takes longer
    #[arg(long, default_value_t = 420)]
    guard_seconds: u64,
}

impl Test {
    pub(crate) fn act(self, progress: Progress) -> Acted {
        let suite = Suite {
            filter: self.filter,
            tiers: self.tier,
            target: self.target,
            emulated: self.emulated,
            guard: Duration::from_secs(self.guard_seconds),
            strict: std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false"),
        };
        let table = suite.run(progress)?;
        println!("\n{table}");
        Ok(u8::from(!table.is_good()))
    }
}
