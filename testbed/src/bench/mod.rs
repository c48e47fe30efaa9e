//! `bench boot`: the reference VMM against QEMU in one run of the emulated server, in turn. Exits and memory are
//! exact; times are an emulator's, so only their ratio within the run is told. `bench passthrough`: see [`lending`].

mod contender;
mod counters;
mod error;
mod lending;
mod measure;
mod report;
mod sample;

use std::path::PathBuf;
use std::time::Duration;

use crate::setup::GuestFiles;
use crate::setup::initramfs::{Content, build};
use crate::{Job, L1, Machine, Progress, Testbed};
use contender::{MEMORY, pellucid, qemu};
pub use error::BenchError;
pub use lending::lending;
pub use measure::measure;
pub use report::Report;
use sample::Orders;
pub use sample::Sample;

/// How the emulated server is set up for the measurement; all VMMs alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Host {
    /// As for work that must not be disturbed: one CPU without the kernel's tick, each VMM's vCPU pinned to it.
    Tickless,
    /// As an installer leaves it: the tick interrupts the guest 250 times a second, and vCPUs run where the scheduler puts them.
    AsInstalled,
}

/// A benchmark that is ready to be run.
#[derive(Debug)]
pub struct Bench {
    testbed: Testbed,
    guest: GuestFiles,
    vmm: PathBuf,
    progress: Progress,
}

impl Bench {
    /// Builds the guest's initramfs and the reference VMM if they are not there yet.
    ///
    /// # Errors
    /// One of them cannot be had.
    pub fn ready(progress: Progress) -> Result<Self, BenchError> {
        let testbed = Testbed::ready(progress)?;
        let lock = testbed.cache.lock()?;
        let content = Content {
            name: "bench",
            scripts: &[("init", INIT)],
            modules: &["nvme"],
        };
        let initrd = build(&testbed.cache, &testbed.kernel, &content)?;
        drop(lock);
        let guest = GuestFiles {
            kernel: testbed.kernel.image.clone(),
            initrd,
        };
        let vmm = crate::product::vmm(progress)?;
        Ok(Self {
            testbed,
            guest,
            vmm,
            progress,
        })
    }

    /// Boots every VMM once uncounted and then `rounds` times, in turn, in one run of the emulated server. `program` is
    /// this testbed's own executable, which measures there when told `words`.
    ///
    /// # Errors
    /// The server fails, or a VMM does not boot the guest.
    pub fn boot(&self, rounds: u32, host: Host, program: &[&str]) -> Result<Report, BenchError> {
        let orders = self.orders(rounds, host);
        let machine = match host {
            Host::Tickless => Machine::standard().tickless(&CPU.to_string()),
            Host::AsInstalled => Machine::standard(),
        };
        let step = self.progress.step("booting the emulated server");
        let mut l1 = L1::boot(&self.testbed, &machine)?;
        drop(step);
        let step = self.progress.step("measuring boots and reads");
        let text = serde_json::to_string(&orders).unwrap_or_default();
        let boots = (rounds + 1) * u32::try_from(orders.contenders.len()).unwrap_or(u32::MAX);
        let job = Job::new(program.iter().copied().chain([text.as_str()]))
            .folder("/")
            .guard(Duration::from_secs(60) * boots);
        let outcome = l1.run(&job)?;
        drop(step);
        if outcome.status != 0 {
            return Err(BenchError::Failed {
                status: outcome.status,
                said: String::from_utf8_lossy(&outcome.stderr).trim().to_owned(),
            });
        }
        let samples = parse(&String::from_utf8_lossy(&outcome.stdout))?;
        let names = orders.contenders.into_iter().map(|contender| contender.name);
        Ok(Report::of(host, names.collect(), samples))
    }

    fn orders(&self, rounds: u32, host: Host) -> Orders {
        let emulator = &self.testbed.emulator.program;
        let cpu = (host == Host::Tickless).then_some(CPU);
        let peer = |flavour| qemu(emulator, flavour, &self.guest, DEVICE, cpu);
        Orders {
            contenders: vec![
                pellucid(&self.vmm, &self.guest, DEVICE, cpu),
                peer("q35"),
                peer("pc"),
            ],
            rounds,
            reads: READS,
            device: DEVICE.into(),
            memory: MEMORY,
        }
    }
}

/// One sample a line.
fn parse(lines: &str) -> Result<Vec<Sample>, BenchError> {
    let sample = |line: &str| {
        serde_json::from_str(line).map_err(|source| BenchError::Answer {
            answer: line.to_owned(),
            source,
        })
    };
    lines.lines().map(sample).collect()
}

const INIT: &str = include_str!("guest.sh");
/// The second NVMe controller of the standard machine.
const DEVICE: &str = "0000:02:00.0";
/// The CPU that a tickless host keeps for vCPUs.
const CPU: usize = 1;
const READS: u32 = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_init_is_valid_shell() {
        let status = std::process::Command::new("sh").args(["-n", "-c", INIT]).status();
        assert!(status.unwrap().success());
    }

    #[test]
    fn an_answer_that_is_no_sample_is_quoted() {
        assert!(parse("").unwrap().is_empty());
        let refusal = parse("oops").unwrap_err().to_string();
        assert!(refusal.contains("oops"), "{refusal}");
    }
}
