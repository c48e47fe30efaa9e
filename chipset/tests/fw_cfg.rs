//! fw_cfg as firmware uses it, and as a hostile guest does.
#![expect(clippy::unwrap_used, reason = "a device that cannot be made fails its test")]

use std::sync::{Arc, Mutex};

use pellucid_chipset::{DebugConsole, FwCfg};
use pellucid_partition::{GuestAddress, GuestMemory, Layout, PageSize, PioHandler};
use proptest::prelude::*;

fn memory() -> GuestMemory {
    GuestMemory::map("fw_cfg", &Layout::new(32 << 20, 39).unwrap(), PageSize::Size4K).unwrap()
}

fn select(device: &FwCfg, key: u16) {
    device.write(0, &key.to_le_bytes());
}

fn take(device: &FwCfg, count: usize) -> Vec<u8> {
    let one = |_| {
        let mut byte = [0xee];
        device.read(1, &mut byte);
        byte[0]
    };
    (0..count).map(one).collect()
}

/// Makes the transfer, whose descriptor is at `at`; returns what its control word reads then.
fn transfer(device: &FwCfg, memory: &GuestMemory, at: u64, (control, length, to): (u32, u32, u64)) -> u32 {
    let descriptor = [
        &control.to_be_bytes()[..],
        &length.to_be_bytes(),
        &to.to_be_bytes(),
    ]
    .concat();
    memory.write(GuestAddress(at), &descriptor).unwrap();
    device.write(4, &((at >> 32) as u32).to_be_bytes());
    device.write(8, &(at as u32).to_be_bytes());
    let mut answer = [0; 4];
    memory.read(GuestAddress(at), &mut answer).unwrap();
    u32::from_be_bytes(answer)
}

const READ: u32 = 2;
const SKIP: u32 = 4;
const SELECT: u32 = 8;
const WRITE: u32 = 16;

#[test]
fn firmware_finds_the_device_and_its_transfers() {
    let device = FwCfg::new(GuestMemory::new());
    select(&device, 0);
    assert_eq!(take(&device, 6), *b"QEMU\0\0");
    select(&device, 1);
    assert_eq!(take(&device, 4), [3, 0, 0, 0]);
    let mut signature = [0; 4];
    device.read(4, &mut signature);
    assert_eq!(&signature, b"QEMU");
    device.read(8, &mut signature);
    assert_eq!(&signature, b" CFG");
    // Keys of a kernel that is not there, and any other.
    for key in [0x08, 0x0b, 0x14, 0x17, 0x7fff, 0xffff] {
        select(&device, key);
        assert_eq!(take(&device, 4), [0; 4], "{key:#x}");
    }
}

#[test]
fn files_are_found_by_name_and_replaced_whole() {
    let device = FwCfg::new(GuestMemory::new());
    device.put_file("etc/one", b"first").unwrap();
    device.put_file("opt/two", b"second").unwrap();
    select(&device, 0x20);
    assert_eq!(take(&device, 2), *b"fi");
    device.put_file("etc/one", b"longer").unwrap();
    assert_eq!(
        take(&device, 4),
        *b"rst\0",
        "who reads it reads on in the old one"
    );
    select(&device, 0x19);
    assert_eq!(take(&device, 4), [0, 0, 0, 2]);
    let first = take(&device, 64);
    assert_eq!(first[..8], [0, 0, 0, 6, 0, 0x20, 0, 0]);
    assert_eq!(first[8..16], *b"etc/one\0");
    let second = take(&device, 64);
    assert_eq!(second[..8], [0, 0, 0, 6, 0, 0x21, 0, 0]);
    assert_eq!(take(&device, 1), [0]);
    assert!(device.put_file(&"n".repeat(56), b"").is_err());
    assert!(device.put_file("", b"").is_err() && device.put_file("a\0b", b"").is_err());
    for number in 2..256 {
        device.put_file(&format!("etc/{number}"), b"").unwrap();
    }
    let full = device.put_file("one more", b"").unwrap_err();
    assert!(full.to_string().contains("one more") && full.to_string().contains("full"));
}

