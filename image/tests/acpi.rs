//! The tables as an operating system's interpreter sees them: checksums, pointers, and what `iasl` makes of them.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::Path;
use std::process::Command;

use pellucid_image::{AcpiBoard, AcpiError, AcpiNodes, AcpiTables, RootBus, RootPort, intx_gsi};
use pellucid_partition::{GuestMemory, Layout, PageSize, RamRange};
use proptest::prelude::*;

fn board(cpus: u32) -> AcpiBoard {
    let mut board = AcpiBoard::new(&Layout::new(1 << 30, 39).unwrap(), (0..cpus).collect());
    board.root_ports = vec![
        RootPort {
            address: "0000:00:01.0".parse().unwrap(),
            slot: Some(2),
            node: None,
        },
        RootPort {
            address: "0000:00:1c.4".parse().unwrap(),
            slot: None,
            node: None,
        },
    ];
    board
}

/// The second half of the CPUs and the memory above 4 GiB on a second node.
fn two_nodes(cpus: u32) -> AcpiNodes {
    let range = |start: u64, end: u64, node| RamRange {
        start: start << 30,
        end: end << 30,
        node,
    };
    AcpiNodes {
        cpus: (0..cpus).map(|cpu| u32::from(cpu >= cpus / 2)).collect(),
        memory: vec![range(0, 3, 0), range(4, 5, 0), range(5, 9, 1)],
        distances: vec![vec![10, 21], vec![31, 10]],
    }
}

fn quad(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

/// The table at a guest-physical address, as the pointers in other tables lead to it.
fn at(tables: &AcpiTables, address: u64) -> &[u8] {
    let rest = &tables.bytes()[(address - Layout::ACPI.start) as usize..];
    &rest[..u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize]
}

/// Disassembles a table with `iasl`; `None` when the machine has no `iasl`.
fn disassemble(directory: &Path, name: &str, table: &[u8]) -> Option<String> {
    std::fs::write(directory.join(name), table).unwrap();
    let output = match Command::new("iasl")
        .arg("-d")
        .arg(name)
        .current_dir(directory)
        .output()
    {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("iasl is not installed: the tables were not disassembled (package acpica-tools)");
            return None;
        }
        other => other.unwrap(),
    };
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{name}: {said}");
    for complaint in ["Error", "Warning", "Invalid", "incorrect checksum"] {
        assert!(!said.contains(complaint), "{name}: {said}");
    }
    Some(std::fs::read_to_string(directory.join(name).with_extension("dsl")).unwrap())
}

#[test]
fn every_pointer_leads_to_a_table_with_a_right_checksum() {
    let tables = board(2).tables().unwrap();
    let root = &tables.bytes()[..36];
    assert_eq!(
        (&root[..8], sum(&root[..20]), sum(root)),
        (&b"RSD PTR "[..], 0, 0)
    );
    let index = at(&tables, quad(root, 24));
    assert_eq!((&index[..4], sum(index)), (&b"XSDT"[..], 0));
    let leaves: Vec<&[u8]> = (36..index.len())
        .step_by(8)
        .map(|i| at(&tables, quad(index, i)))
        .collect();
    let names: Vec<&[u8]> = leaves.iter().map(|leaf| &leaf[..4]).collect();
    assert_eq!(names, [&b"FACP"[..], b"APIC", b"MCFG"]);
    assert!(leaves.iter().all(|leaf| sum(leaf) == 0));
    let fadt = leaves[0];
    let dsdt = at(&tables, quad(fadt, 140));
    assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
    let facs = u64::from(u32::from_le_bytes(fadt[36..40].try_into().unwrap()));
    assert_eq!((&at(&tables, facs)[..4], facs % 64), (&b"FACS"[..], 0));
}

