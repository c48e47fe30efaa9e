//! Guest memory from the hugetlb pools. As root a test reserves what it needs and puts the pool back; else it says what it left out.
//!
//! No guest runs here: huge pages behind a guest have crashed the emulated server, so this stays on the developer's own machine.
#![allow(clippy::unwrap_used, reason = "a test")]

mod pool;

use std::collections::BTreeMap;
use std::sync::Mutex;

use pellucid_partition::{GuestAddress, GuestMemory, MemoryError, PageSize, Progress, RamRegion, RegionSpec};
use pool::Pool;

const MIB: u64 = 1 << 20;

fn spec(pages: PageSize, count: u64) -> RegionSpec {
    RegionSpec {
        pages,
        ..RegionSpec::new(GuestAddress(0), count * pages.bytes())
    }
}

#[test]
fn two_mebibyte_pages_are_taken_counted_and_given_back() {
    let Some(pool) = Pool::with(PageSize::Size2M, 40) else {
        return;
    };
    let free = pool.free();
    let bound = RegionSpec {
        nodes: vec![(0..80 * MIB, 0)],
        ..spec(PageSize::Size2M, 40)
    };
    let memory = GuestMemory::of("huge-2m", &[bound]).unwrap();
    let seen = Mutex::new(Vec::new());
    memory
        .populate(&|Progress { done, .. }| seen.lock().unwrap().push(done))
        .unwrap();
    assert_eq!(*seen.lock().unwrap().last().unwrap(), 80 * MIB);
    assert_eq!(pool.free(), free - 40);
    memory.lock().unwrap();
    let residence = memory.residence().unwrap();
    let whole = (80 * MIB, 80 * MIB, 80 * MIB, 80 * MIB);
    assert_eq!(
        (
            residence.size,
            residence.resident,
            residence.huge,
            residence.locked
        ),
        whole
    );
    assert_eq!(residence.nodes, BTreeMap::from([(0, 80 * MIB)]));
    residence.well_placed().unwrap();
    memory.write(GuestAddress(2 * MIB - 2), &[1, 2, 3, 4]).unwrap();
    let mut back = [0; 4];
    memory.read(GuestAddress(2 * MIB - 2), &mut back).unwrap();
    assert_eq!(back, [1, 2, 3, 4]);
    memory.remove(GuestAddress(0)).unwrap();
    assert_eq!(pool.free(), free, "a removed region is back in the pool");
}

#[test]
fn a_gibibyte_page_is_taken_whole_and_given_back() {
    let Some(pool) = Pool::with(PageSize::Size1G, 1) else {
        return;
    };
    let free = pool.free();
    let memory = GuestMemory::of("huge-1g", &[spec(PageSize::Size1G, 1)]).unwrap();
    let calls = Mutex::new(0);
    memory.populate(&|_| *calls.lock().unwrap() += 1).unwrap();
    assert_eq!(*calls.lock().unwrap(), 1, "a page is one piece");
    let residence = memory.residence().unwrap();
    assert_eq!((residence.resident, residence.huge), (1 << 30, 1 << 30));
    assert_eq!(residence.nodes, BTreeMap::from([(0, 1 << 30)]));
    memory.write(GuestAddress((1 << 30) - 1), &[7]).unwrap();
    drop(memory);
    assert_eq!(pool.free(), free);
}

#[test]
fn pages_that_the_pool_does_not_have_are_refused_when_mapped_and_never_later() {
    let Some(pool) = Pool::with(PageSize::Size2M, 2) else {
        return;
    };
    let free = pool.free();
    let refusal = RamRegion::map("huge-few", &spec(PageSize::Size2M, free + 1)).unwrap_err();
    assert!(matches!(refusal, MemoryError::Map { .. }), "{refusal}");
    let first = RamRegion::map("huge-few", &spec(PageSize::Size2M, free)).unwrap();
    assert!(
        RamRegion::map("huge-few", &spec(PageSize::Size2M, 1)).is_err(),
        "they are spoken for"
    );
    drop(first);
    assert_eq!(pool.free(), free);
}

#[test]
fn a_region_that_is_not_whole_huge_pages_is_refused_without_a_pool() {
    let uneven = RegionSpec {
        size: 3 * MIB,
        ..spec(PageSize::Size2M, 1)
    };
    let refusal = RamRegion::map("huge-uneven", &uneven).unwrap_err();
    assert!(
        refusal.to_string().contains("are not whole 2m pages"),
        "{refusal}"
    );
}
