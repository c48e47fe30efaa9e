//! Guest memory: nothing outside RAM is touched, and every subscriber sees every region exactly once.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::error::Error;
use std::sync::{Arc, Mutex};

use pellucid_partition::{
    GuestAddress, GuestMemory, HostAddress, Layout, MemoryError, MemorySubscriber, PageSize, Region,
};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Sparse memory on both sides of the hole: 3 GiB below 4 GiB and 64 MiB above, none of it populated.
fn two_regions() -> GuestMemory {
    GuestMemory::map(
        "memory-test",
        &Layout::new(3 * GIB + 64 * MIB, 39).unwrap(),
        PageSize::Size4K,
    )
    .unwrap()
}

fn one_region() -> GuestMemory {
    GuestMemory::map(
        "memory-test",
        &Layout::new(64 * MIB, 39).unwrap(),
        PageSize::Size4K,
    )
    .unwrap()
}

/// Writes down what it is told, and refuses the regions from a number on.
struct Scribe {
    name: &'static str,
    accepts: usize,
    log: Mutex<Vec<String>>,
}

impl Scribe {
    fn new(name: &'static str, accepts: usize) -> Arc<Self> {
        Arc::new(Self {
            name,
            accepts,
            log: Mutex::default(),
        })
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl MemorySubscriber for Scribe {
    fn name(&self) -> &str {
        self.name
    }

    fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut log = self.log.lock().unwrap();
        if log.len() >= self.accepts {
            return Err("no room".into());
        }
        log.push(format!("+{:#x}", region.guest.0));
        Ok(())
    }

    fn detach(&self, region: &Region) {
        self.log.lock().unwrap().push(format!("-{:#x}", region.guest.0));
    }
}

#[test]
fn a_process_that_is_given_the_file_cannot_cut_it_short() {
    let memory = one_region();
    for region in memory.regions() {
        let given = region.file().try_clone().unwrap();
        for size in [0, region.size - 4096, region.size + 4096] {
            let refused = given.set_len(size).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EPERM), "{size}");
        }
        assert_eq!(given.metadata().unwrap().len(), region.size);
    }
}

#[test]
fn regions_lie_where_the_layout_says_each_in_a_file_of_its_own() {
    let memory = two_regions();
    let regions: Vec<_> = memory.regions().iter().map(|r| (r.guest.0, r.size)).collect();
    assert_eq!(regions, [(0, 3 * GIB), (4 * GIB, 64 * MIB)]);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    for region in memory.regions() {
        assert_eq!(region.file().metadata().unwrap().len(), region.size);
        let start = format!("{:x}-", region.host.0);
        let line = maps.lines().find(|line| line.starts_with(&start)).unwrap();
        assert!(
            line.contains("rw-s") && line.contains("memfd:memory-test"),
            "{line}"
        );
    }
}

#[test]
fn what_is_written_on_either_side_of_the_hole_is_read_back() {
    let memory = two_regions();
    for address in [0, 3 * GIB - 5, 4 * GIB, 4 * GIB + 64 * MIB - 5] {
        memory.write(GuestAddress(address), &[1, 2, 3, 4, 5]).unwrap();
        let mut back = [0; 5];
        memory.read(GuestAddress(address), &mut back).unwrap();
        assert_eq!(back, [1, 2, 3, 4, 5], "at {address:#x}");
    }
}

#[test]
fn fresh_memory_is_zero_and_clones_are_the_same_memory() {
    let memory = one_region();
    let mut byte = [0xff];
    memory.read(GuestAddress(0x1234), &mut byte).unwrap();
    assert_eq!(byte, [0]);
    memory.clone().write(GuestAddress(0x1234), &[7]).unwrap();
    memory.read(GuestAddress(0x1234), &mut byte).unwrap();
    assert_eq!(byte, [7]);
}

#[test]
fn an_access_that_is_not_all_ram_is_refused_and_touches_nothing() {
    let memory = two_regions();
    for address in [
        3 * GIB - 2,
        3 * GIB,
        4 * GIB - 2,
        4 * GIB + 64 * MIB - 2,
        u64::MAX - 1,
        u64::MAX,
    ] {
        let refusal = memory.write(GuestAddress(address), &[0xaa; 4]).unwrap_err();
        assert!(matches!(refusal, MemoryError::Outside { size: 4, .. }));
        assert!(
            refusal.to_string().contains(&format!("{address:#x}")),
            "{refusal}"
        );
        let mut data = [0x55; 4];
        assert!(memory.read(GuestAddress(address), &mut data).is_err());
        assert_eq!(data, [0x55; 4]);
    }
    for edge in [3 * GIB - 2, 4 * GIB + 64 * MIB - 2] {
        let mut left = [0xff; 2];
        memory.read(GuestAddress(edge), &mut left).unwrap();
        assert_eq!(left, [0; 2], "half of a refused write arrived at {edge:#x}");
    }
}

