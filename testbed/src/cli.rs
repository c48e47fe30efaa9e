//! The subcommands and their options. Exit status: that of what was run; 1 if the
//! testbed failed; 2 for a usage error.

mod bench;
mod demo;
mod doctor;
mod options;
mod run;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pellucid_testbed::Progress;

/// A software-emulated physical server in which KVM, VFIO and real drivers run.
#[derive(Debug, Parser)]
#[command(name = "cargo testbed", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Says what is missing on this machine, and installs it as root or with --install.
    Doctor(doctor::Doctor),
    /// Runs a command of this machine in the emulated server.
    Run(run::Run),
    /// Opens a shell in the emulated server.
    Shell(run::Shell),
    /// Runs the test suite in its tiers.
    Test(test::Test),
    /// Boots one disk on the physical server and as a logical server, and compares.
    Demo(demo::Demo),
    /// Measures the reference VMM against QEMU in the emulated server.
    Bench(bench::Bench),
    #[command(hide = true)]
    Measure(bench::Measure),
    /// Removes everything that was cached.
    Clean,
}

/// Parses the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let progress = Progress::detect();
    let result = match Arguments::parse().action {
        Action::Doctor(doctor) => doctor.act(progress),
        Action::Run(run) => run.act(progress),
        Action::Shell(shell) => shell.act(progress),
        Action::Test(test) => test.act(progress),
        Action::Demo(demo) => demo.act(progress),
        Action::Bench(bench) => bench.act(progress),
        Action::Measure(measure) => measure.act(),
        Action::Clean => doctor::clean(progress),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            progress.say(format!("error: {error}"));
            ExitCode::from(1)
        }
    }
}

/// What a subcommand comes to: an exit status, or the reason why the testbed failed.
pub(crate) type Acted = Result<u8, Box<dyn std::error::Error>>;
