//! The port-mapped way to configuration space: address at 0xcf8, data at 0xcfc (PCI local bus 3.0, section 3.2.2.3.2).
//!
//! The reset register lies among these ports: one byte at 0xcf9 is the reset register, four at 0xcf8 the address.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pellucid_partition::PioHandler;

use crate::pci::config::PciConfig;
use crate::reset::ResetRegister;

/// Eight ports from 0xcf8, with one address latch for the machine.
pub struct PciPorts {
    config: Arc<PciConfig>,
    reset: Option<Arc<ResetRegister>>,
    address: AtomicU32,
}

impl PciPorts {
    /// The number of ports it takes.
    pub const PORTS: u64 = 8;

    /// Ports on `config`, with `reset` at 0xcf9 if there is one.
    #[must_use]
    pub fn new(config: Arc<PciConfig>, reset: Option<Arc<ResetRegister>>) -> Self {
        Self {
            config,
            reset,
            address: AtomicU32::new(0),
        }
    }

    /// Bus, device and function, register that a data port stands for now.
    fn target(&self, offset: u16) -> Option<(u8, u8, u16)> {
        let address = self.address.load(Ordering::Relaxed);
        let enabled = address & ENABLE != 0;
        enabled.then_some((
            (address >> 16) as u8,
            (address >> 8) as u8,
            address as u16 & 0xfc | offset & 3,
        ))
    }
}

impl PioHandler for PciPorts {
    fn read(&self, offset: u16, data: &mut [u8]) {
        match (offset, data.len(), &self.reset) {
            (ADDRESS, 4, _) => data.copy_from_slice(&self.address.load(Ordering::Relaxed).to_le_bytes()),
            (RESET, 1, Some(reset)) => data.fill(reset.load()),
            (DATA.., ..) => {
                data.fill(0xff);
                let within = in_data_ports(offset, data.len());
                if let Some((bus, devfn, register)) = self.target(offset) {
                    self.config.read(bus, devfn, register, &mut data[..within]);
                }
            }
            _ => data.fill(0xff),
        }
    }

    fn write(&self, offset: u16, data: &[u8]) {
        match (offset, data, &self.reset) {
            (ADDRESS, &[a, b, c, d], _) => {
                self.address
                    .store(u32::from_le_bytes([a, b, c, d]) & IMPLEMENTED, Ordering::Relaxed);
            }
            (RESET, &[value], Some(reset)) => reset.store(value),
            (DATA.., ..) => {
                let within = in_data_ports(offset, data.len());
                if let Some((bus, devfn, register)) = self.target(offset) {
                    self.config.write(bus, devfn, register, &data[..within]);
                }
            }
            _ => {}
        }
    }
}

impl std::fmt::Debug for PciPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PciPorts")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// How many bytes of an access at `offset` fall on the data ports.
fn in_data_ports(offset: u16, length: usize) -> usize {
    length.min(usize::from((DATA + 4).saturating_sub(offset)))
}

const ADDRESS: u16 = 0;
const RESET: u16 = 1;
const DATA: u16 = 4;
const ENABLE: u32 = 1 << 31;
/// Bits 30:24 and 1:0 read 0.
const IMPLEMENTED: u32 = 0x80ff_fffc;
