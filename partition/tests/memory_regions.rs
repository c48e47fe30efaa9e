//! Regions come and go under subscribers: all of them know a region or none does, whatever fails on the way.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pellucid_partition::{
    GuestAddress, GuestMemory, MemoryError, MemorySubscriber, RamRegion, Region, RegionSpec, Subscription,
};
use proptest::prelude::*;

const PAGE: u64 = 4096;

fn region(guest: u64, pages: u64) -> RamRegion {
    RamRegion::map(
        "regions-test",
        &RegionSpec::new(GuestAddress(guest), pages * PAGE),
    )
    .unwrap()
}

/// Keeps a map of its own, and refuses what it is told to refuse.
struct Mapper {
    name: String,
    log: Arc<Mutex<Vec<String>>>,
    map: Mutex<BTreeMap<u64, u64>>,
    accepts: AtomicUsize,
}

impl Mapper {
    fn new(name: &str, log: &Arc<Mutex<Vec<String>>>, accepts: usize) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            log: Arc::clone(log),
            map: Mutex::default(),
            accepts: AtomicUsize::new(accepts),
        })
    }

    fn map(&self) -> BTreeMap<u64, u64> {
        self.map.lock().unwrap().clone()
    }

    fn say(&self, what: char, region: &Region) {
        self.log
            .lock()
            .unwrap()
            .push(format!("{}{what}{:#x}", self.name, region.guest.0));
    }
}

impl MemorySubscriber for Mapper {
    fn name(&self) -> &str {
        &self.name
    }

    fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>> {
        let room = self.accepts.load(Ordering::Relaxed);
        if room == 0 {
            return Err("no room".into());
        }
        self.accepts.store(room - 1, Ordering::Relaxed);
        self.say('+', region);
        let before = self.map.lock().unwrap().insert(region.guest.0, region.size);
        assert_eq!(before, None, "attached twice");
        Ok(())
    }

    fn detach(&self, region: &Region) {
        self.say('-', region);
        let gone = self.map.lock().unwrap().remove(&region.guest.0);
        assert_eq!(gone, Some(region.size), "detached without being attached");
    }
}

#[test]
fn an_added_region_is_ram_for_everybody_and_a_removed_one_for_nobody() {
    let (memory, log) = (GuestMemory::new(), Arc::default());
    let (first, second) = (Mapper::new("a", &log, 9), Mapper::new("b", &log, 9));
    let _first = memory.subscribe(first.clone()).unwrap();
    let _second = memory.subscribe(second.clone()).unwrap();
    memory.add(region(0x10_0000, 2)).unwrap();
    assert!(memory.contains(GuestAddress(0x10_0000), 2 * PAGE));
    memory.write(GuestAddress(0x10_0000), &[7]).unwrap();
    assert_eq!(first.map(), second.map());
    memory.remove(GuestAddress(0x10_0000)).unwrap();
    assert!(memory.write(GuestAddress(0x10_0000), &[7]).is_err());
    assert!(memory.regions().is_empty() && second.map().is_empty());
    assert_eq!(
        *log.lock().unwrap(),
        ["a+0x100000", "b+0x100000", "b-0x100000", "a-0x100000"],
        "the last attached lets go first"
    );
}

#[test]
fn a_region_that_one_refuses_is_added_for_nobody() {
    let (memory, log) = (GuestMemory::new(), Arc::default());
    let subscribers = [("a", 9), ("b", 9), ("narrow", 1), ("never asked", 9)];
    let subscribers = subscribers.map(|(name, accepts)| Mapper::new(name, &log, accepts));
    let subscriptions = subscribers.clone().map(|one| memory.subscribe(one).unwrap());
    memory.add(region(0, 1)).unwrap();
    log.lock().unwrap().clear();
    let refusal = memory.add(region(0x8000, 1)).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "narrow: guest memory at 0x8000, 0x1000 bytes: no room"
    );
    assert_eq!(
        *log.lock().unwrap(),
        ["a+0x8000", "b+0x8000", "b-0x8000", "a-0x8000"]
    );
    assert_eq!(memory.regions().len(), 1);
    drop(subscriptions);
    assert!(subscribers.iter().all(|one| one.map().is_empty()));
}

