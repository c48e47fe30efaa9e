//! What can go wrong on the way to a running machine: one enum per step.
//! Every message names the subject, the cause and what would help.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// The developer's machine could not be made ready.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// Programs are missing and may not be installed from here.
    #[error("missing programs: {}; install them with: {remedy}", programs.join(", "))]
    Missing {
        /// The programs that were not found.
        programs: Vec<String>,
        /// The command that installs them.
        remedy: String,
    },
    /// No program of the given name could be started.
    #[error("cannot start `{program}`: {source}; is it installed and executable?")]
    Start {
        /// The program.
        program: String,
        /// Why it did not start.
        source: io::Error,
    },
    /// A program reported a failure.
    #[error("`{program}` failed with {status}: {stderr}")]
    Program {
        /// The program and the arguments that matter.
        program: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file or the output of a program has not the shape that was expected.
    #[error("{subject}: {problem}; {remedy}")]
    Content {
        /// What was read.
        subject: String,
        /// What is wrong with it.
        problem: String,
        /// What would help.
        remedy: String,
    },
    /// A cached file is no longer what was put there.
    #[error("{}: its digest changed since it was cached; run `cargo testbed clean` and try again", path.display())]
    Corrupt {
        /// The cached file.
        path: PathBuf,
    },
}

/// A machine was described that this emulator cannot be.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MachineError {
    /// The emulator lacks a device.
    #[error("this machine has an {device}, which QEMU {found} does not emulate; QEMU {needed} or later does")]
    Emulator {
        /// The device.
        device: &'static str,
        /// The version at hand.
        found: String,
        /// The version needed.
        needed: &'static str,
    },
    /// Two devices share an address.
    #[error("two devices at {address}; give one of them another slot")]
    Occupied {
        /// The PCI address.
        address: String,
    },
    /// A function that no operating system would look for.
    #[error("a device at {address}, but none at function 0 of that slot; put one there")]
    Unreachable {
        /// The PCI address.
        address: String,
    },
    /// A number lies outside of what can be emulated.
    #[error("{subject} is {value}; accepted: {accepted}")]
    Range {
        /// What the number is.
        subject: &'static str,
        /// The number.
        value: u64,
        /// What would have been accepted.
        accepted: &'static str,
    },
    /// A file or folder the machine needs is missing.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        source: io::Error,
    },
}

/// The machine runs, or should, and something went wrong.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum L1Error {
    /// The machine could not be described to the emulator.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A file or socket of the run could not be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file, socket or program.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The machine ended without being asked to.
    #[error("the machine ended by itself while {during} ({status}): {detail}; its console log is {}", log.display())]
    Ended {
        /// What was under way.
        during: String,
        /// The emulator's exit status.
        status: String,
        /// The emulator's last words, or the kernel's.
        detail: String,
        /// The console log.
        log: PathBuf,
        /// The emulator's own fault, if it is one of the known ones.
        fault: Option<crate::Fault>,
    },
    /// Nothing came back within the time allowed.
    #[error("no end after {} s while {during}: {detail}; its console log is {}", limit.as_secs(), log.display())]
    Hung {
        /// What was under way.
        during: String,
        /// How long it was waited for.
        limit: Duration,
        /// Where it hung.
        detail: String,
        /// The console log.
        log: PathBuf,
        /// Set if the machine itself, not only the command, stopped: answering, or waiting for its own processors.
        fault: Option<crate::Fault>,
    },
    /// The machine or its monitor answered something unexpected.
    #[error("{peer} answered {answer:?} to {request:?}")]
    Protocol {
        /// Who answered.
        peer: &'static str,
        /// What it was asked.
        request: String,
        /// What came back.
        answer: String,
    },
}

impl L1Error {
    /// The emulator's own fault behind this error, if it is one that is known.
    pub fn fault(&self) -> Option<crate::Fault> {
        match self {
            Self::Ended { fault, .. } | Self::Hung { fault, .. } => *fault,
            _ => None,
        }
    }

    /// The last lines of the console log, if the machine left one.
    pub fn console_tail(&self) -> String {
        let (Self::Ended { log, .. } | Self::Hung { log, .. }) = self else {
            return String::new();
        };
        let text = std::fs::read(log).unwrap_or_default();
        crate::setup::program::last_lines(&String::from_utf8_lossy(&text), 40)
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }
}

impl SetupError {
    pub(crate) fn file(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File {
            path: path.into(),
            source,
        }
    }
}
