//! Devices that lie about themselves, and one that fails: the guest finds something sound or nothing, the host loses nothing.
#![allow(clippy::unwrap_used, reason = "a test")]

mod sham;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pellucid_partition::{ConfigHandler, LastHit};
use pellucid_passthrough::{
    AssignError, BarKind, BarShape, Capabilities, Endpoint, Guest, IrqKind, RegionIndex,
};
use sham::{Sham, open_ranges, wire};

const BAR: u64 = 0xc010_0000;
const MSIX: u16 = 0x72;

fn bar(size: u64) -> BarShape {
    BarShape {
        index: 0,
        kind: BarKind::Memory32 { prefetchable: false },
        size,
        address: BAR,
    }
}

/// A function with one BAR of 64 KiB, told more by `with`.
fn wired(with: impl FnOnce(Sham) -> Sham) -> (Arc<Sham>, Endpoint, Guest) {
    let sham = Arc::new(with(Sham::new().region(RegionIndex::Bar(0), 0x1_0000, true)));
    let (endpoint, guest) = wire(&sham, &[bar(0x1_0000)]).unwrap();
    (sham, endpoint, guest)
}

fn refusal(sham: Sham, bars: &[BarShape]) -> AssignError {
    wire(&Arc::new(sham), bars).err().unwrap()
}

fn seen(endpoint: &Endpoint) -> Vec<u8> {
    let mut seen = vec![0; 4096];
    for (index, word) in seen.chunks_exact_mut(4).enumerate() {
        endpoint.read(index as u16 * 4, word);
    }
    seen
}

fn ids(endpoint: &Endpoint) -> Vec<u16> {
    let found = Capabilities::walk(&seen(endpoint));
    found.standard.iter().map(|capability| capability.id).collect()
}

fn poke(guest: &Guest, address: u64, value: u32) {
    assert!(
        guest
            .mmio
            .write(&mut LastHit::new(), address, &value.to_le_bytes()),
        "{address:#x}"
    );
}

fn peek(guest: &Guest, address: u64) -> u32 {
    let mut data = [0; 4];
    guest.mmio.read(&mut LastHit::new(), address, &mut data);
    u32::from_le_bytes(data)
}

/// Gives a vector of the table at `table` a message, and unmasks it.
fn unmask(guest: &Guest, table: u64, vector: u64) {
    for (offset, value) in [(0, 0xfee0_0000), (8, 0x41), (12, 0)] {
        poke(guest, BAR + table + vector * 16 + offset, value);
    }
}

#[test]
fn a_capability_list_that_loops_ends_for_the_guest() {
    let (_, endpoint, _) = wired(|sham| sham.bytes(0x81, &[0x40]));
    assert_eq!(ids(&endpoint), [0x01, 0x05, 0x11, 0x10]);
    assert_eq!(seen(&endpoint)[0x81], 0);
}

#[test]
fn an_extended_list_that_loops_ends_for_the_guest() {
    let loops = |sham: Sham| {
        sham.bytes(0x100, &[0x01, 0, 0x01, 0x20])
            .bytes(0x200, &[0x03, 0, 0x01, 0x10])
    };
    let (_, endpoint, _) = wired(loops);
    assert_eq!(seen(&endpoint)[0x200..0x204], [0x03, 0, 0x01, 0x00]);
}

#[test]
fn a_capability_pointer_into_the_header_leads_nowhere() {
    let (_, endpoint, _) = wired(|sham| sham.bytes(0x51, &[0x10]));
    assert_eq!(ids(&endpoint), [0x01, 0x05]);
}

#[test]
fn bars_of_impossible_sizes_are_refused_by_number() {
    for (size, wrong) in [
        (0x3000, "not a power of two"),
        (0, "not a power of two"),
        (8, "smaller than its register"),
        (1 << 40, "larger than a 32-bit register"),
    ] {
        let told = refusal(Sham::new(), &[bar(size)]).to_string();
        assert!(told.contains("BAR 0") && told.contains(wrong), "{told}");
    }
    let wide = BarShape {
        kind: BarKind::Memory64 { prefetchable: false },
        ..bar(0x1000)
    };
    let overlapping = [
        wide,
        BarShape {
            index: 1,
            ..bar(0x1000)
        },
    ];
    assert!(
        refusal(Sham::new(), &overlapping)
            .to_string()
            .contains("BAR 1: it overlaps")
    );
    let last = BarShape { index: 5, ..wide };
    assert!(
        refusal(Sham::new(), &[last])
            .to_string()
            .contains("needs the one behind it")
    );
}

