//! The DSDT: the root bridges, the board's few devices, and how to power off.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, Path,
    ResourceTemplate, Scope, ZERO,
};
use pellucid_partition::board;

use super::board::AcpiBoard;
use super::bytes::{Raw, aml_bytes, table};
use super::pci::root_bridges;

/// The sleep type that powers off, in bits 12:10 of PM1 control (ICH9: S5).
pub const SOFT_OFF_TYPE: u8 = 7;

/// The DSDT of `board`.
pub(crate) fn dsdt(board: &AcpiBoard) -> Vec<u8> {
    let mut devices = root_bridges(board);
    devices.extend([serial_port(), clock(), motherboard(board)]);
    let devices = devices.iter().map(|device| device as &dyn Aml);
    let mut body = aml_bytes(&Scope::new(Path::new("_SB_"), devices.collect()));
    let soft_off = Package::new(vec![&SOFT_OFF_TYPE, &ZERO, &ZERO, &ZERO]);
    Name::new(Path::new("_S5_"), &soft_off).to_aml_bytes(&mut body);
    table(*b"DSDT", 2, &body)
}

fn serial_port() -> Raw {
    let port = board::COM1_PORT;
    let resources = Raw::of(&ResourceTemplate::new(vec![
        &IO::new(port, port, 1, 8),
        &Interrupt::new(true, true, false, false, board::COM1_GSI.0),
    ]));
    device("COM1", "PNP0501", 1, &resources)
}

fn clock() -> Raw {
    let port = board::RTC_PORT;
    let resources = Raw::of(&ResourceTemplate::new(vec![
        &IO::new(port, port, 1, 2),
        &Interrupt::new(true, true, false, false, board::RTC_GSI.0),
    ]));
    device("RTC_", "PNP0B00", 0, &resources)
}

/// What no driver may take: the configuration window, the power management block, the reset register.
fn motherboard(board: &AcpiBoard) -> Raw {
    let (start, size) = (board.ecam.start, board.ecam.end - board.ecam.start);
    let low = Memory32Fixed::new(true, start as u32, size as u32);
    let high = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        start,
        board.ecam.end - 1,
        None,
    );
    let ecam: &dyn Aml = if board.ecam.end <= 1 << 32 { &low } else { &high };
    let resources = Raw::of(&ResourceTemplate::new(vec![
        ecam,
        // The whole block as LPC decodes it. The reset register lies among PCI's configuration ports, which nobody claims here.
        &IO::new(board::PM_BASE, board::PM_BASE, 1, PM_BLOCK),
    ]));
    device("MBRD", "PNP0C02", 0, &resources)
}

fn device(name: &str, id: &str, uid: u8, resources: &dyn Aml) -> Raw {
    let id = Name::new(Path::new("_HID"), &EISAName::new(id));
    let uid = Name::new(Path::new("_UID"), &uid);
    let resources = Name::new(Path::new("_CRS"), resources);
    Raw::of(&Device::new(Path::new(name), vec![&id, &uid, &resources]))
}

/// I/O ports of the power management block (ICH9 datasheet, 13.8.3).
const PM_BLOCK: u8 = 0x80;
