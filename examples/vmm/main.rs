//! The reference VMM: everything that Pellucid's crates do, behind one command line.
//!
//! Guest serial output goes to standard output, everything else to standard error. Exit status: 0 the guest powered off,
//! 1 the host refused or failed, 2 usage, 3 the guest asked for a reset and --no-reboot was given, 4 the guest crashed;
//! `twin diff` says by 10 and above how much differs.
#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic when the reader has gone: `say!` and `tell!` do not"
)]

#[macro_use]
mod output;

mod arguments;
mod boot_plan;
mod clock;
mod console;
mod control;
mod devices;
mod disturbances;
mod firmware_arguments;
mod inventory;
mod log;
mod plugging;
mod progress;
mod report;
mod run;
mod selftest;
mod signals;
mod state;
mod twin;
mod twin_arguments;
mod wake;

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;

use arguments::{Cli, Command};
use clap::Parser;
use control::{Act, Asked};
use pellucid::partition::Bdf;
use pellucid::twin::Class;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::to_stderr();
    let outcome = match cli.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => report::check(&arguments),
        Command::BootPlan(arguments) => boot_plan::print(&arguments),
        Command::Devices(format) => devices::print(format),
        Command::Inventory(format) => inventory::print(format),
        Command::List(format) => state::list(format),
        Command::Stop { name, force } => state::stop(&name, force),
        Command::Unplug {
            name,
            device,
            force,
            within,
        } => plugging::request(
            &name,
            asked(
                if force { Act::UnplugByForce } else { Act::Unplug },
                device,
                within,
            ),
        ),
        Command::Plug { name, device, within } => plugging::request(&name, asked(Act::Plug, device, within)),
        Command::Heal { dry_run, lift } => state::heal(dry_run, &lift),
        Command::Selftest(format) => selftest::run(format),
        Command::Twin(command) => twin::run(&command),
    };
    match (outcome, output::failure()) {
        (Ok(status), None) => status.into(),
        (Ok(_), Some(error)) => failed(&error),
        (Err(error), _) => failed(&error),
    }
}

fn failed(error: &dyn Display) -> ExitCode {
    tell!("vmm: {error}");
    Status::HostFailed.into()
}

fn asked(act: Act, device: Bdf, seconds: u16) -> Asked {
    Asked { act, device, seconds }
}

/// What the process tells its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Done,
    HostFailed,
    ResetAsked,
    GuestCrashed,
    Differs(Class),
}

impl Status {
    fn code(self) -> u8 {
        match self {
            Status::Done => 0,
            Status::HostFailed => 1,
            Status::ResetAsked => 3,
            Status::GuestCrashed => 4,
            Status::Differs(class) => twin::status(class),
        }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.code())
    }
}

type Outcome = Result<Status, Box<dyn Error>>;
