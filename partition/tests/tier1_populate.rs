//! A populated partition: its memory is all there, the guest sees it, and everything goes back.
#![allow(clippy::unwrap_used, reason = "a test")]

mod guest;

use std::sync::{Arc, Mutex};

use guest::{CODE, Exit, LOAD, restart, run, vcpu};
use pellucid_partition::{
    Gsi, GuestAddress, GuestMemory, Inventory, LastHit, MmioHandler, NodeRequest, PartitionSpec, Plan,
    Populated, Progress, RamRegion, RegionSpec, StateDir, Vm,
};
use tempfile::TempDir;

const SIZE: u64 = 80 << 20;

fn state() -> (TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    (directory, state)
}

fn plan(name: &str) -> Plan {
    Plan::fit(
        &Inventory::survey().unwrap(),
        &PartitionSpec::new(name, 1, SIZE).unwrap(),
    )
    .unwrap()
}

fn populated(name: &str, state: &StateDir) -> Populated {
    plan(name).reserve(state).unwrap().populate(&|_| {}).unwrap()
}

/// A line of the `smaps` entry of the memory of that name, in bytes; `None` if nothing of that name is mapped.
fn smaps(name: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = text
        .lines()
        .skip_while(|line| !line.contains(&format!("/memfd:{name} ")));
    let line = lines.find(|line| line.starts_with(key))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes << 10)
}

#[test]
fn all_memory_is_resident_before_the_guest_runs() {
    let (_directory, state) = state();
    let partition = populated("resident", &state);
    assert_eq!(smaps("resident", "Rss:"), Some(SIZE));
    assert_eq!(partition.memory().regions().len(), 1);
}

/// Whether the kernel makes huge pages of shared memory on request: `MADV_COLLAPSE` is there, and nobody forbids it.
fn host_gives_huge_pages() -> bool {
    let policy =
        std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_default();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|text| text.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (6, 1) && !policy.is_empty() && !policy.contains("[deny]")
}

#[test]
fn memory_is_in_huge_pages_where_the_host_gives_them_and_all_there_where_not() {
    let (_directory, state) = state();
    let _partition = populated("huge", &state);
    let huge = smaps("huge", "ShmemPmdMapped:").unwrap();
    // A fragmented host may refuse some.
    let least = if host_gives_huge_pages() { SIZE / 2 } else { 0 };
    assert!(huge >= least && huge.is_multiple_of(2 << 20), "{huge} of {SIZE}");
    assert_eq!(smaps("huge", "Rss:"), Some(SIZE));
}

#[test]
fn progress_counts_every_byte_once() {
    let (_directory, state) = state();
    let seen = Mutex::new(Vec::new());
    let watch = |progress: Progress| seen.lock().unwrap().push((progress.done, progress.total));
    let partition = plan("progress")
        .reserve(&state)
        .unwrap()
        .populate(&watch)
        .unwrap();
    let mut seen = seen.into_inner().unwrap();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [(seen[0].0, SIZE), (SIZE, SIZE)],
        "two pieces, the second completes"
    );
    drop(partition);
}

#[test]
fn the_kernels_account_of_the_memory_is_kept_with_it() {
    let (_directory, state) = state();
    let spec = PartitionSpec::new("proved", 1, SIZE).unwrap();
    let spec = spec.with_nodes(NodeRequest::node(0));
    let plan = Plan::fit(&Inventory::survey().unwrap(), &spec).unwrap();
    let partition = plan.reserve(&state).unwrap().populate(&|_| {}).unwrap();
    let proved = partition.residence();
    assert_eq!((proved.size, proved.resident, proved.locked), (SIZE, SIZE, 0));
    assert_eq!(Some(proved.huge), smaps("proved", "ShmemPmdMapped:"));
    assert_eq!(proved.nodes, std::collections::BTreeMap::from([(0, SIZE)]));
    assert_eq!(proved.misplaced, []);
    assert_eq!(partition.memory().residence().unwrap(), *proved);
}

#[test]
fn memory_for_devices_is_locked_or_refused_before_it_is_taken() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let locked = |name: &str| {
        let inventory = Inventory {
            memlock: None,
            ..Inventory::survey().unwrap()
        };
        let spec = PartitionSpec::new(name, 1, SIZE).unwrap().locked();
        Plan::fit(&inventory, &spec).unwrap()
    };
    let (_directory, state) = state();
    // Without CAP_IPC_LOCK, which is a thread's own, and so under the limit, which nobody else here needs.
    let limits = getrlimit(Resource::Memlock);
    let limit = |bytes| Rlimit {
        current: bytes,
        maximum: None,
    };
    if setrlimit(Resource::Memlock, limit(None)).is_err() {
        eprintln!("left out: only root raises the limit on locked memory");
        return;
    }
    let reserved = ["refused", "left to the device", "here"]
        .map(|name| locked(&name.replace(' ', "-")).reserve(&state).unwrap());
    let outcomes = std::thread::spawn(move || {
        let mut own = capabilities(None).unwrap();
        own.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, own).unwrap();
        let [refused, left, here] = reserved;
        let within = |bytes: u64, reserved: pellucid_partition::Reserved| {
            setrlimit(Resource::Memlock, limit(Some(bytes))).unwrap();
            reserved
                .populate(&|_| {})
                .map(|partition| partition.residence().locked)
        };
        let refused = within(SIZE - 1, refused).unwrap_err().to_string();
        assert!(smaps("refused", "Rss:").is_none());
        (
            refused,
            within(SIZE, left).unwrap(),
            within(2 * SIZE, here).unwrap(),
        )
    });
    let outcomes = outcomes.join();
    setrlimit(Resource::Memlock, limits).unwrap();
    let (refused, left, here) = outcomes.unwrap();
    assert!(
        refused.contains("80 MiB of guest memory cannot be locked"),
        "{refused}"
    );
    assert!(refused.contains("RLIMIT_MEMLOCK is 79 MiB"), "{refused}");
    assert_eq!((left, here), (0, SIZE), "VFIO charges for what it locks again");
}

