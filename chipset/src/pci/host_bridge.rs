//! The host bridge 8086:29C0 (Intel 82G33/P35, "q35"), as far as kernels and firmware look at it.

use std::ops::Range;

use pellucid_partition::ConfigHandler;

use crate::pci::space::Space;

/// The function at 00:00.0. Its PCIEXBAR says where ECAM is; the layout's place at power on.
pub struct HostBridge {
    space: Space,
    moved: Box<dyn Fn(Option<Range<u64>>) + Send + Sync>,
}

impl HostBridge {
    /// A bridge whose ECAM window of 256 MiB is enabled at `ecam` (a multiple of 256 MiB below 64 GiB; lower bits are dropped).
    #[must_use]
    pub fn new(ecam: u64) -> Self {
        let base = ecam & 0xf_f000_0000;
        let space = Space::new(0x8086, 0x29c0, 0x06_0000, 0x02)
            .with_u16(COMMAND, 0x0006)
            .writable(COMMAND, 0x0100)
            .with_u16(STATUS, 0x0080)
            .with_u32(PCIEXBAR, base as u32 | ENABLED)
            .with_u32(PCIEXBAR + 4, (base >> 32) as u32)
            .writable(PCIEXBAR, 0xfc00_0007)
            .writable(PCIEXBAR + 4, 0xf)
            // Attribute maps and SMRAM control: kept for firmware; all memory is RAM here whatever they say.
            .writable(PAM0, 0x3333_3330)
            .writable(PAM0 + 4, 0x0033_3333)
            .writable(SMRAM - 1, 0x5f00);
        Self {
            space,
            moved: Box::new(|_| ()),
        }
    }

    /// Has `moved` called with the ECAM window's new place, or none when it is off, each time the guest changes it.
    #[must_use]
    pub fn on_ecam_move(mut self, moved: impl Fn(Option<Range<u64>>) + Send + Sync + 'static) -> Self {
        self.moved = Box::new(moved);
        self
    }

    /// Where the registers say ECAM is now; none when it is off.
    #[must_use]
    pub fn ecam(&self) -> Option<Range<u64>> {
        let low = self.space.load(PCIEXBAR);
        let size = match low >> 1 & 3 {
            0 => 256 << 20,
            1 => 128 << 20,
            2 => 64 << 20,
            _ => return None,
        };
        let base = (u64::from(self.space.load(PCIEXBAR + 4)) << 32 | u64::from(low)) & !(size - 1);
        (low & ENABLED != 0).then_some(base..base + size)
    }
}

impl ConfigHandler for HostBridge {
    fn read(&self, offset: u16, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    fn write(&self, offset: u16, data: &[u8]) {
        let Some(change) = self.space.write(offset, data) else {
            return;
        };
        let is_ecam = matches!(change.register, PCIEXBAR | PCIEXBAR_HIGH);
        if is_ecam && change.before != change.after {
            (self.moved)(self.ecam());
        }
    }
}

impl std::fmt::Debug for HostBridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostBridge")
            .field("ecam", &self.ecam())
            .finish_non_exhaustive()
    }
}

const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
const PCIEXBAR: u16 = 0x60;
const PCIEXBAR_HIGH: u16 = 0x64;
const ENABLED: u32 = 1;
const PAM0: u16 = 0x90;
const SMRAM: u16 = 0x9d;
