//! PCI configuration as an operating system enumerates it: both ways in, routing by bus numbers, hostile accesses.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be built fails its test")]

use std::sync::{Arc, Mutex};

use pellucid_chipset::{
    BoardEvent, Ecam, HostBridge, Lpc, PciConfig, PciError, PciPorts, Placed, Placeholder, PortIdentity,
    PortKind, ResetRegister, RootPort,
};
use pellucid_partition::{Bdf, ConfigHandler, MmioHandler, PioHandler};
use proptest::prelude::*;

mod specs;
use specs::port;

/// A function that shows its access: each byte read is its own offset, and writes are recorded.
#[derive(Default)]
struct Scripted {
    writes: Mutex<Vec<(u16, Vec<u8>)>>,
}

impl ConfigHandler for Scripted {
    fn read(&self, offset: u16, data: &mut [u8]) {
        assert_natural(offset, data.len());
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte = at as u8;
        }
    }

    fn write(&self, offset: u16, data: &[u8]) {
        assert_natural(offset, data.len());
        self.writes.lock().unwrap().push((offset, data.to_vec()));
    }
}

fn assert_natural(offset: u16, length: usize) {
    assert!([1, 2, 4].contains(&length) && usize::from(offset).is_multiple_of(length) && offset < 4096);
}

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

/// A host bridge, an LPC bridge, a port at 1c.0 to bus 1, one at 1c.4 to bus 2, and a function behind each.
struct Machine {
    config: Arc<PciConfig>,
    first: Arc<RootPort>,
    behind_first: Arc<Scripted>,
    _placed: Vec<Placed>,
}

fn machine() -> Machine {
    let config = Arc::new(PciConfig::new(0));
    let (first, second) = (
        Arc::new(RootPort::new(&port(1, 1)).unwrap()),
        Arc::new(RootPort::new(&port(2, 3)).unwrap()),
    );
    let behind_first = Arc::new(Scripted::default());
    let placed = vec![
        config
            .place(bdf("00:00.0"), Arc::new(HostBridge::new(0xe000_0000)))
            .unwrap(),
        config.place(bdf("00:1f.0"), Arc::new(Lpc::new(0x600))).unwrap(),
        config.place_port(bdf("00:1c.0"), Arc::clone(&first)).unwrap(),
        config.place_port(bdf("00:1c.4"), second).unwrap(),
        config
            .place(bdf("01:00.0"), Arc::clone(&behind_first) as _)
            .unwrap(),
        config.place(bdf("02:00.0"), Arc::new(Lpc::new(0))).unwrap(),
    ];
    Machine {
        config,
        first,
        behind_first,
        _placed: placed,
    }
}