#[test]
fn the_guest_loses_a_removed_region_and_finds_an_added_one() {
    let vm = Arc::new(Vm::create().unwrap());
    let region =
        |guest, size| RamRegion::map("hotplug", &RegionSpec::new(GuestAddress(guest), size)).unwrap();
    let memory = GuestMemory::new();
    memory.add(region(0, 0x2000)).unwrap();
    memory.add(region(0x2000, 0x1000)).unwrap();
    let shown = memory.show_to(&vm).unwrap();
    memory.write(GuestAddress(CODE), &LOAD).unwrap();
    memory.write(GuestAddress(0x2000), &[0x11]).unwrap();
    let mut vcpu = vcpu(&vm);
    assert_eq!(run(&mut vcpu), Exit::Out(0x10, 0x11));
    memory.remove(GuestAddress(0x2000)).unwrap();
    restart(&vcpu);
    assert_eq!(run(&mut vcpu), Exit::Load(0x2000));
    memory.add(region(0x2000, 0x2000)).unwrap();
    memory.write(GuestAddress(0x2000), &[0x22]).unwrap();
    // The first access is still answered, as by a device; then the guest starts anew.
    let _ = run(&mut vcpu);
    restart(&vcpu);
    assert_eq!(run(&mut vcpu), Exit::Out(0x10, 0x22));
    drop(shown);
    assert!(memory.subscribers().is_empty());
}

#[test]
fn the_guest_sees_what_was_written_to_its_memory() {
    let (_directory, state) = state();
    let partition = populated("seen", &state);
    partition.memory().write(GuestAddress(CODE), &LOAD).unwrap();
    partition.memory().write(GuestAddress(0x2000), &[0xa7]).unwrap();
    assert_eq!(run(&mut vcpu(partition.vm())), Exit::Out(0x10, 0xa7));
}

#[test]
fn a_panicking_progress_report_gives_everything_back() {
    let (_directory, state) = state();
    let reserved = plan("panics").reserve(&state).unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        reserved
            .populate(&|_| std::panic::resume_unwind(Box::new("stop")))
            .map(drop)
    }));
    assert!(outcome.is_err());
    assert_eq!(smaps("panics", "Rss:"), None);
    assert!(state.records().unwrap().is_empty());
}

#[test]
fn release_gives_memory_and_claims_back() {
    let (_directory, state) = state();
    let partition = populated("released", &state);
    assert_eq!(state.records().unwrap().len(), 1);
    assert!(plan("released").reserve(&state).is_err(), "its name is taken");
    partition.release().unwrap();
    assert_eq!(smaps("released", "Rss:"), None);
    assert!(state.records().unwrap().is_empty());
    assert!(plan("released").reserve(&state).is_ok());
}

#[test]
fn a_dropped_partition_gives_back_as_much() {
    let (_directory, state) = state();
    drop(populated("dropped", &state));
    assert_eq!(smaps("dropped", "Rss:"), None);
    assert!(state.records().unwrap().is_empty());
}

#[test]
fn two_partitions_live_beside_each_other() {
    let (_directory, state) = state();
    let (one, two) = (populated("one", &state), populated("two", &state));
    one.memory().write(GuestAddress(0), &[1]).unwrap();
    two.memory().write(GuestAddress(0), &[2]).unwrap();
    let mut byte = [0];
    one.memory().read(GuestAddress(0), &mut byte).unwrap();
    assert_eq!(byte, [1]);
}

#[test]
fn buses_and_interrupts_are_ready_for_devices() {
    struct Device;
    impl MmioHandler for Device {
        fn read(&self, _: u64, data: &mut [u8]) {
            data.fill(0x42);
        }
        fn write(&self, _: u64, _: &[u8]) {}
    }
    let (_directory, state) = state();
    let partition = populated("devices", &state);
    let _range = partition
        .mmio()
        .insert(0xc000_0000, 0x1000, "device", Arc::new(Device))
        .unwrap();
    let mut byte = [0];
    assert!(partition.mmio().read(&mut LastHit::new(), 0xc000_0000, &mut byte));
    assert_eq!(byte, [0x42]);
    assert!(partition.pio().counts().is_empty());
    assert!(partition.interrupts().line(Gsi(4)).is_ok());
    assert_eq!(partition.memory().subscribers(), ["KVM"]);
    assert_eq!(partition.reserved().plan(), partition.plan());
}
