//! Options that vary the machine.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use pellucid_testbed::{Device, Disk, Machine, Place};

/// The machine to emulate; the standard one if nothing is given.
#[derive(Debug, Args)]
pub(crate) struct MachineOptions {
    /// Number of CPUs
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 4096, value_name = "MIB")]
    memory: u32,
    /// NUMA nodes over which CPUs and memory are spread
    #[arg(long, default_value_t = 1)]
    numa: u32,
    /// Width of the IOMMU's addresses: 39 or 48
    #[arg(long, default_value_t = 39, value_name = "BITS")]
    iommu_width: u32,
    /// A raw image for the first NVMe controller; what is written is discarded
    #[arg(long, value_name = "FILE")]
    boot_disk: Option<PathBuf>,
    /// As --boot-disk, but what is written is kept
    #[arg(long, value_name = "FILE", conflicts_with = "boot_disk")]
    boot_disk_kept: Option<PathBuf>,
    /// Adds an igb with SR-IOV behind a root port at 00:04.0
    #[arg(long)]
    igb: bool,
    /// Ends a command that takes longer
    #[arg(long, default_value_t = 1800)]
    guard_seconds: u64,
}

impl MachineOptions {
    pub(crate) fn machine(&self) -> Machine {
        let mut machine = Machine::standard()
            .cpus(self.cpus)
            .memory_mib(self.memory)
            .numa_nodes(self.numa)
            .iommu_width(self.iommu_width);
        if let Some(path) = &self.boot_disk {
            machine = machine.disk("PELLUCID-BOOT", Disk::Discarded(path.clone()));
        }
        if let Some(path) = &self.boot_disk_kept {
            machine = machine.disk("PELLUCID-BOOT", Disk::Kept(path.clone()));
        }
        if self.igb {
            machine = machine.device(Device::Igb {
                place: Place::port(4),
            });
        }
        machine
    }

    pub(crate) fn guard(&self) -> Duration {
        Duration::from_secs(self.guard_seconds)
    }
}
