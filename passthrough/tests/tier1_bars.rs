//! Whatever two guests' functions are told by configuration writes: KVM's slots, the buses and the peer-to-peer mappings are
//! what the registers say, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test")]

mod sham;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use pellucid_partition::{Access, ConfigHandler, GuestAddress, Mapping};
use pellucid_passthrough::{
    BarKind, BarMapper, BarShape, Endpoint, Guest, Peers, PlacementWindows, RegionIndex, Transport,
};
use proptest::prelude::*;
use sham::{Sham, guest, open_ranges, view};

const fn shape(index: u8, kind: BarKind, size: u64) -> BarShape {
    BarShape {
        index,
        kind,
        size,
        address: 0,
    }
}

/// 64-bit with the MSI-X table in its third page, 32-bit, smaller than a page, ports, and a ROM.
const BARS: [BarShape; 5] = [
    shape(0, BarKind::Memory64 { prefetchable: true }, 0x8000),
    shape(2, BarKind::Memory32 { prefetchable: false }, 0x4000),
    shape(3, BarKind::Memory32 { prefetchable: false }, 0x100),
    shape(4, BarKind::Io, 0x20),
    shape(BarShape::ROM, BarKind::Memory32 { prefetchable: false }, 0x1000),
];
const ROM: usize = 4;

fn sham() -> Sham {
    Sham::new()
        .region(RegionIndex::Bar(0), 0x8000, true)
        .region(RegionIndex::Bar(2), 0x4000, true)
        .region(RegionIndex::Bar(3), 0x100, true)
        .region(RegionIndex::Bar(4), 0x20, false)
        .region(RegionIndex::Rom, 0x1000, false)
}

/// An IOMMU that remembers.
#[derive(Default)]
struct Iommu(Mutex<BTreeSet<(u64, u64)>>);

impl BarMapper for Iommu {
    fn map_bar(&self, at: GuestAddress, bar: &Mapping) -> io::Result<()> {
        assert!(self.0.lock().unwrap().insert((at.0, bar.size() as u64)), "twice");
        Ok(())
    }

    fn unmap_bar(&self, at: GuestAddress, size: u64) -> io::Result<()> {
        assert!(self.0.lock().unwrap().remove(&(at.0, size)), "never mapped");
        Ok(())
    }
}

/// What a guest does to a function.
#[derive(Debug, Clone)]
enum Act {
    Command(u8),
    Power(u8),
    /// Which register, its value; the upper half with it.
    Bar(usize, u64),
    /// One byte of the registers.
    Byte(u16, u8),
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    // Few places, so that registers meet; and such that no device may be at.
    let low = (0u64..5).prop_map(|step| step * 0x4000);
    let nowhere = prop::sample::select(vec![u64::MAX, 0x10_0000, 0xfee0_0000, 1 << 45]);
    let place = prop_oneof![4 => low, 1 => nowhere];
    prop_oneof![
        3 => (0u8..8).prop_map(Act::Command),
        1 => prop::sample::select(vec![0u8, 0, 3, 2]).prop_map(Act::Power),
        8 => (0usize..5, place).prop_map(|(bar, place)| Act::Bar(bar, place)),
        1 => (0x10u16..0x34, any::<u8>()).prop_map(|(at, byte)| Act::Byte(at, byte)),
        1 => Just(Act::Reset),
    ]
}

/// One function, and what a specification makes of the same writes.
struct Function {
    endpoint: Endpoint,
    memory_base: u64,
    io_base: u64,
    command: u8,
    power: u8,
    registers: [u64; 5],
}

