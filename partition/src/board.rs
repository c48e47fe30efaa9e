//! Where things stand on the board: ports, interrupt lines and fixed addresses.
//!
//! Loaders (ACPI), devices and interrupt wiring read the same numbers from here. They follow Intel's ICH9
//! (82801IB datasheet) and the PC's conventions, since unmodified kernels and firmware expect those.

use crate::interrupt::Gsi;

/// First serial port: 8 ports from here.
pub const COM1_PORT: u16 = 0x3f8;
/// First serial port's interrupt.
pub const COM1_GSI: Gsi = Gsi(4);
/// Real-time clock: index and data port.
pub const RTC_PORT: u16 = 0x70;
/// Real-time clock's interrupt.
pub const RTC_GSI: Gsi = Gsi(8);
/// Base of the ACPI power management block (ICH9 `PMBASE`).
pub const PM_BASE: u16 = 0x600;
/// PM1a event block: status and enable, 2 bytes each.
pub const PM1A_EVENT_PORT: u16 = PM_BASE;
/// PM1a control, 2 bytes.
pub const PM1A_CONTROL_PORT: u16 = PM_BASE + 4;
/// Power management timer, 4 bytes, 3.579545 MHz.
pub const PM_TIMER_PORT: u16 = PM_BASE + 8;
/// The ACPI interrupt, level, active high.
pub const SCI_GSI: Gsi = Gsi(9);
/// The reset register (ICH9 `RST_CNT`).
pub const RESET_PORT: u16 = 0xcf9;
/// The value that resets the machine.
pub const RESET_VALUE: u8 = 0x06;
/// PCI configuration address port; data at +4.
pub const PCI_CONFIG_PORT: u16 = 0xcf8;
/// The I/O APIC's registers.
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
/// The I/O APIC's input pins.
pub const IOAPIC_PINS: u32 = 24;
/// The local APICs' registers.
pub const LAPIC_BASE: u64 = 0xfee0_0000;
