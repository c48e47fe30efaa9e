//! The bus: the right handler answers, nothing answers where nothing is, and a memory never lies.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod device;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use device::{Device, byte_of};
use pellucid_partition::{BusError, BusRange, LastHit, MmioBus, MmioHandler, PioBus};

/// Fails the access, and with it the test.
struct Untouchable;

impl MmioHandler for Untouchable {
    fn read(&self, _: u64, _: &mut [u8]) {
        panic!("a handler that is gone was asked");
    }
    fn write(&self, _: u64, _: &[u8]) {
        panic!("a handler that is gone was told");
    }
}

fn read<const N: usize>(bus: &MmioBus, hit: &mut LastHit<dyn MmioHandler>, address: u64) -> (bool, [u8; N]) {
    let mut data = [0; N];
    (bus.read(hit, address, &mut data), data)
}

#[test]
fn a_write_reaches_its_device_with_the_offset_in_its_range() {
    let bus = Arc::new(MmioBus::new());
    let device = Device::new(0, 0x1000);
    let _range = bus.insert(0xfeb0_0000, 0x1000, "nic", device.clone()).unwrap();
    let mut hit = LastHit::new();
    assert!(bus.write(&mut hit, 0xfeb0_0010, &[1, 2, 3, 4]));
    assert!(!bus.write(&mut hit, 0xfeb0_1000, &[9]), "one past the end");
    assert_eq!(*device.written.lock().unwrap(), [(0x10, vec![1, 2, 3, 4])]);
}

#[test]
fn ports_answer_like_addresses_and_all_ones_where_nothing_is() {
    let bus = Arc::new(PioBus::new());
    let device = Device::new(3, 8);
    let _range = bus.insert(0x3f8, 8, "serial", device.clone()).unwrap();
    let mut hit = LastHit::new();
    let mut data = [0; 2];
    assert!(bus.read(&mut hit, 0x3fd, &mut data));
    assert_eq!(data, [0x35, 0x36]);
    assert!(!bus.read(&mut hit, 0xffff, &mut data));
    assert_eq!(data, [0xff, 0xff]);
    assert!(bus.write(&mut hit, 0x3f8, b"x"));
    assert!(!bus.write(&mut hit, 0x3f7, b"x"));
    assert_eq!(*device.written.lock().unwrap(), [(0, b"x".to_vec())]);
}

#[test]
fn an_access_across_a_border_is_answered_by_nobody() {
    let bus = Arc::new(MmioBus::new());
    let (low, high) = (Device::new(1, 4), Device::new(2, 4));
    let _low = bus.insert(0x1000, 4, "low", low.clone()).unwrap();
    let _high = bus.insert(0x1004, 4, "high", high.clone()).unwrap();
    let mut hit = LastHit::new();
    for address in [0xffe, 0x1002, 0x1006] {
        assert_eq!(read(&bus, &mut hit, address), (false, [0xff; 4]));
        assert!(!bus.write(&mut hit, address, &[7; 4]));
    }
    assert_eq!(read(&bus, &mut hit, 0x1002), (true, [0x12, 0x13]));
    assert!(low.written.lock().unwrap().is_empty() && high.written.lock().unwrap().is_empty());
    assert!(bus.counts().iter().all(|count| count.writes == 0));
}

#[test]
fn a_wide_write_does_not_reach_a_register_in_its_midst() {
    let bus = Arc::new(PioBus::new());
    let reset = Device::new(0, 1);
    let _reset = bus.insert(0xcf9, 1, "reset register", reset.clone()).unwrap();
    let mut hit = LastHit::new();
    assert!(!bus.write(&mut hit, 0xcf8, &0x8000_0600_u32.to_le_bytes()));
    assert!(reset.written.lock().unwrap().is_empty());
    assert!(bus.write(&mut hit, 0xcf9, &[6]));
}

