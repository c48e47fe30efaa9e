//! `bench`: the reference VMM against QEMU. And `measure`, the half of it that runs in the emulated server.

use clap::{Args, Subcommand};
use pellucid_testbed::Progress;
use pellucid_testbed::bench;

use super::Acted;
use super::run::hand_on;

/// Measures, in the emulated server: the reference VMM against QEMU, or what lending costs.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Start to init, memory, exits, reads; exit status 1 if a target is missed
    Boot {
        /// How often each VMM is measured, after one boot that is not counted
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Measure on a host as an installer leaves it: with ticks on every CPU, vCPUs where the scheduler puts them
        #[arg(long)]
        as_installed: bool,
        /// Print every sample as JSON instead of the table
        #[arg(long)]
        json: bool,
    },
    /// What lending costs: registers, interrupts, DMA mapping and configuration space, beside the host's own
    Passthrough,
}

/// Measures on this machine, which is the emulated server, and prints a line of JSON for each boot.
#[derive(Debug, Args)]
pub(crate) struct Measure {
    /// What to measure, as JSON
    orders: String,
}

impl Bench {
    pub(crate) fn act(&self, progress: Progress) -> Acted {
        let (rounds, as_installed, json) = match self.what {
            What::Boot {
                rounds,
                as_installed,
                json,
            } => (rounds, as_installed, json),
            What::Passthrough => {
                bench::lending(progress, hand_on)?;
                return Ok(0);
            }
        };
        let host = match as_installed {
            true => bench::Host::AsInstalled,
            false => bench::Host::Tickless,
        };
        let program = std::env::current_exe()?;
        let program = program.to_string_lossy();
        let report = bench::Bench::ready(progress)?.boot(rounds, host, &[&program, "measure"])?;
        if json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            println!("{report}");
        }
        Ok(u8::from(!report.misses().is_empty()))
    }
}

impl Measure {
    pub(crate) fn act(&self) -> Acted {
        bench::measure(&self.orders, &mut std::io::stdout())?;
        Ok(0)
    }
}
