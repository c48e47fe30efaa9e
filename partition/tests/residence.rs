//! What was asked of memory is proved by the kernel's own account: resident, huge, locked, on its node.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pellucid_partition::{
    GuestAddress, GuestMemory, MemoryError, PopulateError, Progress, RamRegion, RegionSpec, Residence,
};

const MIB: u64 = 1 << 20;

fn memory(name: &str, nodes: Vec<(std::ops::Range<u64>, u32)>) -> GuestMemory {
    let below = RegionSpec {
        nodes: nodes.clone(),
        ..RegionSpec::new(GuestAddress(0), 32 * MIB)
    };
    let above = RegionSpec::new(GuestAddress(4 << 30), 16 * MIB);
    GuestMemory::of(name, &[below, above]).unwrap()
}

/// The `smaps` entries of what is mapped under that name, whole.
fn entries(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let of_entry = |entry: &str| {
        entry
            .lines()
            .next()
            .is_some_and(|head| head.contains(&format!("/memfd:{name} ")))
    };
    // An entry ends with its flags.
    let mut entries: Vec<String> = vec![String::new()];
    for line in text.lines() {
        if let Some(last) = entries.last_mut() {
            *last += line;
            *last += "\n";
        }
        if line.starts_with("VmFlags:") {
            entries.push(String::new());
        }
    }
    entries.retain(|entry| of_entry(entry));
    entries
}

#[test]
fn memory_is_nowhere_before_it_is_populated_and_all_there_after() {
    let memory = memory("residence-whole", Vec::new());
    let before = memory.residence().unwrap();
    assert_eq!((before.size, before.resident, before.huge), (48 * MIB, 0, 0));
    memory.populate(&|_| ()).unwrap();
    let after = memory.residence().unwrap();
    assert_eq!((after.size, after.resident), (48 * MIB, 48 * MIB));
    assert_eq!(after.nodes.values().sum::<u64>(), 48 * MIB);
    assert!(after.huge <= after.resident && after.huge.is_multiple_of(2 * MIB));
    assert_eq!(after.locked, 0);
}

#[test]
fn huge_pages_are_advised_before_anything_is_populated() {
    let memory = memory("residence-advised", Vec::new());
    let advised = entries("residence-advised");
    assert_eq!(advised.len(), 2);
    if std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        for entry in advised {
            let flags = entry.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
            assert!(flags.split(' ').any(|flag| flag == "hg"), "{flags}");
            assert!(entry.contains("\nRss:                   0 kB\n"), "{entry}");
        }
    }
    drop(memory);
}

#[test]
fn bound_memory_is_on_its_node_and_the_rest_anywhere() {
    // Node 0 is the one that every machine has.
    let memory = memory("residence-bound", vec![(8 * MIB..24 * MIB, 0)]);
    memory.populate(&|_| ()).unwrap();
    let residence = memory.residence().unwrap();
    assert_eq!(residence.misplaced, []);
    assert!(residence.nodes[&0] >= 16 * MIB);
    residence.well_placed().unwrap();
    // The kernel knows of the part: a mapping with a policy of its own.
    let host = memory.regions()[0].host.0;
    let numa_maps = std::fs::read_to_string("/proc/self/numa_maps").unwrap();
    let line = |host: u64| {
        numa_maps
            .lines()
            .find(|line| line.starts_with(&format!("{host:x} ")))
            .unwrap()
            .to_owned()
    };
    assert!(line(host).contains(" default "));
    assert!(line(host + 8 * MIB).contains(" bind:0 "));
    assert!(line(host + 24 * MIB).contains(" default "));
}

#[test]
fn a_node_that_is_not_there_is_refused_by_number() {
    for node in [1023, 5000] {
        let spec = RegionSpec {
            nodes: vec![(0..2 * MIB, node)],
            ..RegionSpec::new(GuestAddress(0), 2 * MIB)
        };
        let refusal = RamRegion::map("residence-nowhere", &spec).unwrap_err();
        assert!(
            matches!(refusal, MemoryError::Bind { node: asked, .. } if asked == node),
            "{refusal}"
        );
    }
}

