//! The part of the command line that is about being a captured machine.

use std::path::{Path, PathBuf};

use clap::Args;
use pellucid::partition::{CpuRequest, SpecError};
use pellucid::twin::{Class, Twin};
use pellucid::{Examination, Machine};
use serde_json::json;

use crate::twin;

#[derive(Args)]
pub(crate) struct TwinArguments {
    /// Be the machine of which FILE is a capture (`vmm twin capture`): its SMBIOS, its ports and slots, its number of CPUs and size of memory if they are
    /// not said, and lent devices that are its devices at their addresses there. What cannot be had is refused
    #[arg(long, value_name = "FILE")]
    twin: Option<PathBuf>,
    /// Worst difference from FILE that is let pass with a warning: none, cosmetic, licence-risk, changes-name, breaks-boot; licence-risk if not said
    #[arg(long, value_name = "CLASS", requires = "twin")]
    twin_allow: Option<Class>,
}

impl TwinArguments {
    /// The machine to be, and this host as it is now.
    pub(crate) fn machine(&self) -> Result<Option<Machine>, String> {
        let Some(path) = &self.twin else {
            return Ok(None);
        };
        let machine = Machine::new(twin::read(path)?, &Twin::capture());
        Ok(Some(match self.twin_allow {
            None => machine,
            Some(class) => machine.allowing(class),
        }))
    }

    fn path(&self) -> Option<&Path> {
        self.twin.as_deref()
    }

    /// How the machine as planned compares, for people.
    pub(crate) fn print(&self, examination: &Examination) {
        if let (Some(path), Some(diff)) = (self.path(), examination.differences()) {
            let counts = Class::ALL.map(|class| format!("{} {class}", diff.count(class)));
            say!("  twin     {}: {}", path.display(), counts.join(", "));
        }
    }

    /// The same for programs.
    pub(crate) fn as_json(&self, examination: &Examination) -> serde_json::Value {
        let diff = examination.differences();
        match self.path() {
            None => serde_json::Value::Null,
            Some(path) => {
                json!({ "file": path, "worst": diff.map(pellucid::twin::Diff::worst), "diff": diff })
            }
        }
    }
}

/// As many CPUs as the captured machine has.
pub(crate) fn cpus(machine: Option<&Machine>) -> Result<CpuRequest, Box<dyn std::error::Error>> {
    let count = machine.and_then(Machine::vcpus);
    let count = count.ok_or("the capture does not know how many CPUs the machine has; say it with --cpus")?;
    CpuRequest::count(count)
        .map_err(|error: SpecError| format!("the captured machine has {count} CPUs: {error}").into())
}

/// As much memory as the captured machine has, in whole pages of this size.
pub(crate) fn memory(machine: Option<&Machine>, page: u64) -> Result<u64, String> {
    let memory = machine.and_then(Machine::memory);
    memory
        .and_then(|memory| memory.checked_next_multiple_of(page))
        .ok_or_else(|| {
            "the capture does not know how much memory the machine has; say it with --memory".to_owned()
        })
}
