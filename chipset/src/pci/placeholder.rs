//! A function that only holds a place: an identity and a class, no BAR, no capability.

use pellucid_partition::ConfigHandler;

use crate::pci::space::Space;
use crate::pci::windows::PortIdentity;

/// A function without a function, for a device whose function 0 is not given while others are: an operating system looks
/// at functions 1 to 7 only where function 0 answers. Hosts have such functions too (AMD's "dummy host bridge").
#[derive(Debug)]
pub struct Placeholder {
    space: Space,
}

impl Placeholder {
    /// A function of `class` (24 bits: class, subclass, interface) that shows `identity`.
    #[must_use]
    pub fn new(identity: PortIdentity, class: u32) -> Self {
        let (vendor, device) = identity.subsystem.unwrap_or((0, 0));
        let space = Space::new(
            identity.vendor,
            identity.device,
            class & 0xff_ffff,
            identity.revision,
        )
        .with_u32(SUBSYSTEM, u32::from(device) << 16 | u32::from(vendor));
        Self { space }
    }
}

impl ConfigHandler for Placeholder {
    fn read(&self, offset: u16, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    fn write(&self, _offset: u16, _data: &[u8]) {}
}

const SUBSYSTEM: u16 = 0x2c;
