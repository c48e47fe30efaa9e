//! What the tables describe: a board as a plain value, checked before anything is built from it.

use std::ops::Range;

use pellucid_partition::{Bdf, Gsi, Layout};
use serde::{Deserialize, Serialize};

use super::nodes::AcpiNodes;
use super::roots::RootBus;
use crate::error::AcpiError;

/// A logical server's board, as its operating system is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcpiBoard {
    /// Local APIC ids, one per vCPU, the boot CPU first.
    pub apic_ids: Vec<u32>,
    /// PCI configuration window: 1 MiB per bus, from bus 0.
    pub ecam: Range<u64>,
    /// BAR window below 4 GiB.
    pub mmio32: Range<u64>,
    /// BAR window above 4 GiB.
    pub mmio64: Range<u64>,
    /// Root buses besides 00, in ascending order.
    pub root_buses: Vec<RootBus>,
    /// PCI Express root ports.
    pub root_ports: Vec<RootPort>,
    /// Whether some port has a hot-plug slot, which the operating system then drives itself.
    pub hot_plug: bool,
    /// The NUMA nodes; without any, all memory is equally near to all CPUs.
    pub nodes: Option<AcpiNodes>,
    /// Whether there is a sleep button besides the power button, in the same fixed hardware.
    pub sleep_button: bool,
}

/// A root port, and the slot behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootPort {
    /// Its address, on a root bus.
    pub address: Bdf,
    /// Number of the slot behind it, from which operating systems name network interfaces (`ens2`).
    pub slot: Option<u32>,
    /// The NUMA node that what is behind it is near to.
    pub node: Option<u32>,
}

/// The I/O APIC input of a device's INTx pin on a root bus (pin 0 is INTA). Behind a bridge, the pin is swizzled first as PCI says:
/// `(pin + device) % 4`.
#[must_use]
pub fn intx_gsi(device: u8, pin: u8) -> Gsi {
    Gsi(16 + (u32::from(device) + u32::from(pin)) % 8)
}

impl AcpiBoard {
    /// A board with the windows of `layout`, no root ports yet.
    #[must_use]
    pub fn new(layout: &Layout, apic_ids: Vec<u32>) -> Self {
        let (ecam, mmio32, mmio64) = (Layout::ECAM, layout.mmio32(), layout.mmio64());
        Self {
            apic_ids,
            ecam,
            mmio32,
            mmio64,
            root_buses: Vec::new(),
            root_ports: Vec::new(),
            hot_plug: false,
            nodes: None,
            sleep_button: false,
        }
    }

    /// Refuses what the tables could not say.
    pub(crate) fn check(&self) -> Result<(), AcpiError> {
        let count = self.apic_ids.len();
        if count == 0 || count > MAX_CPUS {
            return Err(AcpiError::CpuCount {
                count,
                limit: MAX_CPUS,
            });
        }
        check_window("ECAM", &self.ecam, (1 << 20, u64::MAX))?;
        if self.ecam.end - self.ecam.start > 256 << 20 {
            return Err(window_error(
                "ECAM",
                &self.ecam,
                "a domain has at most 256 buses of 1 MiB",
            ));
        }
        check_window("32-bit MMIO", &self.mmio32, (0x1000, FOUR_GIB))?;
        check_window("64-bit MMIO", &self.mmio64, (0x1000, u64::MAX))?;
        if self.mmio64.start < FOUR_GIB {
            return Err(window_error(
                "64-bit MMIO",
                &self.mmio64,
                "it must lie above 4 GiB",
            ));
        }
        self.check_roots()?;
        for (index, port) in self.root_ports.iter().enumerate() {
            let refuse = |reason| {
                Err(AcpiError::RootPort {
                    port: port.address,
                    reason,
                })
            };
            let mut roots = self.root_buses.iter().map(|root| root.bus).chain([0]);
            if port.address.domain() != 0 || roots.all(|bus| bus != port.address.bus()) {
                return refuse("it is on another bus");
            }
            if self.root_ports[..index]
                .iter()
                .any(|other| other.address == port.address)
            {
                return refuse("it is listed twice");
            }
            let nodes = self.nodes.as_ref().map_or(0, AcpiNodes::count);
            if port.node.is_some_and(|node| node as usize >= nodes) {
                return refuse("it is near to a node that is not there");
            }
        }
        if let Some(reason) = self.nodes.as_ref().and_then(|nodes| nodes.fault(count)) {
            return Err(AcpiError::Nodes { reason });
        }
        Ok(())
    }

    /// Bus numbers that the configuration window covers.
    pub(crate) fn last_bus(&self) -> u8 {
        (((self.ecam.end - self.ecam.start) >> 20) - 1) as u8
    }
}

/// A window must not be empty, start and end at a multiple of `limits.0`, and not reach behind `limits.1`.
fn check_window(name: &'static str, range: &Range<u64>, limits: (u64, u64)) -> Result<(), AcpiError> {
    if range.start >= range.end {
        return Err(window_error(name, range, "it is empty"));
    }
    if !range.start.is_multiple_of(limits.0) || !range.end.is_multiple_of(limits.0) {
        return Err(window_error(name, range, "it is not aligned"));
    }
    if range.end > limits.1 {
        return Err(window_error(name, range, "it reaches above 4 GiB"));
    }
    Ok(())
}

fn window_error(name: &'static str, range: &Range<u64>, reason: &'static str) -> AcpiError {
    AcpiError::Window {
        name,
        start: range.start,
        end: range.end,
        reason,
    }
}

const FOUR_GIB: u64 = 1 << 32;
/// What the space for the tables holds with room to spare.
const MAX_CPUS: usize = 1024;