#[test]
fn overlapping_and_unknown_regions_are_refused_by_address() {
    let memory = GuestMemory::new();
    memory.add(region(0x4000, 4)).unwrap();
    for guest in [0x1000, 0x4000, 0x7000] {
        let refusal = memory.add(region(guest, 4)).unwrap_err();
        assert!(
            matches!(refusal, MemoryError::Overlap { other: 0x4000, .. }),
            "{refusal}"
        );
    }
    memory.add(region(0, 4)).unwrap();
    memory.add(region(0x8000, 4)).unwrap();
    let refusal = memory.remove(GuestAddress(0x5000)).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "no region of guest memory begins at 0x5000; regions begin at 0x0, 0x4000, 0x8000"
    );
}

#[test]
fn a_region_that_is_no_whole_pages_or_wraps_is_refused() {
    let shapes = [
        (0, 0),
        (0, 5),
        (7, PAGE),
        (u64::MAX - PAGE + 1, PAGE),
        (PAGE, u64::MAX - PAGE + 1),
        (1 << 63, PAGE),
    ];
    for (guest, size) in shapes {
        let refusal = RamRegion::map("shape", &RegionSpec::new(GuestAddress(guest), size)).unwrap_err();
        assert!(
            matches!(refusal, MemoryError::Shape { .. }),
            "{guest:#x} {size:#x}: {refusal}"
        );
    }
    let outside = RegionSpec {
        nodes: vec![(0..2 * PAGE, 0)],
        ..RegionSpec::new(GuestAddress(0), PAGE)
    };
    assert!(matches!(
        RamRegion::map("shape", &outside),
        Err(MemoryError::Shape { .. })
    ));
}

#[test]
fn a_removed_region_goes_back_to_the_host_when_its_last_user_lets_go() {
    let name = "regions-goes-back";
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains(name);
    let memory = GuestMemory::new();
    let spec = RegionSpec::new(GuestAddress(0), PAGE);
    memory.add(RamRegion::map(name, &spec).unwrap()).unwrap();
    let before = memory.as_vm_memory();
    let removed = memory.remove(GuestAddress(0)).unwrap();
    assert_eq!((removed.guest, removed.size), (GuestAddress(0), PAGE));
    drop(removed);
    assert!(mapped(), "a snapshot still uses it");
    drop(before);
    assert!(!mapped());
}

#[test]
fn a_panicking_subscriber_leaves_the_others_without_the_region() {
    struct Panics;
    impl MemorySubscriber for Panics {
        fn name(&self) -> &str {
            "panics"
        }
        fn attach(&self, _: &Region) -> Result<(), Box<dyn Error + Send + Sync>> {
            std::panic::resume_unwind(Box::new("stop"))
        }
        fn detach(&self, _: &Region) {}
    }
    let (memory, log) = (GuestMemory::new(), Arc::default());
    let calm = Mapper::new("calm", &log, 9);
    let _calm = memory.subscribe(calm.clone()).unwrap();
    let _panics = memory.subscribe(Arc::new(Panics)).unwrap();
    let add = std::panic::AssertUnwindSafe(|| memory.add(region(0, 1)).map(drop));
    assert!(std::panic::catch_unwind(add).is_err());
    assert!(calm.map().is_empty() && memory.regions().is_empty());
}

#[test]
fn a_subscriber_may_read_and_write_while_it_is_attached() {
    struct Reader(GuestMemory);
    impl MemorySubscriber for Reader {
        fn name(&self) -> &str {
            "reader"
        }
        fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>> {
            self.0.write(region.guest, &[9])?;
            Ok(())
        }
        fn detach(&self, region: &Region) {
            let mut byte = [0];
            self.0.read(region.guest, &mut byte).unwrap();
            assert_eq!(byte, [9], "it is RAM until everybody has let go");
        }
    }
    let memory = GuestMemory::new();
    memory.add(region(0, 1)).unwrap();
    let _reader = memory.subscribe(Arc::new(Reader(memory.clone()))).unwrap();
    memory.remove(GuestAddress(0)).unwrap();
}

