//! Isolation proved with devices that do DMA wherever they are told: two logical servers with an edu each, one of them hostile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;

use support::lent::lent_with;
use support::{Server, Vmm, eventually};

/// The engine of QEMU's edu (docs/specs/edu.rst), driven from the guest's shell through /dev/mem.
struct Engine {
    bar: u64,
}

impl Engine {
    #[track_caller]
    fn of(server: &mut Server, at: &str) -> Self {
        let folder = format!("/sys/bus/pci/devices/{at}");
        server.asks(&format!("echo 1 >{folder}/enable"));
        server.asks(&format!(
            "printf '\\006' | dd of={folder}/config bs=1 seek=4 conv=notrunc 2>/dev/null"
        ));
        let bar = server.asks(&format!("head -n 1 {folder}/resource | cut -d ' ' -f 1"));
        let bar = u64::from_str_radix(bar.trim_start_matches("0x"), 16).unwrap();
        assert_eq!(
            server.asks(&format!("devmem {bar:#x} 32")),
            "0x010000ED",
            "the edu answers"
        );
        Self { bar }
    }

    /// Reads `count` bytes at `address` into its buffer.
    #[track_caller]
    fn reads(&self, server: &mut Server, address: u64, count: u64) {
        self.moves(server, [address, BUFFER, count, 1]);
    }

    /// Writes `count` bytes of its buffer to `address`.
    #[track_caller]
    fn writes(&self, server: &mut Server, address: u64, count: u64) {
        self.moves(server, [BUFFER, address, count, 3]);
    }

    #[track_caller]
    fn moves(&self, server: &mut Server, registers: [u64; 4]) {
        let mut line = String::new();
        for (value, register) in registers.iter().zip([0x80, 0x88, 0x90, 0x98]) {
            line.push_str(&format!("devmem {:#x} 64 {value:#x}; ", self.bar + register));
        }
        let command = self.bar + 0x98;
        server.asks(&format!(
            "{line} while test $(($(devmem {command:#x} 64) & 1)) = 1; do usleep 10000; done"
        ));
    }
}

/// Tries it until the owner is told. Each try is blocked; the kernel tells of ten blocked accesses in five seconds, and the IOMMU notes none of a
/// device whose last one the kernel has not read yet.
#[track_caller]
fn until_told(hostile: &mut Server, told: &str, act: impl Fn(&mut Server)) {
    eventually(told, || {
        act(hostile);
        std::thread::sleep(std::time::Duration::from_millis(500));
        (!hostile.reported(told).is_empty()).then_some(())
    });
}

/// A server with an edu at `at` and a page of its memory that its kernel leaves alone, filled with `pattern`.
#[track_caller]
fn server_with(vmm: &Vmm, name: &str, at: &str, pattern: u64) -> Server {
    let mut server = lent_with(vmm, (name, "256M"), &[at], "memmap=1M$0x8000000 iomem=relaxed");
    let functions = server.asks("ls /sys/bus/pci/devices");
    let other = if at == FIRST { SECOND } else { FIRST };
    assert!(
        functions.contains(at) && !functions.contains(other),
        "{functions}"
    );
    fill(&mut server, OWN, pattern);
    server
}

#[track_caller]
fn fill(server: &mut Server, address: u64, pattern: u64) {
    server.asks(&format!(
        "for i in 0 1 2 3 4 5 6 7; do devmem $(({address:#x} + i * 8)) 64 {pattern:#x}; done"
    ));
}