#[test]
fn a_bar_larger_than_the_guests_window_never_opens() {
    let sham = Arc::new(Sham::new().region(RegionIndex::Bar(0), 1 << 31, false));
    let (endpoint, guest) = wire(&sham, &[bar(1 << 31)]).unwrap();
    endpoint.write(0x04, &[2, 0]);
    for address in [0x8000_0000_u32, 0, u32::MAX] {
        endpoint.write(0x10, &address.to_le_bytes());
        assert!(open_ranges(&guest.mmio).is_empty());
    }
}

#[test]
fn a_region_shorter_than_its_bar_reads_all_ones_behind_its_end() {
    let sham = Arc::new(Sham::new().region(RegionIndex::Bar(0), 0x1800, true));
    let (endpoint, guest) = wire(&sham, &[bar(0x1_0000)]).unwrap();
    endpoint.write(0x04, &[2, 0]);
    assert_eq!(open_ranges(&guest.mmio), [(BAR + 0x1000, 0xf000)]);
    poke(&guest, BAR + 0x1000, 7);
    assert_eq!(
        (peek(&guest, BAR + 0x1000), peek(&guest, BAR + 0x8000)),
        (7, u32::MAX)
    );
    poke(&guest, BAR + 0x8000, 7);
}

#[test]
fn msix_whose_table_or_pending_bits_no_access_reaches_is_hidden_and_msi_stays() {
    for (at, locator, name) in [
        (0x74, 0xfff8_u32, "table"),
        (0x78, 0x1_0000, "pending bits"),
        (0x74, 0x2003, "table"),
        (0x78, 0x0006, "pending bits"),
        (0x74, 0x2007, "table"),
    ] {
        let (_, endpoint, guest) = wired(|sham| sham.bytes(at, &locator.to_le_bytes()));
        let hidden = endpoint.hidden();
        assert!(hidden.len() == 1 && hidden[0].contains(name), "{hidden:?}");
        assert_eq!(ids(&endpoint), [0x01, 0x05, 0x10]);
        endpoint.write(0x04, &[2, 0]);
        endpoint.write(MSIX, &[0, 0x80]);
        assert!(open_ranges(&guest.mmio).is_empty(), "no page is trapped for it");
        assert_eq!(endpoint.vectors_in_use(), 0);
    }
}

#[test]
fn messages_that_the_transport_cannot_signal_are_hidden() {
    let (_, endpoint, _) = wired(|sham| sham.interrupts(IrqKind::Msix, 0).interrupts(IrqKind::Msi, 0));
    assert_eq!(ids(&endpoint), [0x01, 0x10]);
    assert_eq!(endpoint.hidden().len(), 2);
}

#[test]
fn a_host_with_more_vectors_than_there_can_be_is_asked_for_2048_at_most() {
    let lies = |sham: Sham| {
        let wide = sham.bytes(0x72, &[0xff, 0x07]).bytes(0x78, &[0x00, 0xf0]);
        wide.interrupts(IrqKind::Msix, 1 << 20)
    };
    let (sham, endpoint, guest) = wired(lies);
    endpoint.write(0x04, &[2, 0]);
    endpoint.write(MSIX, &[0, 0x80]);
    unmask(&guest, 0x2000, 2047);
    assert_eq!(endpoint.vectors_in_use(), 1);
    assert!(sham.signal(IrqKind::Msix, 2047) && !sham.signal(IrqKind::Msix, 2048));
}

#[test]
fn a_host_with_fewer_vectors_than_the_table_keeps_those_that_it_has() {
    let (sham, endpoint, guest) = wired(|sham| sham.interrupts(IrqKind::Msix, 2));
    endpoint.write(0x04, &[2, 0]);
    endpoint.write(MSIX, &[0, 0x80]);
    for vector in 0..4 {
        unmask(&guest, 0x2000, vector);
    }
    assert_eq!(sham.connected(IrqKind::Msix), Some(vec![0, 1]));
    assert_eq!(endpoint.vectors_in_use(), 2);
}

#[test]
fn an_interrupt_storm_costs_the_host_nothing_and_is_one_interrupt_when_unmasked() {
    let (sham, endpoint, guest) = wired(|sham| sham);
    endpoint.write(0x04, &[2, 0]);
    endpoint.write(MSIX, &[0, 0x80]);
    unmask(&guest, 0x2000, 3);
    poke(&guest, BAR + 0x2000 + 3 * 16 + 12, 1);
    let wirings = sham.wirings.load(Ordering::Relaxed);
    for _ in 0..100_000 {
        assert!(sham.signal(IrqKind::Msix, 3));
    }
    assert_eq!(peek(&guest, BAR + 0x3000), 0b1000);
    poke(&guest, BAR + 0x2000 + 3 * 16 + 12, 0);
    assert_eq!(peek(&guest, BAR + 0x3000), 0);
    for _ in 0..100_000 {
        assert!(sham.signal(IrqKind::Msix, 3));
    }
    assert_eq!(sham.wirings.load(Ordering::Relaxed), wirings);
    assert_eq!(endpoint.vectors_in_use(), 1);
}

