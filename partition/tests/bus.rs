//! The bus against a plain model: the right handler answers, nothing answers where nothing is, and a cache never lies.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pellucid_partition::{BusError, BusRange, LastHit, MmioBus, MmioHandler, PioBus, PioHandler};
use proptest::prelude::*;

/// Answers reads with its number and the offset, and remembers writes.
#[derive(Default)]
struct Device {
    number: u8,
    written: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Device {
    fn new(number: u8) -> Arc<Self> {
        Arc::new(Self {
            number,
            ..Self::default()
        })
    }
}

impl MmioHandler for Device {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(self.number.wrapping_add(offset as u8));
    }
    fn write(&self, offset: u64, data: &[u8]) {
        self.written.lock().unwrap().push((offset, data.to_vec()));
    }
}

impl PioHandler for Device {
    fn read(&self, offset: u16, data: &mut [u8]) {
        data.fill(self.number.wrapping_add(offset as u8));
    }
    fn write(&self, offset: u16, data: &[u8]) {
        self.written.lock().unwrap().push((offset.into(), data.to_vec()));
    }
}

#[test]
fn a_write_reaches_its_device_with_the_offset_in_its_range() {
    let bus = Arc::new(MmioBus::new());
    let device = Device::new(0);
    let _range = bus.insert(0xfeb0_0000, 0x1000, "nic", device.clone()).unwrap();
    let mut hit = LastHit::new();
    assert!(bus.write(&mut hit, 0xfeb0_0010, &[1, 2, 3, 4]));
    assert!(!bus.write(&mut hit, 0xfeb0_1000, &[9]), "one past the end");
    assert_eq!(*device.written.lock().unwrap(), [(0x10, vec![1, 2, 3, 4])]);
}

#[test]
fn ports_answer_like_addresses_and_all_ones_where_nothing_is() {
    let bus = Arc::new(PioBus::new());
    let device = Device::new(3);
    let _range = bus.insert(0x3f8, 8, "serial", device.clone()).unwrap();
    let mut hit = LastHit::new();
    let mut data = [0; 2];
    assert!(bus.read(&mut hit, 0x3fd, &mut data));
    assert_eq!(data, [8, 8]);
    assert!(!bus.read(&mut hit, 0xffff, &mut data));
    assert_eq!(data, [0xff, 0xff]);
    assert!(bus.write(&mut hit, 0x3f8, b"x"));
    assert!(!bus.write(&mut hit, 0x3f7, b"x"));
    assert_eq!(*device.written.lock().unwrap(), [(0, b"x".to_vec())]);
}

#[test]
fn counts_tell_reads_and_writes_of_each_range() {
    let bus = Arc::new(PioBus::new());
    let _timer = bus.insert(0x608, 4, "pm timer", Device::new(0)).unwrap();
    let _serial = bus.insert(0x3f8, 8, "serial", Device::new(0)).unwrap();
    let mut hit = LastHit::new();
    for _ in 0..3 {
        assert!(bus.read(&mut hit, 0x608, &mut [0; 4]));
    }
    assert!(bus.write(&mut hit, 0x3f8, &[0]));
    bus.read(&mut hit, 0x80, &mut [0]);
    let counts: Vec<_> = bus
        .counts()
        .into_iter()
        .map(|c| (c.name, c.base, c.size, c.reads, c.writes))
        .collect();
    let expected = [
        ("serial".to_owned(), 0x3f8, 8, 0, 1),
        ("pm timer".to_owned(), 0x608, 4, 3, 0),
    ];
    assert_eq!(counts, expected);
}

#[test]
fn a_refused_range_leaves_the_bus_as_it_was() {
    let bus = Arc::new(MmioBus::new());
    let _first = bus.insert(0x1000, 0x1000, "first", Device::new(1)).unwrap();
    let before = bus.counts();
    let overlap = bus.insert(0x1fff, 1, "second", Device::new(2)).unwrap_err();
    let expected = BusError::Overlap {
        name: "second".to_owned(),
        base: 0x1fff,
        size: 1,
        other: "first".to_owned(),
        other_base: 0x1000,
    };
    assert_eq!(overlap, expected);
    assert_eq!(bus.counts(), before);
    assert!(bus.insert(0x2000, 1, "neighbour", Device::new(2)).is_ok());
}

#[test]
fn each_vcpu_remembers_for_itself() {
    let bus = Arc::new(MmioBus::new());
    let _low = bus.insert(0, 1, "low", Device::new(1)).unwrap();
    let _high = bus.insert(1, 1, "high", Device::new(2)).unwrap();
    let (mut one, mut two) = (LastHit::new(), LastHit::new());
    let mut data = [0];
    for _ in 0..3 {
        assert!(bus.read(&mut one, 0, &mut data));
        assert_eq!(data, [1]);
        assert!(bus.read(&mut two, 1, &mut data));
        assert_eq!(data, [2]);
    }
}

#[test]
fn after_a_range_is_gone_no_vcpu_reaches_its_device() {
    let bus = Arc::new(MmioBus::new());
    let (gone, late, reads) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let range = bus.insert(0x1000, 1, "leaving", Device::new(1)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut hit = LastHit::new();
                loop {
                    let was_gone = gone.load(Ordering::SeqCst);
                    let answered = bus.read(&mut hit, 0x1000, &mut [0]);
                    reads.fetch_add(1, Ordering::Relaxed);
                    late.fetch_add(u64::from(was_gone && answered), Ordering::Relaxed);
                    if was_gone {
                        break;
                    }
                }
            });
        }
        while reads.load(Ordering::Relaxed) < 1000 {
            std::thread::yield_now();
        }
        drop(range);
        gone.store(true, Ordering::SeqCst);
    });
    assert_eq!(late.into_inner(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u64, u64),
    Remove(usize),
    Read(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0u64..64, 0u64..12).prop_map(|(base, size)| Step::Insert(base, size)),
        (0usize..8).prop_map(Step::Remove),
        (0u64..80).prop_map(Step::Read),
        (0u64..80).prop_map(Step::Read),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #[test]
    fn the_bus_answers_as_a_list_of_ranges_would(steps in steps()) {
        let bus = Arc::new(MmioBus::new());
        let mut hit = LastHit::new();
        let mut model: Vec<(u64, u64, u8, BusRange<dyn MmioHandler>)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(base, size) => {
                    let free = size > 0 && model.iter().all(|(b, s, ..)| base + size <= *b || b + s <= base);
                    let inserted = bus.insert(base, size, "any", Device::new(number as u8));
                    prop_assert_eq!(inserted.is_ok(), free);
                    model.extend(inserted.ok().map(|guard| (base, size, number as u8, guard)));
                }
                Step::Remove(index) if index < model.len() => drop(model.swap_remove(index)),
                Step::Remove(_) => {}
                Step::Read(address) => {
                    let owner = model.iter().find(|(base, size, ..)| (*base..base + size).contains(&address));
                    let expected = owner.map_or(0xff, |(base, _, number, _)| number.wrapping_add((address - base) as u8));
                    let mut data = [0];
                    prop_assert_eq!(bus.read(&mut hit, address, &mut data), owner.is_some());
                    prop_assert_eq!(data[0], expected);
                }
            }
        }
        let bases: Vec<_> = bus.counts().iter().map(|count| count.base).collect();
        prop_assert!(bases.is_sorted());
        prop_assert_eq!(bases.len(), model.len());
    }
}