/// What the guest finds at `address` of its memory.
#[track_caller]
fn word(server: &mut Server, address: u64) -> u64 {
    let text = server.asks(&format!("devmem {address:#x} 64"));
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

/// Where in the host's memory the page of a process at `address` is.
#[track_caller]
fn physical(process: &str, address: usize) -> u64 {
    let mut entry = [0; 8];
    let map = File::open(format!("/proc/{process}/pagemap")).unwrap();
    map.read_exact_at(&mut entry, (address / PAGE * 8) as u64)
        .unwrap();
    let entry = u64::from_le_bytes(entry);
    assert!(entry >> 63 == 1, "the page is not there");
    (entry & ((1 << 55) - 1)) * PAGE as u64
}

/// Where in the VMM's process the guest's memory at `OWN` is, proved by what is there.
#[track_caller]
fn hosted(server: &Server, pattern: u64) -> usize {
    let pid = server.pid();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let starts = maps
        .lines()
        .filter(|line| line.contains("memfd:"))
        .filter_map(|line| {
            let (start, rest) = line.split_once('-')?;
            let (start, end) = (
                usize::from_str_radix(start, 16).ok()?,
                usize::from_str_radix(rest.split(' ').next()?, 16).ok()?,
            );
            (end - start > OWN as usize).then_some(start)
        });
    let holds = |place: &usize| {
        let mut found = [0; 8];
        memory.read_exact_at(&mut found, *place as u64).is_ok() && u64::from_le_bytes(found) == pattern
    };
    starts.map(|start| start + OWN as usize).find(holds).unwrap()
}

#[test]
fn a_device_reaches_no_memory_but_its_guests_and_the_right_server_is_told() {
    let vmm = Vmm::new();
    let mut hostile = server_with(&vmm, "hostile", FIRST, MARK);
    let mut victim = server_with(&vmm, "victim", SECOND, SECRET);
    let engine = Engine::of(&mut hostile, FIRST);

    // The engine works: what it is told to move inside of its guest's memory, it moves.
    engine.reads(&mut hostile, OWN, 64);
    engine.writes(&mut hostile, OWN + 0x1000, 64);
    assert_eq!(word(&mut hostile, OWN + 0x1000), MARK);

    // Memory of the host: of this very process.
    let mut witness = vec![0x5a_u8; 4 << 20];
    witness.fill(0x5a);
    let place = (witness.as_ptr() as usize).next_multiple_of(PAGE) + PAGE;
    let of_host = (place..place + (2 << 20))
        .step_by(PAGE)
        .map(|page| physical("self", page))
        .find(|page| *page >= GUEST_END)
        .unwrap();
    let told = format!("device {FIRST} wrote to {of_host:#x}, which is not its guest's");
    until_told(&mut hostile, &told, |hostile| engine.writes(hostile, of_host, 64));
    assert!(
        std::hint::black_box(&witness).iter().all(|byte| *byte == 0x5a),
        "the host's memory was written"
    );

    // Memory of the other partition, written and read.
    let place = hosted(&victim, SECRET);
    let of_victim = physical(&victim.pid().to_string(), place);
    assert!(
        of_victim >= GUEST_END,
        "{of_victim:#x} would be the hostile guest's own"
    );
    let told = format!("device {FIRST} wrote to {of_victim:#x}, which is not its guest's");
    until_told(&mut hostile, &told, |hostile| {
        engine.writes(hostile, of_victim, 64)
    });
    assert_eq!(word(&mut victim, OWN), SECRET);
    let told = format!("device {FIRST} read {of_victim:#x}, which is not its guest's");
    until_told(&mut hostile, &told, |hostile| {
        engine.reads(hostile, of_victim, 64)
    });
    engine.writes(&mut hostile, OWN + 0x2000, 64);
    assert_ne!(word(&mut hostile, OWN + 0x2000), SECRET);
    assert_eq!(
        physical(&victim.pid().to_string(), place),
        of_victim,
        "it has not moved meanwhile"
    );

    // Right past its own memory.
    let told = format!("device {FIRST} wrote to {GUEST_END:#x},");
    until_told(&mut hostile, &told, |hostile| {
        engine.writes(hostile, GUEST_END, 64)
    });

    // The victim works on, and its owner was told nothing.
    let engine = Engine::of(&mut victim, SECOND);
    engine.reads(&mut victim, OWN, 64);
    engine.writes(&mut victim, OWN + 0x1000, 64);
    assert_eq!(word(&mut victim, OWN + 0x1000), SECRET);
    victim.types("poweroff -f\n");
    assert_eq!(victim.ends(), (Some(0), String::new()));
    hostile.types("poweroff -f\n");
    assert_eq!(hostile.ends().0, Some(0));
}

const FIRST: &str = "0000:00:05.0";
const SECOND: &str = "0000:00:0a.0";
/// The engine's buffer as its registers name it.
const BUFFER: u64 = 0x4_0000;
/// Memory that neither guest's kernel uses.
const OWN: u64 = 0x800_0000;
const GUEST_END: u64 = 256 << 20;
const MARK: u64 = 0x1111_2222_3333_4444;
const SECRET: u64 = 0x7365_6372_6574_2121;
const PAGE: usize = 4096;
