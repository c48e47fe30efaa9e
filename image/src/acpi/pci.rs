//! The PCI root bridge in the DSDT: its windows, interrupt routing, what it leaves to the operating system, and its ports.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Equal, IO, If,
    Local, Method, Name, NotEqual, Or, Package, PackageBuilder, Path, ResourceTemplate, Return, Store, Uuid,
};
use acpi_tables::aml::{BufferData, ZERO};

use super::board::{AcpiBoard, RootPort, intx_gsi};
use super::bytes::Raw;

/// `\_SB.PCI0`.
pub(crate) fn root_bridge(board: &AcpiBoard) -> Raw {
    let ids = [
        Name::new(Path::new("_HID"), &EISAName::new("PNP0A08")),
        Name::new(Path::new("_CID"), &EISAName::new("PNP0A03")),
        Name::new(Path::new("_UID"), &ZERO),
        Name::new(Path::new("_BBN"), &ZERO),
        Name::new(Path::new("_SEG"), &ZERO),
        Name::new(Path::new("_CCA"), &1u8),
    ];
    let ports: Vec<Raw> = board.root_ports.iter().map(root_port).collect();
    let parts = [
        windows(board),
        routing(),
        os_control(board.hot_plug),
        keep_configuration(),
    ];
    let mut children: Vec<&dyn acpi_tables::Aml> = Vec::new();
    children.extend(ids.iter().map(|id| id as &dyn acpi_tables::Aml));
    children.extend(
        parts
            .iter()
            .chain(&ports)
            .map(|part| part as &dyn acpi_tables::Aml),
    );
    Raw::of(&Device::new(Path::new("PCI0"), children))
}

/// What the bridge decodes: bus numbers, all I/O ports but the configuration ports, two windows for BARs.
fn windows(board: &AcpiBoard) -> Raw {
    let (low, high) = (&board.mmio32, &board.mmio64);
    let resources = Raw::of(&ResourceTemplate::new(vec![
        &AddressSpace::new_bus_number(0u16, u16::from(board.last_bus())),
        &IO::new(0xcf8, 0xcf8, 1, 8),
        &AddressSpace::new_io(0u16, 0xcf7, None),
        &AddressSpace::new_io(0xd00u16, 0xffff, None),
        &AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            low.start as u32,
            (low.end - 1) as u32,
            None,
        ),
        &AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            high.start,
            high.end - 1,
            None,
        ),
    ]));
    Raw::of(&Name::new(Path::new("_CRS"), &resources))
}

/// Where the INTx pins of bus 0 end. Pins behind bridges are swizzled to these by the operating system.
fn routing() -> Raw {
    let mut table = PackageBuilder::new();
    for device in 0..32u8 {
        for pin in 0..4u8 {
            let (address, gsi) = (u32::from(device) << 16 | 0xffff, intx_gsi(device, pin).0);
            table.add_element(&Package::new(vec![&address, &pin, &ZERO, &gsi]));
        }
    }
    Raw::of(&Name::new(Path::new("_PRT"), &table))
}

/// `_OSC`: the operating system may control the PCI Express capability, and hot-plug where there are slots for it; PME, AER and the rest
/// are not there to be had.
fn os_control(hot_plug: bool) -> Raw {
    let granted = EXPRESS_CAPABILITY | if hot_plug { NATIVE_HOT_PLUG } else { 0 };
    let field = |name: &str| Path::new(name);
    let is_pci = Uuid::new("33DB4D5B-1FF7-401C-9657-7441C03DD766");
    let known_revision = Raw::of(&If::new(
        &NotEqual::new(&Arg(1), &1u8),
        vec![&Or::new(&field("CDW1"), &field("CDW1"), &UNKNOWN_REVISION)],
    ));
    let masked = Raw::of(&If::new(
        &NotEqual::new(&Local(0), &field("CDW3")),
        vec![&Or::new(&field("CDW1"), &field("CDW1"), &CAPABILITIES_MASKED)],
    ));
    let grant = Raw::of(&If::new(
        &Equal::new(&Arg(0), &is_pci),
        vec![
            &CreateDWordField::new(&field("CDW3"), &Arg(3), &8u8),
            &And::new(&Local(0), &field("CDW3"), &granted),
            &known_revision,
            &masked,
            &Store::new(&field("CDW3"), &Local(0)),
        ],
    ));
    let refuse = Raw::of(&Else::new(vec![&Or::new(
        &field("CDW1"),
        &field("CDW1"),
        &UNKNOWN_UUID,
    )]));
    let first = Raw::of(&CreateDWordField::new(&field("CDW1"), &Arg(3), &0u8));
    Raw::of(&Method::new(
        Path::new("_OSC"),
        4,
        true,
        vec![&first, &grant, &refuse, &Return::new(&Arg(3))],
    ))
}

/// `_DSM`: function 5 says that BARs and bus numbers must stay as they are.
fn keep_configuration() -> Raw {
    let is_pci = Uuid::new("E5C937D0-3553-4D7A-9117-EA4D19C3434D");
    let list = Raw::of(&Return::new(&BufferData::new(vec![1 << 0 | 1 << 5])));
    let list_functions = Raw::of(&If::new(&Equal::new(&Arg(2), &ZERO), vec![&list]));
    let keep_all = Raw::of(&If::new(&Equal::new(&Arg(2), &5u8), vec![&Return::new(&ZERO)]));
    let known = Raw::of(&If::new(
        &Equal::new(&Arg(0), &is_pci),
        vec![&list_functions, &keep_all],
    ));
    let nothing = Raw::of(&Return::new(&BufferData::new(vec![0])));
    Raw::of(&Method::new(Path::new("_DSM"), 4, true, vec![&known, &nothing]))
}

/// A root port as a device on the bus; the slot number belongs to the device behind it.
fn root_port(port: &RootPort) -> Raw {
    let (device, function) = (port.address.device(), port.address.function());
    let address = Name::new(
        Path::new("_ADR"),
        &(u32::from(device) << 16 | u32::from(function)),
    );
    let name = format!("RP{:02X}", device << 3 | function);
    let slot = port.slot.map(|number| {
        let (here, number) = (
            Name::new(Path::new("_ADR"), &ZERO),
            Name::new(Path::new("_SUN"), &number),
        );
        Raw::of(&Device::new(Path::new("SLOT"), vec![&here, &number]))
    });
    let mut children: Vec<&dyn acpi_tables::Aml> = vec![&address];
    let near = port.node.map(|node| Name::new(Path::new("_PXM"), &node));
    children.extend(near.iter().map(|near| near as &dyn acpi_tables::Aml));
    children.extend(slot.iter().map(|slot| slot as &dyn acpi_tables::Aml));
    Raw::of(&Device::new(Path::new(&name), children))
}

const UNKNOWN_UUID: u8 = 1 << 2;
const UNKNOWN_REVISION: u8 = 1 << 3;
const CAPABILITIES_MASKED: u8 = 1 << 4;
const NATIVE_HOT_PLUG: u8 = 1 << 0;
const EXPRESS_CAPABILITY: u8 = 1 << 4;
