//! The board's own functions register by register: host bridge, LPC bridge, root port.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pellucid_chipset::{HostBridge, Lpc, PciError, PortKind, RootPort, RootPortSpec, Windows};
use pellucid_partition::ConfigHandler;
use proptest::prelude::*;

mod specs;
use specs::port;

fn read32(function: &dyn ConfigHandler, offset: u16) -> u32 {
    let mut data = [0; 4];
    function.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn read16(function: &dyn ConfigHandler, offset: u16) -> u16 {
    let mut data = [0; 2];
    function.read(offset, &mut data);
    u16::from_le_bytes(data)
}

/// The capabilities in list order: id and offset.
fn capabilities(function: &dyn ConfigHandler) -> Vec<(u8, u16)> {
    let mut found = Vec::new();
    let mut at = read16(function, 0x34) & 0xfc;
    while at != 0 && found.len() < 48 {
        let header = read16(function, at);
        found.push((header as u8, at));
        at = header >> 8 & 0xfc;
    }
    found
}

#[test]
fn the_host_bridge_has_ecam_where_the_layout_has_it() {
    let bridge = HostBridge::new(0xe000_0000);
    assert_eq!(read32(&bridge, 0x08), 0x0600_0002);
    assert_eq!((read32(&bridge, 0x60), read32(&bridge, 0x64)), (0xe000_0001, 0));
    assert_eq!(bridge.ecam(), Some(0xe000_0000..0xf000_0000));
    assert_eq!(capabilities(&bridge), []);
}

#[test]
fn firmware_that_moves_ecam_is_followed_and_reported() {
    let moves = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&moves);
    let bridge = HostBridge::new(0xe000_0000).on_ecam_move(move |to| seen.lock().unwrap().push(to));
    // OVMF's order: off, the upper half, base and enable.
    bridge.write(0x60, &0_u32.to_le_bytes());
    bridge.write(0x64, &0_u32.to_le_bytes());
    bridge.write(0x60, &0xb000_0001_u32.to_le_bytes());
    bridge.write(0x60, &0xb400_0005_u32.to_le_bytes());
    bridge.write(0x60, &[0x07]);
    let expected = [
        None,
        Some(0xb000_0000..0xc000_0000),
        Some(0xb400_0000..0xb800_0000),
        None,
    ];
    assert_eq!(*moves.lock().unwrap(), expected);
}

#[test]
fn the_lpc_bridge_has_acpi_on_where_linux_looks_for_it() {
    // drivers/pci/quirks.c, ich6_lpc_acpi_gpio(), and drivers/mfd/lpc_ich.c.
    let lpc = Lpc::new(0x600);
    assert_eq!(read32(&lpc, 0x08), 0x0601_0002);
    assert_eq!(read32(&lpc, 0x40), 0x601);
    assert_eq!(read32(&lpc, 0x44) & 0xff, 0x80, "on, SCI on IRQ 9");
    assert_eq!(
        (read32(&lpc, 0x48), read32(&lpc, 0x4c) & 0x10),
        (1, 0),
        "general-purpose I/O is off"
    );
    assert_eq!(
        (read32(&lpc, 0x60), read32(&lpc, 0x68)),
        (0x8080_8080, 0x8080_8080),
        "no PIRQ is routed"
    );
    assert_eq!(read32(&lpc, 0xf0) & 1, 0, "no root complex registers");
    assert_eq!(
        [0x84, 0x88, 0x8c, 0x90].map(|decode| read32(&lpc, decode)),
        [0; 4]
    );
}

#[test]
fn the_lpc_bridge_keeps_what_firmware_programs() {
    let lpc = Lpc::new(0x600);
    lpc.write(0x60, &[0x0a, 0x0b, 0xff]);
    lpc.write(0x40, &0xffff_ffff_u32.to_le_bytes());
    lpc.write(0xf0, &0xfed1_c001_u32.to_le_bytes());
    assert_eq!(
        (read32(&lpc, 0x60), read32(&lpc, 0x40), read32(&lpc, 0xf0)),
        (0x808f_0b0a, 0xff81, 0xfed1_c001)
    );
}