#[test]
fn the_last_addresses_answer_and_nothing_wraps_round_to_the_first() {
    let mmio = Arc::new(MmioBus::new());
    let _first = mmio.insert(0, 2, "first", Device::new(1, 2)).unwrap();
    let _last = mmio.insert(u64::MAX, 1, "last", Device::new(2, 1)).unwrap();
    let mut hit = LastHit::new();
    assert_eq!(read(&mmio, &mut hit, u64::MAX), (true, [0x20]));
    assert_eq!(read(&mmio, &mut hit, u64::MAX), (false, [0xff, 0xff]));
    assert!(!mmio.write(&mut hit, u64::MAX, &[1, 2]));

    let pio = Arc::new(PioBus::new());
    let _first = pio.insert(0, 2, "first", Device::new(1, 2)).unwrap();
    let _last = pio.insert(0xffff, 1, "last", Device::new(2, 1)).unwrap();
    let (mut hit, mut data) = (LastHit::new(), [0; 4]);
    assert!(!pio.read(&mut hit, 0xffff, &mut data));
    assert_eq!(data, [0xff; 4]);
}

#[test]
fn odd_sizes_and_none_are_taken_as_they_are() {
    let bus = Arc::new(MmioBus::new());
    let device = Device::new(1, 8);
    let _range = bus.insert(0x1000, 8, "odd", device.clone()).unwrap();
    let mut hit = LastHit::new();
    assert_eq!(read(&bus, &mut hit, 0x1001), (true, [0x11, 0x12, 0x13]));
    assert_eq!(
        read(&bus, &mut hit, 0x1001),
        (true, [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17])
    );
    assert_eq!(
        read(&bus, &mut hit, 0x1000),
        (false, []),
        "nobody is asked for nothing"
    );
    assert!(bus.write(&mut hit, 0x1002, &[1, 2, 3, 4, 5]));
    assert!(!bus.write(&mut hit, 0x1002, &[]));
    assert_eq!(*device.written.lock().unwrap(), [(2, vec![1, 2, 3, 4, 5])]);
}