impl Function {
    fn wire(number: u64, guest: &Guest, windows: &PlacementWindows) -> Function {
        let transport = Arc::new(sham()) as Arc<dyn Transport>;
        let device = format!("0000:0{number}:00.0").parse().unwrap();
        let endpoint = Endpoint::wire(device, &transport, guest, view(windows, &BARS)).unwrap();
        Function {
            endpoint,
            memory_base: 0xc000_0000 + number * 0x10_0000,
            io_base: 0x1000 * number,
            command: 0,
            power: 0,
            registers: [0; 5],
        }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Command(value) => {
                self.command = value;
                self.endpoint.write(0x04, &[value, 0]);
            }
            Act::Power(value) => {
                self.power = value;
                self.endpoint.write(0x44, &[value, 0]);
            }
            Act::Bar(bar, place) => {
                let value = match (BARS[bar].kind, place < 0x10_0000) {
                    (BarKind::Io, true) => self.io_base + place / 0x400,
                    (_, true) => self.memory_base + place,
                    (_, false) => place,
                } | u64::from(bar == ROM && place % 0x8000 == 0);
                for half in 0..if bar == 0 { 2 } else { 1 } {
                    let bytes = ((value >> (half * 32)) as u32).to_le_bytes();
                    for (index, byte) in bytes.iter().enumerate() {
                        self.store(BARS[bar].place() + half * 4 + index as u16, *byte);
                    }
                    self.endpoint.write(BARS[bar].place() + half * 4, &bytes);
                }
            }
            Act::Byte(at, byte) => {
                self.store(at, byte);
                self.endpoint.write(at, &[byte]);
            }
            Act::Reset => {
                (self.command, self.registers) = (0, [0; 5]);
                self.endpoint.write(0x88, &[0, 0x80]);
            }
        }
    }

    /// A byte of a register, as far as the register has bits there.
    fn store(&mut self, at: u16, byte: u8) {
        for (bar, register) in BARS.iter().zip(&mut self.registers) {
            let width = if bar.index == 0 { 8 } else { 4 };
            let Some(index) = at.checked_sub(bar.place()).filter(|index| *index < width) else {
                continue;
            };
            let mut bytes = register.to_le_bytes();
            let has = (!(bar.size - 1) | u64::from(bar.is_rom())).to_le_bytes()[usize::from(index)];
            bytes[usize::from(index)] = byte & has;
            *register = u64::from_le_bytes(bytes);
        }
    }

    /// Where each BAR is open.
    fn open(&self, windows: &PlacementWindows) -> Vec<(usize, u64)> {
        let mut open: Vec<(usize, u64)> = Vec::new();
        for (index, bar) in BARS.iter().enumerate() {
            let at = self.registers[index] & !(bar.size - 1);
            let end = at.saturating_add(bar.size);
            let inside = |window: &std::ops::Range<u64>| window.start <= at && end <= window.end;
            let (on, placed) = match bar.kind {
                BarKind::Io => (self.command & 1 != 0, inside(&windows.io)),
                _ => (
                    self.command & 2 != 0,
                    inside(&windows.memory32) || inside(&windows.memory64),
                ),
            };
            let rom_off = index == ROM && self.registers[ROM] & 1 == 0;
            let io = |index: usize| BARS[index].kind == BarKind::Io;
            let meets = open.iter().any(|(other, there)| {
                io(*other) == io(index) && at < there + BARS[*other].size && *there < end
            });
            if on && placed && !rom_off && !meets && self.power == 0 {
                open.push((index, at));
            }
        }
        open
    }
}

/// What must be there of both functions: mapped, trapped, and ports.
#[derive(Debug, PartialEq, Eq, Default)]
struct World {
    mapped: BTreeSet<(u64, u64)>,
    trapped: BTreeSet<(u64, u64)>,
    ports: BTreeSet<(u64, u64)>,
}

impl World {
    fn of(functions: &[Function], windows: &PlacementWindows) -> World {
        let mut world = World::default();
        for (index, at) in functions.iter().flat_map(|function| function.open(windows)) {
            match index {
                // The pages of the MSI-X table and the pending bits are trapped.
                0 => {
                    world.mapped.extend([(at, 0x2000), (at + 0x4000, 0x4000)]);
                    world.trapped.insert((at + 0x2000, 0x2000));
                }
                1 => drop(world.mapped.insert((at, 0x4000))),
                3 => drop(world.ports.insert((at, 0x20))),
                _ => drop(world.trapped.insert((at, BARS[index].size))),
            }
        }
        world
    }
}

/// Whether KVM has a slot in the page: it does not take another one there.
fn slot_at(guest: &Guest, page: &Arc<Mapping>, address: u64) -> bool {
    let probe = guest
        .vm
        .map_slot(GuestAddress(address), Arc::clone(page), Access::ReadWrite);
    probe.is_err()
}

fn page() -> Arc<Mapping> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x1000).unwrap();
    Arc::new(Mapping::shared(file.as_fd(), 0, 0x1000).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn slots_buses_and_peer_mappings_are_always_what_the_registers_say(
        acts in proptest::collection::vec((0usize..2, act()), 1..40),
    ) {
        let iommu = Arc::new(Iommu::default());
        let (mut guest, windows) = guest();
        guest.peers = Some(Peers::new(Arc::clone(&iommu) as _));
        let mut functions = [1, 2].map(|number| Function::wire(number, &guest, &windows));
        let page = page();
        for (step, (function, act)) in acts.iter().enumerate() {
            functions[*function].act(act);
            let wanted = World::of(&functions, &windows);
            let found = World {
                mapped: iommu.0.lock().unwrap().clone(),
                trapped: open_ranges(&guest.mmio).into_iter().collect(),
                ports: guest.pio.counts().iter().map(|range| (range.base, range.size)).collect(),
            };
            prop_assert_eq!(&found, &wanted, "after {:?}", act);
            // KVM does not tell what it has, so every page is tried, now and then and at the end.
            if step % 8 == 0 || step + 1 == acts.len() {
                for address in (1..3).flat_map(|number| (0..24).map(move |page| 0xc000_0000 + number * 0x10_0000 + page * 0x1000)) {
                    let covered = wanted.mapped.iter().any(|(at, size)| (*at..at + size).contains(&address));
                    prop_assert_eq!(slot_at(&guest, &page, address), covered, "{:#x} after {:?}", address, act);
                }
            }
        }
        functions.iter().for_each(|function| function.endpoint.end());
        prop_assert!(open_ranges(&guest.mmio).is_empty() && guest.pio.counts().is_empty());
        prop_assert!(iommu.0.lock().unwrap().is_empty());
        prop_assert!(!slot_at(&guest, &page, 0xc010_0000));
    }
}