#[test]
fn readers_take_no_harm_from_regions_that_come_and_go() {
    let memory = GuestMemory::new();
    memory.add(region(0, 1)).unwrap();
    let stop = AtomicBool::new(false);
    let (seen, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // From the region that stays into the one that comes and goes.
                    let mut bytes = [0xff; 16];
                    let counter = match memory.read(GuestAddress(PAGE - 8), &mut bytes) {
                        Ok(()) => {
                            assert_eq!(bytes, [0; 16], "a region is fresh or not there");
                            &seen
                        }
                        Err(_) => &refused,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut rounds = 0;
        // Until both have been met often; the bound is a hang guard.
        while rounds < 200
            || (rounds < 1_000_000 && [&seen, &refused].iter().any(|n| n.load(Ordering::Relaxed) < 50))
        {
            memory.add(region(PAGE, 1)).unwrap();
            std::thread::yield_now();
            memory.remove(GuestAddress(PAGE)).unwrap();
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(seen.into_inner() >= 50 && refused.into_inner() >= 50);
}

/// One step of the model.
#[derive(Debug, Clone)]
enum Step {
    /// A newcomer that accepts so many regions in its life.
    Subscribe(usize),
    Unsubscribe(prop::sample::Index),
    /// So many pages at that page.
    Add(u64, u64),
    Remove(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => prop_oneof![0usize..6, Just(1000)].prop_map(Step::Subscribe),
        1 => any::<prop::sample::Index>().prop_map(Step::Unsubscribe),
        4 => (0u64..12, 1u64..4).prop_map(|(page, pages)| Step::Add(page, pages)),
        2 => (0u64..12).prop_map(Step::Remove),
    ]
}

/// What must be true after any steps, kept by the plainest means.
#[derive(Default)]
struct Model {
    regions: BTreeMap<u64, u64>,
    /// Who is attached, and how many regions it still accepts.
    attached: Vec<(Arc<Mapper>, usize, Subscription)>,
    gone: Vec<Arc<Mapper>>,
}

impl Model {
    fn take(&mut self, memory: &GuestMemory, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Subscribe(accepts) => {
                let newcomer = Mapper::new("one", &Arc::default(), accepts);
                let fits = self.regions.len() <= accepts;
                let subscribed = memory.subscribe(newcomer.clone());
                prop_assert_eq!(subscribed.is_ok(), fits);
                match subscribed {
                    Ok(held) => self.attached.push((newcomer, accepts - self.regions.len(), held)),
                    Err(_) => self.gone.push(newcomer),
                }
            }
            Step::Unsubscribe(which) if !self.attached.is_empty() => {
                let (one, _, held) = self.attached.remove(which.index(self.attached.len()));
                drop(held);
                self.gone.push(one);
            }
            Step::Unsubscribe(_) => {}
            Step::Add(page, pages) => self.add(memory, page * PAGE, pages * PAGE)?,
            Step::Remove(page) => {
                let known = self.regions.remove(&(page * PAGE)).is_some();
                prop_assert_eq!(memory.remove(GuestAddress(page * PAGE)).is_ok(), known);
            }
        }
        Ok(())
    }

    fn add(&mut self, memory: &GuestMemory, start: u64, size: u64) -> Result<(), TestCaseError> {
        let free = self
            .regions
            .iter()
            .all(|(other, length)| start + size <= *other || other + length <= start);
        let willing = self.attached.iter().all(|(_, accepts, _)| *accepts > 0);
        let added = memory.add(region(start, size / PAGE));
        prop_assert_eq!(added.is_ok(), free && willing);
        if free {
            // Those before the first that refuses have spent one of theirs, also if it was rolled back.
            for (_, accepts, _) in &mut self.attached {
                if *accepts == 0 {
                    break;
                }
                *accepts -= 1;
            }
        }
        if added.is_ok() {
            self.regions.insert(start, size);
        }
        Ok(())
    }

    fn agrees(&self, memory: &GuestMemory) -> Result<(), TestCaseError> {
        let regions: BTreeMap<_, _> = memory.regions().iter().map(|r| (r.guest.0, r.size)).collect();
        prop_assert_eq!(&regions, &self.regions);
        for (one, ..) in &self.attached {
            prop_assert_eq!(&one.map(), &self.regions);
        }
        prop_assert!(self.gone.iter().all(|one| one.map().is_empty()));
        prop_assert_eq!(memory.subscribers().len(), self.attached.len());
        for page in 0..16 {
            let mapped = self
                .regions
                .iter()
                .any(|(start, size)| (*start..start + size).contains(&(page * PAGE)));
            prop_assert_eq!(memory.contains(GuestAddress(page * PAGE), PAGE), mapped);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn every_subscriber_knows_what_the_model_knows(steps in prop::collection::vec(step(), 1..40)) {
        let (memory, mut model) = (GuestMemory::new(), Model::default());
        for step in steps {
            model.take(&memory, step)?;
            model.agrees(&memory)?;
        }
        for (one, _, held) in model.attached.drain(..) {
            drop(held);
            prop_assert!(one.map().is_empty());
        }
    }
}
