//! The test suite in its tiers: 0 needs nothing, 1 a /dev/kvm, 2 a VFIO device. Tiers 1
//! and 2 run in the emulated server; tier 1 also on this machine if it has a /dev/kvm.

mod build;
mod emulated;
mod libtest;
mod native;
mod session;
mod table;
mod words;

use std::time::Duration;

use crate::{Progress, Testbed};
pub use build::{Binary, Built, SuiteError};
pub use libtest::{Tally, tally_of};
pub use session::Session;
pub use table::{Row, Table};
pub use words::{machine_for, words};

/// What of the suite is to run, and how.
#[derive(Debug, Clone)]
pub struct Suite {
    /// Only tests whose name contains this.
    pub filter: Option<String>,
    /// Only these tiers; all if empty.
    pub tiers: Vec<u8>,
    /// Only test targets of tiers 1 and 2 whose name contains this.
    pub target: Option<String>,
    /// How long one test binary may say nothing in the emulated server, and may take on this machine.
    pub guard: Duration,
    /// Whether tier 1 runs in the emulated server too where it can run on this machine.
    pub emulated: bool,
    /// Whether a tier that cannot run is a failure.
    pub strict: bool,
}

impl Suite {
    /// Runs the suite and returns its table; output goes to the standard streams.
    ///
    /// # Errors
    /// Cargo cannot be started or its answer not understood.
    pub fn run(&self, progress: Progress) -> Result<Table, SuiteError> {
        let mut table = Table::default();
        if self.wants(0) {
            table.add(native::workspace(self)?);
        }
        if !self.wants(1) && !self.wants(2) {
            return Ok(table);
        }
        let kept = |tier: u8, name: &str| {
            self.wants(tier) && self.target.as_ref().is_none_or(|part| name.contains(part))
        };
        let mut built = build::build(kept, progress)?;
        for what in &built.failures {
            table.refuse("did not build", what, true);
        }
        if built.binaries.is_empty() {
            progress.say("no test targets of tiers 1 and 2 to run");
            return Ok(table);
        }
        let ran_here = self.run_tier_1_here(&built, &mut table, progress);
        if ran_here && !self.emulated {
            built.binaries.retain(|binary| binary.tier != 1);
        }
        if built.binaries.is_empty() {
            return Ok(table);
        }
        match Testbed::ready(progress) {
            Ok(testbed) => emulated::run_all(self, &testbed, &built, &mut table, progress),
            Err(error) => table.refuse("tiers 1 and 2 did not run", &error.to_string(), self.strict),
        }
        Ok(table)
    }

    fn wants(&self, tier: u8) -> bool {
        self.tiers.is_empty() || self.tiers.contains(&tier)
    }

    /// Whether it could.
    fn run_tier_1_here(&self, built: &Built, table: &mut Table, progress: Progress) -> bool {
        if !self.wants(1) {
            return false;
        }
        let kvm = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm");
        if let Err(error) = kvm {
            progress.say(format!(
                "tier 1 runs in the emulated server, not on this machine itself: /dev/kvm: {error}"
            ));
            return false;
        }
        for binary in built.binaries.iter().filter(|binary| binary.tier == 1) {
            table.add(native::binary(self, binary, built));
        }
        true
    }

    /// The arguments for a test binary.
    fn words(&self) -> Vec<String> {
        self.filter
            .iter()
            .cloned()
            .chain(["--test-threads=1".to_owned()])
            .collect()
    }
}
