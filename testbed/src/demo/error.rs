//! Why a demo did not come to its end, and whether the emulator is to blame.

use crate::console::ConsoleError;
use crate::disk::DiskError;
use crate::l1::fault;
use crate::physical::PhysicalError;
use crate::{Fault, L1Error, SetupError};

/// A phase of the demo that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The developer's machine could not be made ready.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The disk could not be built, copied or read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The physical server failed.
    #[error(transparent)]
    Physical(#[from] PhysicalError),
    /// The host that the logical server runs on failed.
    #[error(transparent)]
    Host(#[from] L1Error),
    /// The conversation with the system on the disk failed.
    #[error("{place}: {source}{}", words(note))]
    Console {
        /// Which server was talked to.
        place: &'static str,
        /// What went wrong.
        source: ConsoleError,
        /// What else is known, such as the VMM's own words.
        note: String,
        /// The emulator's fault that explains it.
        fault: Option<Fault>,
    },
    /// The reference VMM did not end as it should.
    #[error("vmm ended with status {status}, not 0{}", words(stderr))]
    Vmm {
        /// Its exit status.
        status: i32,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// A device did not come back to the host.
    #[error("{address} did not come back to the host: {found}")]
    NotReturned {
        /// The device.
        address: &'static str,
        /// What was found instead.
        found: String,
    },
}

impl DemoError {
    /// The emulator's own fault behind this error, if it is one that is known.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            DemoError::Physical(error) => error.fault(),
            DemoError::Host(error) => error.fault(),
            DemoError::Console { fault, .. } => *fault,
            DemoError::Vmm { stderr, .. } => stderr.lines().find_map(fault::in_guest),
            _ => None,
        }
    }
}

/// More lines for a message, or nothing.
fn words(text: &str) -> String {
    if text.trim().is_empty() {
        String::new()
    } else {
        format!("\n{}", text.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmm_that_fails_is_quoted_and_no_fault_of_the_emulator_unless_its_guest_died() {
        let error = DemoError::Vmm {
            status: 1,
            stderr: "vmm: 0000:01:00.0 is in use\n".into(),
        };
        assert!(
            error.to_string().ends_with("not 0\nvmm: 0000:01:00.0 is in use"),
            "{error}"
        );
        assert_eq!(error.fault(), None);
        let died = DemoError::Vmm {
            status: 4,
            stderr: "vmm: the guest crashed: vCPU 0 at 0xfff0: triple fault: the guest's processor shut down"
                .into(),
        };
        assert_eq!(died.fault(), Some(Fault::GuestDeath));
    }

    #[test]
    fn only_a_recognized_fault_of_the_emulator_is_one() {
        let ended = |fault| DemoError::Console {
            place: "logical server",
            source: ConsoleError::Ended {
                awaited: "login".into(),
                tail: String::new(),
            },
            note: String::new(),
            fault,
        };
        assert_eq!(ended(None).fault(), None);
        assert_eq!(ended(Some(Fault::KernelPanic)).fault(), Some(Fault::KernelPanic));
    }
}
