//! The LPC bridge 8086:2918 (Intel ICH9), as far as kernels and firmware look at it: power management base, interrupt routing.

use pellucid_partition::ConfigHandler;

use crate::pci::space::Space;

/// The function at 00:1f.0.
///
/// PMBASE is kept when written but the PM block does not follow it: firmware that knows this board writes the value it has.
/// RCBA is off and kept when written; there is nothing behind it. General-purpose I/O and generic decodes are off.
#[derive(Debug)]
pub struct Lpc {
    space: Space,
}

impl Lpc {
    /// A bridge whose ACPI registers are on at `pm_base` (a multiple of 128).
    #[must_use]
    pub fn new(pm_base: u16) -> Self {
        let pirq_off = 0x8080_8080;
        let space = Space::new(0x8086, 0x2918, 0x06_0100, 0x02)
            .with_u16(COMMAND, 0x0007)
            .writable(COMMAND, 0x0140)
            .with_u16(STATUS, 0x0200)
            .clearable(STATUS, 0xf900)
            .with_u32(PMBASE, u32::from(pm_base & 0xff80) | IO_SPACE)
            .writable(PMBASE, 0xff80)
            .with_u8(ACPI_CNTL, ACPI_ENABLED)
            .writable(ACPI_CNTL, 0x87)
            .with_u32(GPIOBASE, IO_SPACE)
            .writable(GPIOBASE, 0xff80)
            .writable(GPIO_CNTL, 0x10)
            .with_u32(PIRQ_A, pirq_off)
            .writable(PIRQ_A, 0x8f8f_8f8f)
            .with_u8(SERIRQ_CNTL, 0x10)
            .writable(SERIRQ_CNTL, 0xc3)
            .with_u32(PIRQ_E, pirq_off)
            .writable(PIRQ_E, 0x8f8f_8f8f)
            .writable(LPC_DECODE, 0x3f0f_7377)
            .writable(RCBA, 0xffff_c001);
        Self { space }
    }
}

impl ConfigHandler for Lpc {
    fn read(&self, offset: u16, data: &mut [u8]) {
        self.space.read(offset, data);
    }

    fn write(&self, offset: u16, data: &[u8]) {
        self.space.write(offset, data);
    }
}

const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
const PMBASE: u16 = 0x40;
const ACPI_CNTL: u16 = 0x44;
/// Bit 7 turns the block on; bits 2:0 being 0 put the SCI on IRQ 9.
const ACPI_ENABLED: u8 = 0x80;
const GPIOBASE: u16 = 0x48;
const GPIO_CNTL: u16 = 0x4c;
const PIRQ_A: u16 = 0x60;
const SERIRQ_CNTL: u16 = 0x64;
const PIRQ_E: u16 = 0x68;
const LPC_DECODE: u16 = 0x80;
const RCBA: u16 = 0xf0;
const IO_SPACE: u32 = 1;