#[test]
fn counts_tell_reads_and_writes_of_each_range() {
    let bus = Arc::new(PioBus::new());
    let _timer = bus.insert(0x608, 4, "pm timer", Device::new(0, 4)).unwrap();
    let _serial = bus.insert(0x3f8, 8, "serial", Device::new(0, 8)).unwrap();
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
fn counts_of_more_vcpus_than_have_counters_of_their_own_lose_nothing() {
    const VCPUS: u64 = 160;
    let bus = Arc::new(MmioBus::new());
    let ranges = (0..20).map(|index| bus.insert(index, 1, "one", Device::new(0, 1)).unwrap());
    let _ranges: Vec<_> = ranges.collect();
    let mut vcpus: Vec<_> = (0..VCPUS).map(|_| LastHit::new()).collect();
    std::thread::scope(|scope| {
        for vcpus in vcpus.chunks_mut(VCPUS as usize / 4) {
            let bus = &bus;
            scope.spawn(move || {
                for (turn, address) in (0..100).flat_map(|turn| (0..20).map(move |address| (turn, address))) {
                    for hit in &mut *vcpus {
                        assert!(bus.read(hit, address, &mut [0]));
                        assert!(turn > 0 || bus.write(hit, address, &[0]));
                    }
                }
            });
        }
    });
    for count in bus.counts() {
        assert_eq!((count.reads, count.writes), (100 * VCPUS, VCPUS));
    }
}

#[test]
fn a_range_inserted_anew_counts_from_nothing() {
    let bus = Arc::new(MmioBus::new());
    let mut hit = LastHit::new();
    for _ in 0..20 {
        let _range = bus.insert(0, 1, "again", Device::new(0, 1)).unwrap();
        assert!(bus.read(&mut hit, 0, &mut [0]));
        assert_eq!(bus.counts()[0].reads, 1);
    }
}

#[test]
fn a_refused_range_leaves_the_bus_as_it_was() {
    let bus = Arc::new(MmioBus::new());
    let _first = bus
        .insert(0x1000, 0x1000, "first", Device::new(1, 0x1000))
        .unwrap();
    let before = bus.counts();
    let overlap = bus.insert(0x1fff, 1, "second", Device::new(2, 1)).unwrap_err();
    let expected = BusError::Overlap {
        name: "second".to_owned(),
        base: 0x1fff,
        size: 1,
        other: "first".to_owned(),
        other_base: 0x1000,
        other_last: 0x1fff,
    };
    assert_eq!(overlap, expected);
    assert_eq!(
        overlap.to_string(),
        "second: 0x1 addresses from 0x1fff overlap first (0x1000 to 0x1fff); take that off the bus first, or begin elsewhere"
    );
    assert_eq!(bus.counts(), before);
    assert!(bus.insert(0x2000, 1, "neighbour", Device::new(2, 1)).is_ok());
}

#[test]
fn a_range_that_is_none_or_not_on_the_bus_is_refused() {
    let mmio = Arc::new(MmioBus::new());
    let refusal = |base, size| mmio.insert(base, size, "bad", Device::new(0, 1)).unwrap_err();
    assert!(matches!(refusal(0x1000, 0), BusError::Empty { base: 0x1000, .. }));
    assert!(matches!(
        refusal(u64::MAX, 2),
        BusError::Beyond { last: u64::MAX, .. }
    ));
    assert!(matches!(refusal(2, u64::MAX), BusError::Beyond { .. }));
    assert!(mmio.insert(1, u64::MAX, "nearly all", Device::new(0, 1)).is_ok());
    let pio = Arc::new(PioBus::new());
    let refusal = pio.insert(0xfff8, 16, "tail", Device::new(0, 1)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "tail: 0x10 addresses from 0xfff8 go past 0xffff, the last there is; begin lower"
    );
}

#[test]
fn each_vcpu_remembers_for_itself() {
    let bus = Arc::new(MmioBus::new());
    let _low = bus.insert(0, 1, "low", Device::new(1, 1)).unwrap();
    let _high = bus.insert(1, 1, "high", Device::new(2, 1)).unwrap();
    let (mut one, mut two) = (LastHit::new(), LastHit::new());
    for _ in 0..3 {
        assert_eq!(read(&bus, &mut one, 0), (true, [0x10]));
        assert_eq!(read(&bus, &mut two, 1), (true, [0x20]));
    }
}

#[test]
fn what_one_bus_taught_is_not_believed_of_another() {
    let (one, two, empty) = (MmioBus::new(), MmioBus::new(), MmioBus::new());
    let (one, two) = (Arc::new(one), Arc::new(two));
    let _here = one.insert(0, 1, "here", Device::new(1, 1)).unwrap();
    let _there = two.insert(0, 1, "there", Device::new(2, 1)).unwrap();
    let mut hit = LastHit::new();
    for _ in 0..3 {
        assert_eq!(read(&one, &mut hit, 0), (true, [0x10]));
        assert_eq!(read(&two, &mut hit, 0), (true, [0x20]));
        assert_eq!(read(&empty, &mut hit, 0), (false, [0xff]));
    }
}

#[test]
fn a_memory_of_a_larger_table_is_no_use_in_a_smaller_one() {
    let bus = Arc::new(MmioBus::new());
    let insert = |index: u64| {
        bus.insert(index * 16, 16, "many", Device::new(index as u8 % 8, 16))
            .unwrap()
    };
    let mut ranges: Vec<_> = (0..600).map(insert).collect();
    let mut hit = LastHit::new();
    while ranges.len() > 1 {
        for index in 0..600 {
            let expected = if index < ranges.len() as u64 {
                (true, [byte_of(index as u8 % 8, 3)])
            } else {
                (false, [0xff])
            };
            assert_eq!(read(&bus, &mut hit, index * 16 + 3), expected);
        }
        ranges.truncate(ranges.len() / 2);
    }
}

#[test]
fn after_a_range_is_gone_no_vcpu_reaches_its_device() {
    let (gone, late, reads) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let bus = Arc::new(MmioBus::new());
    let range = bus.insert(0x1000, 1, "leaving", Device::new(1, 1)).unwrap();
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

#[test]
fn readers_find_a_steady_range_while_others_come_and_go() {
    let bus = Arc::new(MmioBus::new());
    let _steady = bus
        .insert(0x5000, 0x1000, "steady", Device::new(7, 0x1000))
        .unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut hit, mut reads) = (LastHit::new(), 0_u64);
            while !done.load(Ordering::Relaxed) {
                assert_eq!(read(&bus, &mut hit, 0x5001), (true, [0x71]));
                reads += 1;
            }
            reads
        });
        let writers = [0x1000, 0x9000].map(|base| {
            let bus = &bus;
            scope.spawn(move || {
                for round in 0..1_000 {
                    let device = Device::new(1, 0x1000);
                    let _passing = bus.insert(base, 0x1000, "passing", device).unwrap();
                    assert!(read(bus, &mut LastHit::new(), base + round) == (true, [byte_of(1, round)]));
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        let reads = reader.join().unwrap();
        assert!(reads > 0);
        assert_eq!(bus.counts().len(), 1);
        assert_eq!(bus.counts()[0].reads, reads);
    });
}

#[test]
fn of_two_that_want_one_address_one_gets_it() {
    for _ in 0..200 {
        let bus = Arc::new(MmioBus::new());
        let both = std::thread::scope(|scope| {
            let claims = [(0, 8), (7, 8)].map(|(base, size)| {
                let bus = &bus;
                scope.spawn(move || bus.insert(base, size, "claim", Device::new(0, size)).ok())
            });
            claims.map(|claim| claim.join().unwrap())
        });
        assert_eq!(both.iter().flatten().count(), 1);
    }
}

#[test]
fn a_removed_handler_lives_until_the_vcpu_looks_again_or_is_made_to_forget() {
    let bus = Arc::new(MmioBus::new());
    for forgets in [false, true] {
        let device = Device::new(1, 1);
        let alive = Arc::downgrade(&device);
        let range = bus.insert(0, 1, "leaving", device).unwrap();
        let mut hit = LastHit::new();
        assert_eq!(read(&bus, &mut hit, 0), (true, [0x10]));
        drop(range);
        assert_eq!(alive.strong_count(), 1, "the vCPU's memory keeps it");
        if forgets {
            hit.forget();
        } else {
            assert_eq!(read(&bus, &mut hit, 0x5000), (false, [0xff]));
        }
        assert_eq!(alive.strong_count(), 0);
    }
}

/// Takes a range off the bus when it is written to, as a device whose BAR is moved does.
struct Mover(OnceLock<Mutex<Option<BusRange<dyn MmioHandler>>>>);

impl MmioHandler for Mover {
    fn read(&self, _: u64, _: &mut [u8]) {}
    fn write(&self, _: u64, _: &[u8]) {
        drop(self.0.get().unwrap().lock().unwrap().take());
    }
}

#[test]
fn a_handler_may_take_its_own_range_off_the_bus() {
    let bus = Arc::new(MmioBus::new());
    let mover = Arc::new(Mover(OnceLock::new()));
    let range = bus.insert(0, 1, "mover", mover.clone()).unwrap();
    mover.0.get_or_init(|| Mutex::new(Some(range)));
    let mut hit = LastHit::new();
    assert!(bus.write(&mut hit, 0, &[1]));
    assert!(!bus.write(&mut hit, 0, &[1]));
    assert!(bus.counts().is_empty());
}

#[test]
fn a_handler_that_goes_may_take_another_range_with_it() {
    let bus = Arc::new(MmioBus::new());
    let owner = Arc::new(Mover(OnceLock::new()));
    let owned = bus.insert(8, 1, "owned", Arc::new(Untouchable)).unwrap();
    owner.0.get_or_init(|| Mutex::new(Some(owned)));
    drop(bus.insert(0, 1, "owner", owner).unwrap());
    assert!(bus.counts().is_empty());

    let owner = Arc::new(Mover(OnceLock::new()));
    let owned = bus.insert(8, 1, "owned", Arc::new(Untouchable)).unwrap();
    owner.0.get_or_init(|| Mutex::new(Some(owned)));
    let gone: Weak<Mover> = Arc::downgrade(&owner);
    assert!(bus.insert(8, 1, "refused", owner).is_err());
    assert_eq!(gone.strong_count(), 0);
    assert!(bus.counts().is_empty());
}
