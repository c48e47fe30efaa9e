//! The two kinds of boot, each with the same conversation at the serial console.

use std::path::Path;
use std::time::Duration;

use super::Demo;
use super::error::DemoError;
use super::logical;
use super::questions::Findings;
use crate::Fault;
use crate::L1;
use crate::console::{Console, ConsoleError};
use crate::physical::PhysicalServer;

/// What one boot brought.
#[derive(Debug)]
pub(crate) struct Boot {
    /// What the system said.
    pub(crate) findings: Findings,
    /// Exits of each vCPU of a logical server.
    pub(crate) exits: Vec<u64>,
}

impl Demo {
    /// Boots `disk` by the physical server's firmware, asks, types `last` and powers off.
    pub(crate) fn physical(&self, disk: &Path, last: Option<&str>) -> Result<Boot, DemoError> {
        let (server, mut console) = PhysicalServer::switch_on(&self.testbed, disk, self.copies("physical"))?;
        let talk = |console: &mut Console| {
            self.log_in(console)?;
            let findings = Findings::survey(console)?;
            if let Some(command) = last {
                console.ask(command, Duration::from_secs(60))?;
            }
            console.power_off()?;
            Ok(findings)
        };
        let findings = talk(&mut console).map_err(|source| {
            // Nothing of this project runs there, so silence is the emulator's.
            let late = matches!(source, ConsoleError::Late { .. }).then_some(Fault::Hang { spinning: false });
            let fault = server.fault().or(late);
            DemoError::Console {
                place: "physical server",
                source,
                note: String::new(),
                fault,
            }
        })?;
        server.wait_until_off(POWER_OFF)?;
        Ok(Boot {
            findings,
            exits: Vec::new(),
        })
    }

    /// Boots the physical server as a host, and in it `disk` as a logical server that is lent `devices`, the disk's
    /// own controller first; asks and powers off. The devices are then back on the host's drivers.
    pub(crate) fn logical(&self, disk: &Path, devices: &[Lent]) -> Result<Boot, DemoError> {
        let mut host = L1::boot(&self.testbed, &PhysicalServer::machine(disk))?;
        let vmm = self.vmm.to_string_lossy();
        let lent = devices.iter().flat_map(|device| ["--device", device.address]);
        let on_one_cpu = ON_ONE_CPU.into_iter().filter(|_| self.report.reruns > 0);
        let command: Vec<&str> = on_one_cpu.chain([&*vmm]).chain(ARGUMENTS).chain(lent).collect();
        let (findings, exits) = logical::run(&mut host, &command, self.copies("logical"), |console| {
            self.log_in(console)?;
            let findings = Findings::survey(console)?;
            console.power_off()?;
            console.wait_for_end(POWER_OFF)?;
            Ok(findings)
        })?;
        for device in devices {
            logical::check_returned(&mut host, device)?;
        }
        host.power_off()?;
        Ok(Boot { findings, exits })
    }

    fn log_in(&self, console: &mut Console) -> Result<(), ConsoleError> {
        console.log_in("root", &self.recipe.choices.password, LOGIN)
    }
}

/// A device that the host lends to the logical server.
#[derive(Debug)]
pub(crate) struct Lent {
    /// Where it is, on the host and in the logical server.
    pub(crate) address: &'static str,
    /// The host's own driver for it.
    pub(crate) driver: &'static str,
}

/// The controller of the disk.
pub(crate) const NVME: Lent = Lent {
    address: "0000:01:00.0",
    driver: "nvme",
};
/// The network interface whose name the system's configuration knows.
pub(crate) const NIC: Lent = Lent {
    address: "0000:00:19.0",
    driver: "e1000e",
};

/// The command line of the demo's logical server, without its devices.
const ARGUMENTS: [&str; 10] = [
    "run",
    "--name",
    "db1",
    "--cpus",
    "2",
    "--memory",
    "1G",
    "--boot-disk",
    "/dev/nvme0n1",
    "--json",
];

/// Once the emulator has failed, both vCPUs share one CPU of the emulated host: what the guest's kernel writes over its own code is then
/// written and executed by one thread of the emulator, which keeps no stale translation of it (`stale.rs`). It takes twice the time.
const ON_ONE_CPU: [&str; 3] = ["taskset", "-c", "1"];

/// From power on to the login prompt.
const LOGIN: Duration = Duration::from_secs(300);
/// From the command to the power being off.
const POWER_OFF: Duration = Duration::from_secs(120);