#[test]
fn contains_says_what_read_does() {
    let memory = two_regions();
    assert!(memory.contains(GuestAddress(0), 3 * GIB));
    assert!(!memory.contains(GuestAddress(0), 3 * GIB + 1));
    assert!(!memory.contains(GuestAddress(3 * GIB), 1));
    assert!(memory.contains(GuestAddress(4 * GIB), 64 * MIB));
    assert!(!memory.contains(GuestAddress(u64::MAX), u64::MAX));
}

#[test]
fn a_subscriber_is_told_of_every_region_and_detached_in_the_opposite_order() {
    let memory = two_regions();
    let scribe = Scribe::new("iommu", 9);
    let subscription = memory.subscribe(scribe.clone()).unwrap();
    assert_eq!(scribe.log(), ["+0x0", "+0x100000000"]);
    assert_eq!(memory.subscribers(), ["iommu"]);
    drop(subscription);
    assert_eq!(scribe.log()[2..], ["-0x100000000", "-0x0"]);
    assert!(memory.subscribers().is_empty());
}

#[test]
fn a_late_subscriber_misses_nothing() {
    let memory = two_regions();
    let _early = memory.subscribe(Scribe::new("early", 9)).unwrap();
    memory.write(GuestAddress(0), &[1]).unwrap();
    let late = Scribe::new("late", 9);
    let _late = memory.subscribe(late.clone()).unwrap();
    assert_eq!(late.log().len(), 2);
    assert_eq!(memory.subscribers(), ["early", "late"]);
}

#[test]
fn a_subscriber_that_refuses_a_region_keeps_none() {
    let memory = two_regions();
    let scribe = Scribe::new("narrow iommu", 1);
    let refusal = memory
        .subscribe(scribe.clone())
        .map(drop)
        .unwrap_err()
        .to_string();
    assert_eq!(
        scribe.log(),
        ["+0x0", "-0x0"],
        "the refused region is not detached, the others are"
    );
    assert_eq!(
        refusal,
        "narrow iommu: guest memory at 0x100000000, 0x4000000 bytes: no room"
    );
}

#[test]
fn a_refused_subscriber_does_not_strike_its_namesake_off_the_list() {
    let memory = two_regions();
    let _good = memory.subscribe(Scribe::new("iommu", 9)).unwrap();
    assert!(memory.subscribe(Scribe::new("iommu", 1)).is_err());
    assert_eq!(memory.subscribers(), ["iommu"]);
}

#[test]
fn memory_outlives_its_handle_while_somebody_subscribes() {
    struct Reader(Mutex<Option<HostAddress>>);
    impl MemorySubscriber for Reader {
        fn name(&self) -> &str {
            "reader"
        }
        fn attach(&self, region: &Region) -> Result<(), Box<dyn Error + Send + Sync>> {
            *self.0.lock().unwrap() = Some(region.host);
            Ok(())
        }
        fn detach(&self, _: &Region) {
            let host = self.0.lock().unwrap().unwrap().0;
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            assert!(
                maps.contains(&format!("{host:x}-")),
                "unmapped before it was detached"
            );
        }
    }
    let memory = one_region();
    let subscription = memory.subscribe(Arc::new(Reader(Mutex::default()))).unwrap();
    drop(memory);
    drop(subscription);
}

#[test]
fn dropped_memory_is_unmapped() {
    let memory = one_region();
    let host = format!("{:x}-", memory.regions()[0].host.0);
    let mapped = || {
        std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .lines()
            .any(|l| l.starts_with(&host) && l.contains("memory-dropped"))
    };
    drop(memory);
    assert!(!mapped());
}

#[test]
fn a_name_that_the_kernel_does_not_take_is_a_named_refusal() {
    let layout = Layout::new(64 * MIB, 39).unwrap();
    for name in ["x".repeat(300), "a\0b".to_owned()] {
        let refusal = GuestMemory::map(&name, &layout, PageSize::Size4K)
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains("64 MiB of guest memory in 4k pages"),
            "{refusal}"
        );
    }
}

#[test]
fn huge_pages_that_the_pool_does_not_have_are_refused_by_size() {
    let layout = Layout::new(512 * GIB, 48).unwrap();
    let refusal = GuestMemory::map("huge", &layout, PageSize::Size1G).map(drop);
    let text = refusal.unwrap_err().to_string();
    assert!(
        text.contains("bytes of guest memory could not be mapped"),
        "{text}"
    );
}

proptest! {
    #[test]
    fn reads_and_writes_agree_with_a_plain_array(
        writes in prop::collection::vec((0u64..64 * 1024, prop::collection::vec(any::<u8>(), 1..40)), 1..40)
    ) {
        let memory = one_region();
        let mut model = vec![0u8; 64 * 1024 + 64];
        for (address, data) in &writes {
            memory.write(GuestAddress(*address), data).unwrap();
            model[*address as usize..][..data.len()].copy_from_slice(data);
        }
        let mut whole = vec![0; model.len()];
        memory.read(GuestAddress(0), &mut whole).unwrap();
        prop_assert_eq!(whole, model);
    }
}
