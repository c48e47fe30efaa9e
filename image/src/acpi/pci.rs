//! The PCI root bridges in the DSDT: their windows, interrupt routing, what they leave to the operating system, and their ports.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Equal, IO, If,
    Local, Method, Name, NotEqual, Or, Package, PackageBuilder, Path, ResourceTemplate, Return, Store, Uuid,
};
use acpi_tables::aml::{BufferData, ZERO};

use super::board::{AcpiBoard, RootPort, intx_gsi};
use super::bytes::Raw;
use super::roots::{CONFIG_PORTS, RootBridge};

/// `\_SB.PCI0`, and a bridge for every other root bus: `\_SB.PC80` for bus 80.
pub(crate) fn root_bridges(board: &AcpiBoard) -> Vec<Raw> {
    let bridges = board.root_bridges();
    bridges.iter().map(|bridge| root_bridge(board, bridge)).collect()
}

fn root_bridge(board: &AcpiBoard, bridge: &RootBridge) -> Raw {
    let bus = *bridge.buses.start();
    let mut names = vec![
        Name::new(Path::new("_HID"), &EISAName::new("PNP0A08")),
        Name::new(Path::new("_CID"), &EISAName::new("PNP0A03")),
        Name::new(Path::new("_UID"), &bus),
        Name::new(Path::new("_BBN"), &bus),
        Name::new(Path::new("_SEG"), &ZERO),
        Name::new(Path::new("_CCA"), &1u8),
    ];
    names.extend(bridge.node.map(|node| Name::new(Path::new("_PXM"), &node)));
    let ports = board.root_ports.iter().filter(|port| port.address.bus() == bus);
    let ports: Vec<Raw> = ports.map(root_port).collect();
    let parts = [
        windows(bridge),
        routing(),
        os_control(board.hot_plug),
        keep_configuration(),
    ];
    let mut children: Vec<&dyn acpi_tables::Aml> = Vec::new();
    children.extend(names.iter().map(|name| name as &dyn acpi_tables::Aml));
    children.extend(
        parts
            .iter()
            .chain(&ports)
            .map(|part| part as &dyn acpi_tables::Aml),
    );
    let name = match bus {
        0 => "PCI0".to_owned(),
        bus => format!("PC{bus:02X}"),
    };
    Raw::of(&Device::new(Path::new(&name), children))
}

/// What the bridge decodes: bus numbers, I/O ports, memory for BARs. The first has the configuration ports.
fn windows(bridge: &RootBridge) -> Raw {
    let (first, last) = (u16::from(*bridge.buses.start()), u16::from(*bridge.buses.end()));
    let mut windows = vec![Raw::of(&AddressSpace::new_bus_number(first, last))];
    if first == 0 {
        let ports = (
            CONFIG_PORTS.start as u16,
            (CONFIG_PORTS.end - CONFIG_PORTS.start) as u8,
        );
        windows.push(Raw::of(&IO::new(ports.0, ports.0, 1, ports.1)));
    }
    let io = bridge.io.iter();
    windows.extend(io.map(|io| Raw::of(&AddressSpace::new_io(io.start as u16, (io.end - 1) as u16, None))));
    windows.extend(
        bridge
            .memory
            .iter()
            .map(|range| memory(range.start, range.end - 1)),
    );
    let all = windows.iter().map(|window| window as &dyn acpi_tables::Aml);
    let resources = Raw::of(&ResourceTemplate::new(all.collect()));
    Raw::of(&Name::new(Path::new("_CRS"), &resources))
}

/// A memory window, in 32 bits where they do.
fn memory(first: u64, last: u64) -> Raw {
    let kind = AddressSpaceCacheable::NotCacheable;
    match (u32::try_from(first), u32::try_from(last)) {
        (Ok(first), Ok(last)) => Raw::of(&AddressSpace::new_memory(kind, true, first, last, None)),
        _ => Raw::of(&AddressSpace::new_memory(kind, true, first, last, None)),
    }
}

/// Where the INTx pins of a root bus end. Pins behind bridges are swizzled to these by the operating system.
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