#[test]
fn a_guest_that_masks_and_unmasks_without_end_takes_no_more_of_the_host() {
    let (sham, endpoint, guest) = wired(|sham| sham);
    endpoint.write(0x04, &[2, 0]);
    endpoint.write(MSIX, &[0, 0x80]);
    unmask(&guest, 0x2000, 0);
    let wirings = sham.wirings.load(Ordering::Relaxed);
    for round in 0..1000 {
        poke(&guest, BAR + 0x2000 + 12, round & 1);
        poke(&guest, BAR + 0x2000 + 8, 0x40 + (round & 7));
    }
    assert_eq!(endpoint.vectors_in_use(), 1);
    assert_eq!(sham.wirings.load(Ordering::Relaxed), wirings);
}

#[test]
fn a_device_that_stops_answering_closes_its_bars_and_reads_all_ones() {
    let (sham, endpoint, guest) = wired(|sham| sham);
    endpoint.write(0x04, &[2, 0]);
    assert!(!open_ranges(&guest.mmio).is_empty());
    sham.deaf.store(true, Ordering::Relaxed);
    let mut command = [0; 2];
    endpoint.read(0x04, &mut command);
    assert_eq!(command, [0xff; 2]);
    endpoint.write(0x04, &[6, 0]);
    assert!(open_ranges(&guest.mmio).is_empty());
    endpoint.write(0x88, &[0, 0x80]);
    let mut ids = [0; 4];
    endpoint.read(0, &mut ids);
    assert_eq!(ids, [0x36, 0x1b, 0x10, 0x00], "what it is, is known");
}

#[test]
fn a_device_that_does_not_answer_at_first_is_refused() {
    let sham = Sham::new();
    sham.deaf.store(true, Ordering::Relaxed);
    let told = refusal(sham, &[]).to_string();
    assert!(
        told.contains("reading its configuration space") && told.contains("os error 5"),
        "{told}"
    );
}

#[test]
fn configuration_spaces_that_are_no_functions_are_refused() {
    for (sham, wrong) in [
        (
            Sham::new().region(RegionIndex::Config, 0, false),
            "shorter than the 256 bytes",
        ),
        (
            Sham::new().region(RegionIndex::Config, 0x7f, false),
            "shorter than the 256 bytes",
        ),
        (Sham::new().bytes(0, &[0xff; 4096]), "all ones"),
        (Sham::new().bytes(0x0e, &[0x01]), "bridge"),
    ] {
        let told = refusal(sham, &[]).to_string();
        assert!(told.contains(wrong), "{told}");
    }
}

#[test]
fn a_configuration_space_without_end_is_4096_bytes() {
    let sham = Arc::new(Sham::new().region(RegionIndex::Config, 1 << 40, false));
    let (endpoint, _) = wire(&sham, &[]).unwrap();
    assert_eq!(ids(&endpoint)[0], 0x01);
}

#[test]
fn msi_bits_that_change_under_way_change_nothing_for_the_guest() {
    let (sham, endpoint, _) = wired(|sham| sham);
    let before = seen(&endpoint);
    // No longer 64-bit, no longer maskable, 32 vectors.
    sham.space.lock().unwrap()[0x52..0x54].copy_from_slice(&[0x0a, 0x00]);
    assert_eq!(seen(&endpoint), before);
    endpoint.write(0x54, &0xfee0_0000_u32.to_le_bytes());
    endpoint.write(0x5c, &[0x41, 0]);
    endpoint.write(0x52, &[0x71, 0]);
    assert_eq!(sham.connected(IrqKind::Msi), Some((0..8).collect()));
}

#[test]
fn a_rom_whose_size_no_register_can_say_is_none() {
    for size in [0, 0x123, 0x400, 0x3000, 1 << 32] {
        let sham = Sham::new().region(RegionIndex::Rom, size, false);
        assert_eq!(BarShape::rom_of(&sham), None, "{size:#x}");
    }
}

#[test]
fn a_rom_shorter_than_it_says_reads_all_ones_and_takes_no_writes() {
    let sham = Arc::new(Sham::new().region(RegionIndex::Rom, 0x800, false));
    let rom = BarShape::rom(0x1000, BAR).unwrap();
    let (endpoint, guest) = wire(&sham, &[rom]).unwrap();
    endpoint.write(0x04, &[2, 0]);
    assert!(open_ranges(&guest.mmio).is_empty(), "its own enable bit is off");
    endpoint.write(0x30, &(BAR as u32 | 1).to_le_bytes());
    assert_eq!(open_ranges(&guest.mmio), [(BAR, 0x1000)]);
    poke(&guest, BAR, 7);
    assert_eq!((peek(&guest, BAR), peek(&guest, BAR + 0x800)), (0, u32::MAX));
}
