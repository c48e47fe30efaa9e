//! The bus against a plain model: a list of ranges, changed and accessed at random.
#![allow(clippy::unwrap_used, reason = "a test")]

mod device;

use std::sync::Arc;

use device::Device;
use pellucid_partition::{BusRange, LastHit, MmioBus, MmioHandler};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Insert(u64, u64),
    Remove(usize),
    Read(u64, usize),
    Write(u64, usize),
    Forget,
}

/// Small ranges close together, or pages far apart: the table finds them by different bits of the address.
fn steps() -> impl Strategy<Value = (u64, Vec<Step>)> {
    let step = prop_oneof![
        2 => (0_u64..64, 0_u64..12).prop_map(|(base, size)| Step::Insert(base, size)),
        1 => (0_usize..8).prop_map(Step::Remove),
        3 => (0_u64..80, 0_usize..9).prop_map(|(address, length)| Step::Read(address, length)),
        2 => (0_u64..80, 0_usize..9).prop_map(|(address, length)| Step::Write(address, length)),
        1 => Just(Step::Forget),
    ];
    let scale = prop_oneof![Just(1), Just(4), Just(0x1000), Just(1 << 36)];
    (scale, prop::collection::vec(step, 1..160))
}

struct Model {
    base: u64,
    size: u64,
    device: Arc<Device>,
    accesses: (u64, u64),
    _guard: BusRange<dyn MmioHandler>,
}

impl Model {
    fn holds(&self, address: u64, length: usize) -> bool {
        self.base <= address && address + length as u64 <= self.base + self.size
    }
}

/// The range that holds all of the access.
fn owner(model: &mut [Model], address: u64, length: usize) -> Option<&mut Model> {
    model
        .iter_mut()
        .find(|range| length > 0 && range.holds(address, length))
}

proptest! {
    #[test]
    fn the_bus_answers_as_a_list_of_ranges_would((scale, steps) in steps()) {
        let bus = Arc::new(MmioBus::new());
        let mut hit = LastHit::new();
        let mut model: Vec<Model> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(base, size) => {
                    let (base, size) = (base * scale, size * scale);
                    let free = size > 0 && model.iter().all(|m| base + size <= m.base || m.base + m.size <= base);
                    let device = Device::new(number as u8 % 8, size);
                    let inserted = bus.insert(base, size, "any", device.clone());
                    prop_assert_eq!(inserted.is_ok(), free);
                    let accesses = (0, 0);
                    model.extend(inserted.ok().map(|_guard| Model { base, size, device, accesses, _guard }));
                }
                Step::Remove(index) if index < model.len() => drop(model.swap_remove(index)),
                Step::Remove(_) => {}
                Step::Read(address, length) => {
                    // Near the borders of ranges, whatever the scale.
                    let address = (address * scale).saturating_sub(number as u64 % 8);
                    let owner = owner(&mut model, address, length);
                    let answered = owner.is_some();
                    let expected = owner.map_or(vec![0xff; length], |range| {
                        range.accesses.0 += 1;
                        let offset = address - range.base;
                        (offset..offset + length as u64).map(|offset| range.device.byte(offset)).collect()
                    });
                    let mut data = vec![0; length];
                    prop_assert_eq!(bus.read(&mut hit, address, &mut data), answered);
                    prop_assert_eq!(data, expected);
                }
                Step::Write(address, length) => {
                    let address = (address * scale).saturating_sub(number as u64 % 8);
                    let data: Vec<u8> = (0..length as u8).collect();
                    let answered = bus.write(&mut hit, address, &data);
                    let owner = owner(&mut model, address, length);
                    prop_assert_eq!(answered, owner.is_some());
                    if let Some(range) = owner {
                        range.accesses.1 += 1;
                        let written = range.device.written.lock().unwrap().pop();
                        prop_assert_eq!(written, Some((address - range.base, data)));
                    }
                    prop_assert!(model.iter().all(|range| range.device.written.lock().unwrap().is_empty()));
                }
                Step::Forget => hit.forget(),
            }
        }
        model.sort_by_key(|range| range.base);
        let counts = bus.counts();
        let counts: Vec<_> = counts.iter().map(|c| (c.base, c.size, (c.reads, c.writes))).collect();
        let expected: Vec<_> = model.iter().map(|m| (m.base, m.size, m.accesses)).collect();
        prop_assert_eq!(counts, expected);
    }
}
