//! The memory-mapped way to configuration space: 1 MiB for each bus, 4 KiB for each function (PCI Express base 7.2.2).

use std::sync::Arc;

use pellucid_partition::MmioHandler;

use crate::pci::config::PciConfig;

/// The ECAM window of one domain: 256 MiB for buses 0 to 255.
#[derive(Debug)]
pub struct Ecam {
    config: Arc<PciConfig>,
}

impl Ecam {
    /// The window's size.
    pub const SIZE: u64 = 256 << 20;

    /// A window on `config`.
    #[must_use]
    pub fn new(config: Arc<PciConfig>) -> Self {
        Self { config }
    }
}

impl MmioHandler for Ecam {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match target(offset) {
            Some((bus, devfn, register)) => self.config.read(bus, devfn, register, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some((bus, devfn, register)) = target(offset) {
            self.config.write(bus, devfn, register, data);
        }
    }
}

/// Bus, device and function, register.
fn target(offset: u64) -> Option<(u8, u8, u16)> {
    let bus = u8::try_from(offset >> 20).ok()?;
    Some((bus, (offset >> 12) as u8, offset as u16 & 0xfff))
}