#[test]
fn transfers_copy_skip_and_select() {
    let memory = memory();
    let device = FwCfg::new(memory.clone());
    let content: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
    device.put_file("etc/big", &content).unwrap();
    let at = 0x1000;
    assert_eq!(
        transfer(
            &device,
            &memory,
            at,
            (0x20 << 16 | SELECT | READ, 9000, 0x10_0000)
        ),
        0
    );
    let mut copied = vec![0; 9000];
    memory.read(GuestAddress(0x10_0000), &mut copied).unwrap();
    assert_eq!(copied, content[..9000]);
    assert_eq!(transfer(&device, &memory, at, (SKIP, 500, 0)), 0);
    assert_eq!(transfer(&device, &memory, at, (READ, 1000, 0x10_0000)), 0);
    memory.read(GuestAddress(0x10_0000), &mut copied[..1000]).unwrap();
    assert_eq!(copied[..500], content[9500..]);
    assert!(copied[500..1000].iter().all(|byte| *byte == 0));
    assert_eq!(
        transfer(&device, &memory, at, (WRITE, 4, 0x10_0000)),
        1,
        "nothing can be written"
    );
    assert_eq!(
        transfer(&device, &memory, at, (READ, 4, 0xd000_0000)),
        1,
        "not RAM"
    );
    assert_eq!(transfer(&device, &memory, at, (READ, 4, u64::MAX)), 1);
    assert_eq!(
        transfer(&device, &memory, at, (READ, (16 << 20) + 1, 0)),
        1,
        "too much for one"
    );
    assert_eq!(transfer(&device, &memory, at, (SKIP, u32::MAX, 0)), 0);
    assert_eq!(transfer(&device, &memory, at, (0, 0, 0)), 0);
    // A descriptor that is not in RAM is answered by nobody.
    device.write(4, &u32::MAX.to_be_bytes());
    device.write(8, &u32::MAX.to_be_bytes());
}

#[test]
fn a_file_can_be_made_when_it_is_asked_for() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let device = Arc::new_cyclic(|own: &std::sync::Weak<FwCfg>| {
        let (own, asked) = (own.clone(), Arc::clone(&asked));
        FwCfg::new(GuestMemory::new()).on_select(move |name| {
            asked.lock().unwrap().push(name.to_owned());
            own.upgrade().unwrap().put_file(name, b"made now").unwrap();
        })
    });
    device.put_file("etc/late", b"--------").unwrap();
    select(&device, 0x19);
    select(&device, 0x05);
    select(&device, 0x21);
    select(&device, 0x20);
    assert_eq!(take(&device, 8), *b"made now");
    assert_eq!(*asked.lock().unwrap(), ["etc/late"]);
}

#[test]
fn the_machine_is_described_as_its_layout_has_it() {
    let device = FwCfg::new(GuestMemory::new());
    device.describe(&Layout::new(4 << 30, 39).unwrap(), 3).unwrap();
    select(&device, FwCfg::CPUS);
    assert_eq!(take(&device, 2), [3, 0]);
    select(&device, 0x20);
    let map = take(&device, 60);
    let entry = |n: usize| {
        let quad = |at| u64::from_le_bytes(map[at..at + 8].try_into().unwrap());
        (quad(n * 20), quad(n * 20 + 8), map[n * 20 + 16])
    };
    assert_eq!(entry(0), (0, 3 << 30, 1));
    assert_eq!(entry(1), (4 << 30, 1 << 30, 1));
    assert_eq!(entry(2), (0xfeff_c000, 0x4000, 2));
}

#[test]
fn the_debug_console_says_that_it_listens_and_hands_on_what_it_is_told() {
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let said = Arc::new(Mutex::new(Vec::new()));
    let console = DebugConsole::new(Box::new(Sink(Arc::clone(&said))));
    let mut answer = [0; 4];
    console.read(0, &mut answer);
    console.write(0, b"SEC");
    assert_eq!(
        (answer, said.lock().unwrap().as_slice()),
        ([0xe9; 4], &b"SEC"[..])
    );
}

proptest! {
    #[test]
    fn no_access_of_any_size_and_offset_harms(
        accesses in prop::collection::vec((0u16..16, prop::collection::vec(any::<u8>(), 0..9), any::<bool>()), 0..200)
    ) {
        let memory = memory();
        let device = FwCfg::new(memory);
        device.put_file("etc/one", &[7; 300]).unwrap();
        for (offset, mut data, write) in accesses {
            match write {
                true => device.write(offset, &data),
                false => device.read(offset, &mut data),
            }
        }
        select(&device, 0);
        prop_assert_eq!(take(&device, 4), b"QEMU".to_vec());
    }
}