fn read32(config: &PciConfig, at: &str, offset: u16) -> u32 {
    let mut data = [0; 4];
    config.read(bdf(at).bus(), bdf(at).devfn(), offset, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn both_ways_in_see_the_same_functions() {
    let machine = machine();
    let (ecam, ports) = (
        Ecam::new(Arc::clone(&machine.config)),
        PciPorts::new(Arc::clone(&machine.config), None),
    );
    for (at, ids) in [
        ("00:00.0", 0x29c0_8086),
        ("00:1f.0", 0x2918_8086),
        ("00:1c.4", 0x1234_8086_u32),
        ("02:00.0", 0x2918_8086),
    ] {
        let (bus, devfn) = (u32::from(bdf(at).bus()), u32::from(bdf(at).devfn()));
        let (mut by_memory, mut by_port) = ([0; 4], [0; 4]);
        ecam.read(u64::from(bus << 20 | devfn << 12), &mut by_memory);
        ports.write(0, &(1 << 31 | bus << 16 | devfn << 8).to_le_bytes());
        ports.read(4, &mut by_port);
        assert_eq!(
            (u32::from_le_bytes(by_memory), by_port),
            (ids, ids.to_le_bytes()),
            "{at}"
        );
    }
}

#[test]
fn absent_functions_and_unreached_buses_read_all_ones() {
    let machine = machine();
    for at in ["00:01.0", "00:00.1", "01:01.0", "03:00.0", "04:00.0", "ff:1f.7"] {
        assert_eq!(read32(&machine.config, at, 0), u32::MAX, "{at}");
    }
}

#[test]
fn each_root_bus_has_the_numbers_up_to_the_next_whatever_ports_of_others_forward() {
    let config = Arc::new(PciConfig::with_roots(0, &[0x80]));
    let (near, far) = (
        Arc::new(RootPort::new(&port(1, 1)).unwrap()),
        Arc::new(RootPort::new(&specs::behind(0x80, 0x81)).unwrap()),
    );
    let _placed = [
        config.place_port(bdf("00:01.0"), near).unwrap(),
        config.place_port(bdf("80:01.1"), far).unwrap(),
        config.place(bdf("81:00.0"), Arc::new(Lpc::new(0))).unwrap(),
        config.place(bdf("80:05.0"), Arc::new(Lpc::new(0))).unwrap(),
    ];
    let sees = |at| read32(&config, at, 0);
    assert_eq!((sees("80:01.1"), sees("80:05.0")), (0x1234_8086, 0x2918_8086));
    assert_eq!(sees("81:00.0"), 0x2918_8086);
    assert_eq!(sees("82:00.0"), u32::MAX);
    // The port of bus 00 now claims all: what is below 80 is still there, and nothing else.
    config.write(0, 1 << 3, 0x18, &[0, 1, 0xff, 0]);
    assert_eq!(sees("81:00.0"), 0x2918_8086);
    config.write(0, 1 << 3, 0x18, &[0, 0x80, 0x81, 0]);
    assert_eq!((sees("80:01.1"), sees("80:00.0")), (0x1234_8086, u32::MAX));
    // The port of bus 80 that is given a number below leads nowhere.
    config.write(0x80, 0x09, 0x18, &[0x80, 1, 1, 0]);
    assert_eq!((sees("81:00.0"), sees("01:00.0")), (u32::MAX, u32::MAX));
}

#[test]
fn a_function_zero_with_siblings_shows_the_multifunction_bit() {
    let machine = machine();
    assert_eq!(read32(&machine.config, "00:1c.0", 0x0c) >> 16 & 0xff, 0x81);
    assert_eq!(
        read32(&machine.config, "00:1c.4", 0x0c) >> 16 & 0xff,
        0x01,
        "only function 0 carries it"
    );
    assert_eq!(read32(&machine.config, "00:1f.0", 0x0c) >> 16 & 0xff, 0x00);
    let sibling = machine
        .config
        .place(bdf("00:1f.3"), Arc::new(Scripted::default()))
        .unwrap();
    let mut header_type = [0];
    machine.config.read(0, 0xf8, 0x0e, &mut header_type);
    assert_eq!(header_type, [0x80]);
    drop(sibling);
    machine.config.read(0, 0xf8, 0x0e, &mut header_type);
    assert_eq!(header_type, [0x00]);
}

#[test]
fn what_is_behind_a_port_follows_the_ports_bus_numbers() {
    let machine = machine();
    assert_eq!(read32(&machine.config, "01:00.0", 0), 0x0302_0100);
    machine.first.write(0x18, &[0, 9, 9]);
    assert_eq!(read32(&machine.config, "01:00.0", 0), u32::MAX);
    assert_eq!(read32(&machine.config, "09:00.0", 0), 0x0302_0100);
    machine.first.write(0x18, &[0, 0, 0]);
    assert_eq!(
        read32(&machine.config, "09:00.0", 0),
        u32::MAX,
        "secondary bus 0 forwards nothing"
    );
    machine.first.write(0x18, &[0, 2, 2]);
    assert_eq!(
        read32(&machine.config, "02:00.0", 0),
        0x0302_0100,
        "of two ports that claim a bus the first has it"
    );
}

#[test]
fn a_port_behind_a_port_is_reached_through_both() {
    let machine = machine();
    let inner = Arc::new(RootPort::new(&specs::behind(2, 3)).unwrap());
    let _inner = machine.config.place_port(bdf("02:01.0"), inner).unwrap();
    let _leaf = machine
        .config
        .place(bdf("03:00.0"), Arc::new(Scripted::default()))
        .unwrap();
    assert_eq!(read32(&machine.config, "03:00.0", 4), 0x0706_0504);
    machine.config.write(0, 0xe4, 0x1a, &[2]);
    assert_eq!(
        read32(&machine.config, "03:00.0", 4),
        u32::MAX,
        "the outer port no longer covers it"
    );
}

#[test]
fn a_switch_is_an_upstream_port_and_the_downstream_ports_behind_it() {
    let express = |kind, slot| {
        let mut spec = specs::behind(1, 2);
        (spec.kind, spec.slot) = (kind, slot);
        let port = RootPort::new(&spec)?;
        let mut registers = [[0; 4]; 3];
        port.read(0x40, &mut registers[0]);
        port.read(0x4c, &mut registers[1]);
        port.write(0x5c, &[0x0f]);
        port.read(0x5c, &mut registers[2]);
        // Type; whether it reports the link below it; whether it has a root control register.
        Ok((
            registers[0][2] >> 4,
            registers[1][2] & 0x10 != 0,
            registers[2][0] != 0,
        ))
    };
    assert_eq!(express(PortKind::Root, None), Ok((4, true, true)));
    assert_eq!(express(PortKind::Upstream, None), Ok((5, false, false)));
    assert_eq!(express(PortKind::Downstream, Some(3)), Ok((6, true, false)));
    assert_eq!(
        express(PortKind::Upstream, Some(3)),
        Err(PciError::Slot { slot: 3 })
    );
}

#[test]
fn a_dropped_guard_takes_the_function_and_the_bus_behind_it_away() {
    let config = Arc::new(PciConfig::new(0));
    let outer = config
        .place_port(bdf("00:01.0"), Arc::new(RootPort::new(&port(1, 1)).unwrap()))
        .unwrap();
    let leaf = config
        .place(bdf("01:00.0"), Arc::new(Scripted::default()))
        .unwrap();
    assert_eq!(config.functions(), [bdf("00:01.0"), bdf("01:00.0")]);
    drop(outer);
    assert_eq!(config.functions(), []);
    drop(leaf);
    assert_eq!(
        config
            .place(bdf("01:00.0"), Arc::new(Scripted::default()))
            .unwrap_err(),
        PciError::NoBus { bdf: bdf("01:00.0") }
    );
}

#[test]
fn a_guard_that_outlived_its_bus_takes_nothing_of_the_next_one_away() {
    let config = Arc::new(PciConfig::new(0));
    let place_port = || {
        config
            .place_port(bdf("00:01.0"), Arc::new(RootPort::new(&port(1, 1)).unwrap()))
            .unwrap()
    };
    let place_leaf = || {
        config
            .place(bdf("01:00.0"), Arc::new(Scripted::default()))
            .unwrap()
    };
    let (old_port, old_leaf) = (place_port(), place_leaf());
    drop(old_port);
    let (_port, _leaf) = (place_port(), place_leaf());
    drop(old_leaf);
    assert_eq!(config.functions(), [bdf("00:01.0"), bdf("01:00.0")]);
}

#[test]
fn each_refusal_names_the_function_and_what_is_in_its_way() {
    let machine = machine();
    let refusal = |at: &str| {
        machine
            .config
            .place(bdf(at), Arc::new(Scripted::default()))
            .unwrap_err()
    };
    assert_eq!(
        refusal("00:1f.0"),
        PciError::FunctionTaken { bdf: bdf("00:1f.0") }
    );
    assert_eq!(refusal("05:00.0"), PciError::NoBus { bdf: bdf("05:00.0") });
    assert_eq!(
        refusal("0001:00:03.0"),
        PciError::OtherDomain {
            bdf: bdf("0001:00:03.0"),
            domain: 0
        }
    );
    let again = machine
        .config
        .place_port(bdf("00:03.0"), Arc::new(RootPort::new(&port(1, 1)).unwrap()))
        .unwrap_err();
    assert_eq!(
        again,
        PciError::BusTaken {
            bdf: bdf("00:03.0"),
            bus: 1
        }
    );
    assert!(again.to_string().contains("0000:00:03.0") && again.to_string().contains("choose a free bus"));
    let taken = machine
        .config
        .place_port(bdf("00:1c.0"), Arc::new(RootPort::new(&port(7, 7)).unwrap()))
        .unwrap_err();
    assert_eq!(taken, PciError::FunctionTaken { bdf: bdf("00:1c.0") });
    assert_eq!(
        refusal("07:00.0"),
        PciError::NoBus { bdf: bdf("07:00.0") },
        "a refused port leaves no bus"
    );
}

#[test]
fn linux_finds_configuration_mechanism_1() {
    // arch/x86/pci/direct.c, pci_check_type1().
    let ports = PciPorts::new(machine().config, None);
    ports.write(3, &[0x01]);
    ports.write(0, &0x8000_0000_u32.to_le_bytes());
    let mut data = [0; 4];
    ports.read(0, &mut data);
    assert_eq!(u32::from_le_bytes(data), 0x8000_0000);
    ports.write(0, &u32::MAX.to_le_bytes());
    ports.read(0, &mut data);
    assert_eq!(u32::from_le_bytes(data), 0x80ff_fffc, "reserved bits read 0");
}

#[test]
fn one_byte_at_cf9_is_the_reset_register_and_four_at_cf8_are_the_address() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let reset = ResetRegister::new(Arc::new(move |event| sink.lock().unwrap().push(event)));
    let ports = PciPorts::new(machine().config, Some(Arc::new(reset)));
    ports.write(0, &0x8000_0600_u32.to_le_bytes());
    assert_eq!(*events.lock().unwrap(), []);
    ports.write(1, &[0x02]);
    ports.write(1, &[0x06]);
    assert_eq!(*events.lock().unwrap(), [BoardEvent::Reset]);
    let (mut kept, mut address) = ([0], [0; 4]);
    ports.read(1, &mut kept);
    ports.read(0, &mut address);
    assert_eq!((kept, u32::from_le_bytes(address)), ([0x02], 0x8000_0600));
}

#[test]
fn the_data_ports_without_an_enabled_address_are_nothing() {
    let machine = machine();
    let ports = PciPorts::new(Arc::clone(&machine.config), None);
    let mut data = [0; 4];
    ports.write(0, &0x0001_0000_u32.to_le_bytes());
    ports.write(4, &[1, 2, 3, 4]);
    ports.read(4, &mut data);
    assert_eq!(data, [0xff; 4]);
    assert!(machine.behind_first.writes.lock().unwrap().is_empty());
}

#[test]
fn data_port_offsets_choose_the_byte() {
    let machine = machine();
    let ports = PciPorts::new(Arc::clone(&machine.config), None);
    ports.write(0, &0x8001_0040_u32.to_le_bytes());
    let mut data = [0; 2];
    ports.read(6, &mut data);
    assert_eq!(data, [0x42, 0x43]);
    ports.write(7, &[9]);
    assert_eq!(*machine.behind_first.writes.lock().unwrap(), [(0x43, vec![9])]);
    let mut across = [0; 4];
    ports.read(6, &mut across);
    assert_eq!(
        across,
        [0x42, 0x43, 0xff, 0xff],
        "beyond the last port there is nothing"
    );
}

#[test]
fn a_crossing_access_is_split_and_ends_with_the_function() {
    let machine = machine();
    let ecam = Ecam::new(Arc::clone(&machine.config));
    let mut data = [0; 8];
    ecam.read(1 << 20 | 0x3d, &mut data);
    assert_eq!(data, [0x3d, 0x3e, 0x3f, 0x40, 0x41, 0x42, 0x43, 0x44]);
    ecam.read(1 << 20 | 0xffe, &mut data[..4]);
    assert_eq!(data[..4], [0xfe, 0xff, 0xff, 0xff]);
    ecam.write(1 << 20 | 0x3e, &[1, 2, 3, 4]);
    ecam.write(1 << 20 | 0xfff, &[5, 6]);
    let writes = machine.behind_first.writes.lock().unwrap();
    assert_eq!(
        *writes,
        [(0x3e, vec![1, 2]), (0x40, vec![3, 4]), (0xfff, vec![5])]
    );
}

#[test]
fn a_placeholder_lets_its_siblings_be_found() {
    let identity = PortIdentity {
        vendor: 0x1022,
        device: 0x1482,
        revision: 0,
        subsystem: Some((0x1022, 0x1483)),
    };
    let machine = machine();
    let _zero = machine
        .config
        .place(bdf("00:01.0"), Arc::new(Placeholder::new(identity, 0x06_0000)))
        .unwrap();
    let _one = machine
        .config
        .place(bdf("00:01.1"), Arc::new(Scripted::default()))
        .unwrap();
    machine.config.write(0, 8, 0x10, &[0xff; 4]);
    let registers = [0x00, 0x08, 0x0c, 0x10, 0x2c].map(|offset| read32(&machine.config, "00:01.0", offset));
    assert_eq!(registers, [0x1482_1022, 0x0600_0000, 0x0080_0000, 0, 0x1483_1022]);
}

proptest! {
    #[test]
    fn any_access_of_any_size_has_a_result(accesses in prop::collection::vec((any::<bool>(), any::<u64>(), prop::collection::vec(any::<u8>(), 1..9)), 0..300)) {
        let machine = machine();
        let (ecam, ports) = (Ecam::new(Arc::clone(&machine.config)), PciPorts::new(Arc::clone(&machine.config), None));
        for (by_port, address, mut data) in accesses {
            if by_port {
                data.truncate(4);
                ports.write(address as u16 % 9, &data);
                ports.read(address as u16 % 9, &mut data);
            } else {
                // Mostly the first four buses, sometimes beyond the window.
                let offset = if address % 16 == 0 { address } else { address % (4 << 20) };
                ecam.write(offset, &data);
                ecam.read(offset, &mut data);
            }
        }
        prop_assert_eq!(read32(&machine.config, "00:00.0", 0), 0x29c0_8086);
        prop_assert_eq!(read32(&machine.config, "00:1c.0", 0), 0x1234_8086);
    }
}