#[test]
fn the_interpreter_reads_every_table_without_a_complaint() {
    let directory = tempfile::tempdir().unwrap();
    let mut board = board(300);
    board.nodes = Some(two_nodes(300));
    (board.root_ports[0].node, board.root_ports[1].node) = (Some(1), Some(0));
    let tables = board.tables().unwrap();
    for name in [b"FACP", b"FACS", b"APIC", b"MCFG", b"XSDT", b"SRAT", b"SLIT"] {
        let file = format!("{}.aml", String::from_utf8_lossy(name));
        disassemble(directory.path(), &file, tables.table(name).unwrap());
    }
    let Some(text) = disassemble(directory.path(), "dsdt.aml", tables.table(b"DSDT").unwrap()) else {
        return;
    };
    for expected in [
        "Device (PCI0)",
        "Device (RP08)",
        "Device (RPE4)",
        "Name (_SUN, 0x02)",
        "Name (_PXM, One)",
        "Name (_PXM, Zero)",
        "Name (_S5",
        "Device (COM1)",
    ] {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
    let compiled = Command::new("iasl")
        .args(["-oa", "dsdt.dsl"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&compiled.stdout).into_owned();
    assert!(
        compiled.status.success() && said.contains(" 0 Errors, 0 Warnings"),
        "{said}"
    );
}

#[test]
fn the_fixed_hardware_is_where_the_board_has_it() {
    let tables = board(1).tables().unwrap();
    let fadt = tables.table(b"FACP").unwrap();
    let long = |at: usize| u32::from_le_bytes(fadt[at..at + 4].try_into().unwrap());
    assert_eq!((long(56), long(64), long(76)), (0x600, 0x604, 0x608));
    assert_eq!((fadt[88], fadt[89], fadt[91]), (4, 2, 4));
    assert_eq!(
        (
            u16::from_le_bytes([fadt[46], fadt[47]]),
            quad(fadt, 120),
            fadt[128]
        ),
        (9, 0xcf9, 6)
    );
    let flags = long(112);
    let bit = |number: u32| flags >> number & 1 == 1;
    assert!(!bit(4), "the power button is fixed hardware");
    assert!(
        bit(5) && bit(10) && !bit(20),
        "no sleep button, a reset register, not hardware-reduced"
    );
    let boot = u16::from_le_bytes([fadt[109], fadt[110]]);
    assert_eq!(boot & 0b10_0110, 0b00_0100, "no 8042, no VGA, a CMOS RTC");
}

#[test]
fn cpus_with_large_ids_get_x2apic_entries() {
    let mut board = board(2);
    board.apic_ids = vec![0, 7, 254, 255, 4096];
    let tables = board.tables().unwrap();
    let madt = tables.table(b"APIC").unwrap();
    let (mut offset, mut found) = (44, Vec::new());
    while offset < madt.len() {
        let (kind, length) = (madt[offset], usize::from(madt[offset + 1]));
        match kind {
            0 => found.push((kind, u32::from(madt[offset + 3]))),
            9 => found.push((
                kind,
                u32::from_le_bytes(madt[offset + 4..offset + 8].try_into().unwrap()),
            )),
            _ => {}
        }
        offset += length;
    }
    assert_eq!(offset, madt.len());
    assert_eq!(found, [(0, 0), (0, 7), (0, 254), (9, 255), (9, 4096)]);
}

#[test]
fn the_configuration_window_is_the_same_in_every_table() {
    let mut board = board(1);
    board.ecam = 0xb000_0000..0xb400_0000;
    let tables = board.tables().unwrap();
    let mcfg = tables.table(b"MCFG").unwrap();
    assert_eq!((quad(mcfg, 44), mcfg[54], mcfg[55]), (0xb000_0000, 0, 63));
    let memory32fixed = [0x86, 9, 0, 1, 0, 0, 0, 0xb0, 0, 0, 0, 4];
    let dsdt = tables.table(b"DSDT").unwrap();
    assert!(
        dsdt.windows(12).any(|bytes| bytes == memory32fixed),
        "the motherboard reserves it"
    );
    board.ecam = 0x20_0000_0000..0x20_1000_0000;
    let high = board.tables().unwrap();
    let minimum = 0x20_0000_0000u64.to_le_bytes();
    assert!(
        high.table(b"DSDT")
            .unwrap()
            .windows(8)
            .any(|bytes| bytes == minimum),
        "above 4 GiB too"
    );
}

#[test]
fn the_timer_and_the_sci_are_where_the_board_wires_them() {
    let tables = board(1).tables().unwrap();
    let madt = tables.table(b"APIC").unwrap();
    let holds = |entry: &[u8]| madt.windows(entry.len()).any(|bytes| bytes == entry);
    assert!(holds(&[2, 10, 0, 0, 2, 0, 0, 0, 0, 0]), "the PIT is on input 2");
    assert!(
        holds(&[2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0]),
        "the SCI is level, active high"
    );
    assert!(
        holds(&[1, 12, 1, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]),
        "the I/O APIC's id follows the CPUs'"
    );
    assert!(holds(&[4, 6, 0xff, 0, 0, 1]), "NMI is on LINT1");
}

#[test]
fn interrupt_pins_are_spread_over_the_upper_inputs() {
    assert_eq!(
        (intx_gsi(0, 0).0, intx_gsi(1, 3).0, intx_gsi(31, 1).0),
        (16, 20, 16)
    );
    assert!((0..32).all(|device| (0..4).all(|pin| (16..24).contains(&intx_gsi(device, pin).0))));
}

#[test]
fn a_board_that_cannot_be_described_is_refused_by_name() {
    let refusal = |change: fn(&mut AcpiBoard)| {
        let mut board = board(1);
        change(&mut board);
        board.tables().unwrap_err().to_string()
    };
    assert!(refusal(|b| b.apic_ids.clear()).contains("0 CPUs"));
    assert!(refusal(|b| b.mmio32 = 0xc000_0000..0x1_1000_0000).contains("32-bit MMIO window"));
    assert!(refusal(|b| b.mmio64 = 0..0x1000).contains("64-bit MMIO window"));
    assert!(refusal(|b| b.ecam = 0xe000_0000..0xe000_0000).contains("ECAM window"));
    assert!(refusal(|b| b.root_ports[0].address = "0000:01:00.0".parse().unwrap()).contains("0000:01:00.0"));
    assert!(refusal(|b| b.root_ports[1] = b.root_ports[0].clone()).contains("listed twice"));
    assert!(refusal(|b| b.root_ports[0].node = Some(0)).contains("0000:00:01.0"));
    let nodes: [fn(&mut AcpiNodes); 6] = [
        |nodes| nodes.distances.clear(),
        |nodes| nodes.distances[1][0] = 10,
        |nodes| nodes.distances[1][1] = 11,
        |nodes| nodes.distances[0].truncate(1),
        |nodes| nodes.memory[0].node = 2,
        |nodes| nodes.cpus[0] = 2,
    ];
    for spoil in nodes {
        let mut bad = board(4);
        bad.nodes = Some(two_nodes(4));
        assert!(bad.tables().is_ok());
        spoil(bad.nodes.as_mut().unwrap());
        assert!(matches!(bad.tables(), Err(AcpiError::Nodes { .. })), "{bad:?}");
    }
}

#[test]
fn the_tables_land_where_firmware_puts_them() {
    let layout = Layout::new(64 << 20, 39).unwrap();
    let memory = GuestMemory::map("acpi", &layout, PageSize::Size4K).unwrap();
    let tables = board(2).tables().unwrap();
    tables.write(&memory).unwrap();
    let mut root = [0; 8];
    memory.read(tables.root_pointer(), &mut root).unwrap();
    assert_eq!((&root, tables.root_pointer().0), (b"RSD PTR ", 0xe0000));
}

/// What Linux reads of them: `acpi_parse_entries_array` over SRAT, `acpi_parse_slit`.
#[test]
fn nodes_are_told_by_cpu_by_range_and_by_distance() {
    let mut board = board(4);
    board.apic_ids[3] = 0x1234;
    assert!(board.tables().unwrap().table(b"SRAT").is_none());
    board.nodes = Some(two_nodes(4));
    let tables = board.tables().unwrap();
    let (affinity, distances) = (tables.table(b"SRAT").unwrap(), tables.table(b"SLIT").unwrap());
    assert_eq!((sum(affinity), sum(distances)), (0, 0));
    let long = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut cpus, mut ranges) = (48, Vec::new(), Vec::new());
    while at < affinity.len() {
        let entry = &affinity[at..at + usize::from(affinity[at + 1])];
        match entry[0] {
            0 => cpus.push((u32::from(entry[3]), u32::from(entry[2]), long(entry, 4))),
            2 => cpus.push((long(entry, 8), long(entry, 4), long(entry, 12))),
            1 => ranges.push((quad(entry, 8), quad(entry, 16), long(entry, 2), long(entry, 28))),
            kind => panic!("entry of type {kind}"),
        }
        at += entry.len();
    }
    assert_eq!(cpus, [(0, 0, 1), (1, 0, 1), (2, 1, 1), (0x1234, 1, 1)]);
    let gib = |count: u64| count << 30;
    assert_eq!(
        ranges,
        [(0, gib(3), 0, 1), (gib(4), gib(1), 0, 1), (gib(5), gib(4), 1, 1)]
    );
    assert_eq!(
        (quad(distances, 36), &distances[44..]),
        (2, &[10, 21, 31, 10][..])
    );
}

#[test]
fn the_sleep_button_is_told_of_where_there_is_one() {
    let flags = |button: bool| {
        let mut board = board(1);
        board.sleep_button = button;
        let tables = board.tables().unwrap();
        u32::from_le_bytes(tables.table(b"FACP").unwrap()[112..116].try_into().unwrap())
    };
    assert_eq!(flags(false) ^ flags(true), 1 << 5);
}

/// All there can be together: 1,024 CPUs with large ids on 64 nodes.
#[test]
fn the_largest_board_fits_its_place() {
    let mut board = board(0);
    board.apic_ids = (0..1024).map(|id| id + 0x1000).collect();
    let memory = (0..64).map(|node| RamRange {
        start: u64::from(node) << 30,
        end: u64::from(node + 1) << 30,
        node,
    });
    let distance = |from: usize, to: usize| if from == to { 10 } else { 20 };
    board.nodes = Some(AcpiNodes {
        cpus: (0..1024).map(|cpu| cpu / 16).collect(),
        memory: memory.collect(),
        distances: (0..64)
            .map(|from| (0..64).map(|to| distance(from, to)).collect())
            .collect(),
    });
    let size = board.tables().unwrap().bytes().len();
    assert!(size as u64 <= Layout::ACPI.end - Layout::ACPI.start, "{size}");
}

proptest! {
    #[test]
    fn any_board_is_described_or_refused(
        cpus in prop::collection::vec(any::<u32>(), 0..1200), ports in prop::collection::vec((0u8..32, 0u8..8, any::<Option<u32>>()), 0..64),
        ecam in any::<(u64, u64)>(), buses in 0u64..300,
    ) {
        let mut board = board(1);
        board.apic_ids = cpus;
        board.ecam = if buses == 299 { ecam.0..ecam.1 } else { 0xe000_0000..0xe000_0000 + (buses << 20) };
        board.root_ports = ports.into_iter().map(|(device, function, slot)| RootPort {
            address: pellucid_partition::Bdf::new(0, 0, device, function).unwrap(), slot, node: None,
        }).collect();
        match board.tables() {
            Ok(tables) => prop_assert!(tables.bytes().len() <= 0x10000 && sum(tables.table(b"DSDT").unwrap()) == 0),
            Err(AcpiError::Memory(_)) => prop_assert!(false, "no memory is involved"),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

/// A root bus with one range of each window, `at` of 16 into it.
fn root(board: &AcpiBoard, bus: u8, at: u64) -> RootBus {
    let part = |start: u64, end: u64| {
        let size = ((end - start) / 16) & !0xfff;
        start + at * size..start + (at + 1) * size
    };
    RootBus {
        bus,
        memory: vec![
            part(board.mmio32.start, board.mmio32.end),
            part(board.mmio64.start, board.mmio64.end),
        ],
        io: std::iter::once(0x1000 * (at + 1)..0x1000 * (at + 2)).collect(),
        node: None,
    }
}

#[test]
fn every_root_bus_is_a_bridge_with_its_own_windows_and_ports() {
    let mut board = board(4);
    board.nodes = Some(two_nodes(4));
    board.root_buses = vec![root(&board, 0x40, 3), root(&board, 0x80, 0)];
    board.root_buses[1].node = Some(1);
    board.root_ports.push(RootPort {
        address: "0000:80:01.1".parse().unwrap(),
        slot: Some(9),
        node: Some(1),
    });
    let tables = board.tables().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let Some(text) = disassemble(directory.path(), "dsdt.aml", tables.table(b"DSDT").unwrap()) else {
        return;
    };
    let at = |name: &str| text.find(name).unwrap();
    let (first, second, third) = (at("Device (PCI0)"), at("Device (PC40)"), at("Device (PC80)"));
    assert!(first < second && second < third);
    let end = at("Device (COM1)");
    let (first, second, third) = (&text[first..second], &text[second..third], &text[third..end]);
    for (bridge, buses) in [
        (first, ["0x0000", "0x003F"]),
        (second, ["0x0040", "0x007F"]),
        (third, ["0x0080", "0x00FF"]),
    ] {
        let (_, numbers) = bridge.split_once("WordBusNumber").unwrap();
        let numbers = numbers.split_once("WordIO").unwrap().0;
        assert!(buses.iter().all(|bus| numbers.contains(bus)), "{numbers}");
        for object in ["_PRT", "_OSC", "_DSM", "PNP0A08"] {
            assert!(bridge.contains(object), "{object}: {bridge}");
        }
    }
    assert!(
        first.contains("Device (RP08)") && !first.contains("_PXM"),
        "{first}"
    );
    assert!(
        !second.contains("Device (RP") && !second.contains("0x0CF8"),
        "{second}"
    );
    for said in [
        "Name (_UID, 0x80)",
        "Name (_BBN, 0x80)",
        "Name (_PXM, One)",
        "Device (RP09)",
        "Name (_SUN, 0x09)",
    ] {
        assert!(third.contains(said), "{said}: {third}");
    }
}

#[test]
fn a_root_bus_that_has_what_is_not_there_is_refused() {
    let whole = board(1);
    let refused = |change: fn(&mut RootBus)| {
        let mut board = whole.clone();
        board.root_buses = vec![root(&board, 0x40, 0), root(&board, 0x80, 1)];
        change(&mut board.root_buses[1]);
        matches!(board.tables(), Err(AcpiError::RootBus { bus, .. }) if bus == board.root_buses[1].bus)
    };
    assert!(!refused(|_| ()));
    assert!(refused(|root| root.bus = 0x40));
    assert!(refused(|root| root.memory[0] = 0..0x1000));
    assert!(refused(|root| root.memory[0].end = root.memory[0].start));
    assert!(refused(|root| root.memory[0].start -= 0x1000));
    assert!(refused(|root| root.io[0] = 0xc00..0xe00));
    assert!(refused(|root| root.io[0] = 0x1f00..0x2100));
    assert!(refused(|root| root.node = Some(0)));
}

proptest! {
    #[test]
    fn no_two_bridges_decode_the_same_and_together_they_decode_all(
        buses in proptest::collection::btree_set(1u8..=0xff, 0..15),
        places in Just((0..15).collect::<Vec<u64>>()).prop_shuffle(),
    ) {
        let mut board = board(1);
        board.root_buses = buses.iter().zip(places).map(|(bus, at)| root(&board, *bus, at)).collect();
        prop_assert!(board.tables().is_ok());
        let bridges = board.root_bridges();
        let numbers: Vec<u8> = bridges.iter().flat_map(|bridge| bridge.buses.clone()).collect();
        prop_assert_eq!(numbers, (0..=0xff).collect::<Vec<u8>>());
        let whole = |windows: &[std::ops::Range<u64>]| windows.iter().map(|range| range.end - range.start).sum::<u64>();
        let windows = [board.mmio32.clone(), board.mmio64.clone()];
        let memory: Vec<_> = bridges.iter().flat_map(|bridge| bridge.memory.clone()).collect();
        let io: Vec<_> = bridges.iter().flat_map(|bridge| bridge.io.clone()).collect();
        for (all, expected) in [(&memory, whole(&windows)), (&io, 0x1_0000 - 8)] {
            prop_assert_eq!(whole(all), expected);
            for (index, one) in all.iter().enumerate() {
                prop_assert!(all[..index].iter().all(|other| one.end <= other.start || other.end <= one.start));
            }
        }
        for range in &memory {
            prop_assert!(windows.iter().any(|window| window.start <= range.start && range.end <= window.end));
        }
    }
}