#[test]
fn a_root_port_shows_the_hosts_identity_and_windows() {
    let port = RootPort::new(&port(1, 4)).unwrap();
    assert_eq!(
        (read32(&port, 0x00), read32(&port, 0x08)),
        (0x1234_8086, 0x0604_0003)
    );
    assert_eq!(read32(&port, 0x0c) >> 16, 0x01);
    assert_eq!(read32(&port, 0x18), 0x0004_0100);
    assert_eq!(read16(&port, 0x04), 0x0007, "on, as firmware leaves it");
    assert_eq!(read16(&port, 0x1c), 0x3020);
    assert_eq!(read32(&port, 0x20), 0xc020_c010);
    assert_eq!(
        (read32(&port, 0x24), read32(&port, 0x28), read32(&port, 0x2c)),
        (0x3ff1_0011, 0x40, 0x40)
    );
    assert_eq!(
        capabilities(&port),
        [(0x10, 0x40), (0x01, 0x80), (0x05, 0x90), (0x0d, 0xa0)]
    );
    assert_eq!(read32(&port, 0xa4), 0x0a1b_1028);
    assert_eq!(read32(&port, 0x100), 0, "no extended capability");
}

#[test]
fn no_port_forwards_by_ari_or_isolates_since_the_guest_has_no_iommu() {
    for kind in [PortKind::Root, PortKind::Upstream, PortKind::Downstream] {
        let mut spec = RootPortSpec { kind, ..port(1, 4) };
        // Only one that has a link below leads to a slot.
        spec.slot = spec.slot.filter(|_| kind != PortKind::Upstream);
        let port = RootPort::new(&spec).unwrap();
        assert_eq!(read32(&port, 0x64) & ARI_FORWARDING, 0, "{kind:?}: not supported");
        port.write(0x68, &u32::MAX.to_le_bytes());
        assert_eq!(read32(&port, 0x68) & ARI_FORWARDING, 0, "{kind:?}: not enabled");
        // ACS and whatever else would be an extended capability.
        assert_eq!(read32(&port, 0x100), 0, "{kind:?}");
        port.write(0x100, &u32::MAX.to_le_bytes());
        assert_eq!(read32(&port, 0x100), 0, "{kind:?}");
    }
}

/// Of both device capabilities 2 and device control 2 (PCI Express base 5.0, 7.5.3.15 and 16).
const ARI_FORWARDING: u32 = 1 << 5;

#[test]
fn a_root_port_shows_its_slot_and_its_link() {
    let slotted = RootPort::new(&port(1, 1)).unwrap();
    assert_eq!(
        read16(&slotted, 0x42),
        0x0142,
        "version 2, root port, slot implemented"
    );
    assert_eq!(read32(&slotted, 0x4c) & 0x3ff, 0x43);
    assert_eq!(read16(&slotted, 0x52), 0x2043, "x4 at 8 GT/s, active");
    assert_eq!((read32(&slotted, 0x54) >> 19, read16(&slotted, 0x5a)), (5, 0x40));
    assert_eq!((read32(&slotted, 0x6c), read16(&slotted, 0x70)), (0x0e, 3));
    let onboard = RootPort::new(&specs::onboard()).unwrap();
    assert_eq!(
        (
            read16(&onboard, 0x42),
            read32(&onboard, 0x54),
            read16(&onboard, 0x5a)
        ),
        (0x0042, 0, 0)
    );
    assert_eq!(
        capabilities(&onboard).len(),
        3,
        "no subsystem, no capability for it"
    );
}

#[test]
fn closed_windows_read_as_closed_and_can_be_opened() {
    let port = RootPort::new(&specs::onboard()).unwrap();
    let (io, memory) = (read16(&port, 0x1c), read32(&port, 0x20));
    assert_eq!(read16(&port, 0x04), 0x0004, "nothing to decode");
    assert!(io & 0xf0 > io >> 8, "I/O base above limit");
    assert!(memory & 0xffff > memory >> 16);
    // pci_read_bridge_windows() probes by writing.
    port.write(0x1c, &0xe0f0_u16.to_le_bytes());
    port.write(0x24, &0xffe0_fff0_u32.to_le_bytes());
    assert_eq!((read16(&port, 0x1c), read32(&port, 0x24)), (0xe0f0, 0xffe1_fff1));
}

#[test]
fn a_secondary_bus_reset_is_reported_once_for_each_rise() {
    let resets = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&resets);
    let port = RootPort::new(&port(1, 1))
        .unwrap()
        .on_bus_reset(move || _ = count.fetch_add(1, Ordering::Relaxed));
    for control in [0x00, 0x40, 0x43, 0x03, 0x40, 0x00] {
        port.write(0x3e, &[control, 0]);
    }
    assert_eq!(resets.load(Ordering::Relaxed), 2);
}