#[test]
fn a_region_is_populated_and_judged_before_it_is_added() {
    let region = RamRegion::map("residence-alone", &RegionSpec::new(GuestAddress(0), 4 * MIB)).unwrap();
    region.populate(&|_| ()).unwrap();
    let alone = region.residence().unwrap();
    assert_eq!((alone.size, alone.resident), (4 * MIB, 4 * MIB));
    let memory = GuestMemory::new();
    memory.add(region).unwrap();
    assert_eq!(memory.residence().unwrap(), alone);
    memory.remove(GuestAddress(0)).unwrap();
    assert_eq!(memory.residence().unwrap(), Residence::default());
}

#[test]
fn progress_never_falls_and_ends_with_the_whole() {
    let spec = RegionSpec::new(GuestAddress(0), 320 * MIB);
    let memory = GuestMemory::of("residence-progress", &[spec]).unwrap();
    let seen = Mutex::new(Vec::<Progress>::new());
    memory
        .populate(&|progress| seen.lock().unwrap().push(progress))
        .unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.len() >= 5, "{seen:?}");
    assert!(
        seen.windows(2)
            .all(|pair| pair[0].done < pair[1].done && pair[0].elapsed <= pair[1].elapsed)
    );
    let last = seen.last().unwrap();
    assert_eq!(
        (last.done, last.total, last.remaining()),
        (320 * MIB, 320 * MIB, Some(Duration::ZERO))
    );
    assert!(last.rate() > 0);
}

#[test]
fn rate_and_remaining_time_follow_from_bytes_and_seconds() {
    let at = |done, seconds| Progress {
        done,
        total: 100 * MIB,
        elapsed: Duration::from_secs(seconds),
    };
    assert_eq!(at(25 * MIB, 5).rate(), 5 * MIB);
    assert_eq!(at(25 * MIB, 5).remaining(), Some(Duration::from_secs(15)));
    assert_eq!((at(0, 5).rate(), at(0, 5).remaining()), (0, None));
    assert_eq!(at(100 * MIB, 0).remaining(), Some(Duration::ZERO));
    let most = Progress {
        done: 1,
        total: u64::MAX,
        elapsed: Duration::MAX,
    };
    assert_eq!(
        (most.rate(), most.remaining()),
        (0, Some(Duration::from_nanos(u64::MAX)))
    );
}

/// One test at a time changes or needs the process's limit on locked memory.
static LIMIT: Mutex<()> = Mutex::new(());

#[test]
fn locked_memory_is_locked() {
    let _alone = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
    let memory = GuestMemory::of("residence-locked", &[RegionSpec::new(GuestAddress(0), 4 * MIB)]).unwrap();
    memory.populate(&|_| ()).unwrap();
    memory.lock().unwrap();
    let residence = memory.residence().unwrap();
    assert_eq!((residence.resident, residence.locked), (4 * MIB, 4 * MIB));
    assert!(entries("residence-locked")[0].contains("\nLocked:             4096 kB\n"));
}

#[test]
fn locking_beyond_the_limit_is_refused_with_the_kernels_answer() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use rustix::thread::CapabilitySet;
    let _alone = LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = getrlimit(Resource::Memlock);
    let lower = Rlimit {
        current: Some(MIB),
        ..limits
    };
    setrlimit(Resource::Memlock, lower).unwrap();
    // Capabilities are a thread's own: the others keep theirs.
    let refused = std::thread::spawn(|| {
        let mut capabilities = rustix::thread::capabilities(None).unwrap();
        capabilities.effective.remove(CapabilitySet::IPC_LOCK);
        rustix::thread::set_capabilities(None, capabilities).unwrap();
        let memory =
            GuestMemory::of("residence-limit", &[RegionSpec::new(GuestAddress(0), 2 * MIB)]).unwrap();
        memory.lock().unwrap_err()
    });
    let refusal = refused.join().unwrap();
    setrlimit(Resource::Memlock, limits).unwrap();
    assert!(matches!(refusal, PopulateError::Lock { guest: 0, .. }));
    assert!(refusal.to_string().contains("ulimit -l"), "{refusal}");
}
