//! Options that vary the machine.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use pellucid_testbed::suite::{machine_for, words};
use pellucid_testbed::{Disk, Machine};

/// The machine to emulate; the standard one if nothing is given.
#[derive(Debug, Args)]
pub(crate) struct MachineOptions {
    /// Number of CPUs [2, or what --with says]
    #[arg(long)]
    cpus: Option<u32>,
    /// Memory in MiB [4096, or what --with says]
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// NUMA nodes over which CPUs and memory are spread [1, or what --with says]
    #[arg(long)]
    numa: Option<u32>,
    /// Width of the IOMMU's addresses: 39 or 48 [39, or what --with says]
    #[arg(long, value_name = "BITS")]
    iommu_width: Option<u32>,
    /// A raw image for the first NVMe controller; what is written is discarded
    #[arg(long, value_name = "FILE")]
    boot_disk: Option<PathBuf>,
    /// As --boot-disk, but what is written is kept
    #[arg(long, value_name = "FILE", conflicts_with = "boot_disk")]
    boot_disk_kept: Option<PathBuf>,
    /// Adds what a word in a test's name adds (the README has the list); several with commas
    #[arg(long, value_name = "WORD", value_delimiter = ',', value_parser = known_word)]
    with: Vec<String>,
    /// Ends a command that takes longer
    #[arg(long, default_value_t = 1800)]
    guard_seconds: u64,
}

impl MachineOptions {
    pub(crate) fn machine(&self) -> Machine {
        let mut machine = machine_for(&self.with.join("_"));
        machine.cpus = self.cpus.unwrap_or(machine.cpus);
        machine.memory_mib = self.memory.unwrap_or(machine.memory_mib);
        machine.numa_nodes = self.numa.unwrap_or(machine.numa_nodes);
        machine.iommu_width = self.iommu_width.unwrap_or(machine.iommu_width);
        if let Some(path) = &self.boot_disk {
            machine = machine.disk("PELLUCID-BOOT", Disk::Discarded(path.clone()));
        }
        if let Some(path) = &self.boot_disk_kept {
            machine = machine.disk("PELLUCID-BOOT", Disk::Kept(path.clone()));
        }
        machine
    }

    pub(crate) fn guard(&self) -> Duration {
        Duration::from_secs(self.guard_seconds)
    }
}

fn known_word(text: &str) -> Result<String, String> {
    // An image is given by --boot-disk.
    let known: Vec<_> = words().filter(|word| *word != "disk").collect();
    if known.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("the words are {}", known.join(", ")))
    }
}