#[test]
fn status_bits_are_cleared_by_one_and_power_states_are_kept() {
    let port = RootPort::new(&port(1, 1)).unwrap();
    port.write(0x06, &[0xff, 0xff]);
    assert_eq!(read16(&port, 0x06), 0x0010, "the capability list stays");
    port.write(0x84, &[0x03, 0x00]);
    assert_eq!(read16(&port, 0x84), 0x000b);
    port.write(0x04, &[0xff, 0xff]);
    assert_eq!(read16(&port, 0x04), 0x0547);
}

#[test]
fn a_port_that_cannot_be_is_refused_with_what_could() {
    let refusal = |change: fn(&mut pellucid_chipset::RootPortSpec)| {
        let mut spec = port(1, 1);
        change(&mut spec);
        RootPort::new(&spec).unwrap_err()
    };
    assert_eq!(
        refusal(|s| s.buses.secondary = 0),
        PciError::Buses {
            primary: 0,
            secondary: 0,
            subordinate: 1
        }
    );
    assert!(matches!(
        refusal(|s| s.buses.secondary = 2),
        PciError::Buses { .. }
    ));
    assert!(matches!(
        refusal(|s| s.windows.memory = 0..0x1000),
        PciError::Window { kind: "memory", .. }
    ));
    assert!(matches!(
        refusal(|s| s.windows.memory.end = 1 << 33),
        PciError::Window { kind: "memory", .. }
    ));
    assert!(matches!(
        refusal(|s| s.windows.prefetchable.start = 1),
        PciError::Window {
            kind: "prefetchable",
            ..
        }
    ));
    assert!(
        refusal(|s| s.windows.io.end = 0x1_1000)
            .to_string()
            .contains("0x10000")
    );
    assert_eq!(refusal(|s| s.slot = Some(0)), PciError::Slot { slot: 0 });
    assert_eq!(
        refusal(|s| s.slot = Some(0x2000)),
        PciError::Slot { slot: 0x2000 }
    );
    assert_eq!(
        refusal(|s| s.link.width = 3),
        PciError::Link { speed: 3, width: 3 }
    );
    assert_eq!(
        refusal(|s| s.link.speed = 0),
        PciError::Link { speed: 0, width: 4 }
    );
}

/// The window as Linux reads it back (pci_read_bridge_mmio, pci_read_bridge_mmio_pref, pci_read_bridge_io).
fn decoded(port: &RootPort) -> Windows {
    let io = u32::from(read16(port, 0x1c));
    let (memory, prefetchable) = (read32(port, 0x20), read32(port, 0x24));
    let upper = |offset| u64::from(read32(port, offset)) << 32;
    let base = |register: u32| u64::from(register & 0xfff0) << 16;
    let end = |register: u32| u64::from(register & 0xfff0_0000) + 0x10_0000;
    Windows {
        io: (io & 0xf0) << 8..(io & 0xf000) + 0x1000,
        memory: base(memory)..end(memory),
        prefetchable: upper(0x28) + base(prefetchable)..upper(0x2c) + end(prefetchable),
    }
}

proptest! {
    #[test]
    fn windows_read_back_as_they_were_given(io in (0u32..16, 1u32..17), memory in (0u64..4096, 1u64..4097), pref in (0u64..1 << 32, 1u64..1 << 31)) {
        let mut spec = port(1, 1);
        spec.windows = Windows {
            io: io.0 << 12..(io.0 + io.1).min(16) << 12,
            memory: memory.0 << 20..(memory.0 + memory.1).min(4096) << 20,
            prefetchable: pref.0 << 20..(pref.0 + pref.1).min(1 << 32) << 20,
        };
        prop_assert_eq!(decoded(&RootPort::new(&spec).unwrap()), spec.windows);
    }

    #[test]
    fn identity_survives_every_write(writes in prop::collection::vec((0u16..1024, any::<u32>()), 0..400)) {
        let (root, lpc, host) = (RootPort::new(&port(1, 1)).unwrap(), Lpc::new(0x600), HostBridge::new(0xe000_0000));
        let before = [0x00, 0x08, 0x34].map(|at| [read32(&root, at), read32(&lpc, at), read32(&host, at)]);
        let list = capabilities(&root);
        for (register, value) in writes {
            for function in [&root as &dyn ConfigHandler, &lpc, &host] {
                function.write(register * 4, &value.to_le_bytes());
                function.write(register * 4 + 3, &[value as u8]);
            }
        }
        let after = [0x00, 0x08, 0x34].map(|at| [read32(&root, at), read32(&lpc, at), read32(&host, at)]);
        prop_assert_eq!(before, after);
        prop_assert_eq!(list, capabilities(&root));
    }
}
