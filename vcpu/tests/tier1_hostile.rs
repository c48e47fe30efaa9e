//! Guests and owners that do their worst: endless string instructions, accesses across borders, storms, crashes beside working
//! vCPUs, closures that panic. Each has a bounded and named result.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod machine;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use machine::{CODE, Machine, PATIENCE, Recorder, take};
use pellucid_partition::{Entry, GuestAddress, PioHandler};
use pellucid_vcpu::{Crash, End, ExitReason, Parked, Place, VcpuEvent, VcpuPolicy};

const DX_PORT: [u8; 4] = [0x66, 0xba, 0x00, 0x05];
const SPIN: [u8; 2] = [0xeb, 0xfe];
const BOUND: Duration = Duration::from_secs(5);

/// Counts items, and remembers nothing.
#[derive(Default)]
struct Counter(AtomicU64);

impl PioHandler for Counter {
    fn read(&self, _: u16, data: &mut [u8]) {
        data.fill(0x5a);
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn write(&self, _: u16, _: &[u8]) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counter {
    fn wait_for(&self, items: u64) {
        let begun = Instant::now();
        while self.0.load(Ordering::Relaxed) < items {
            assert!(begun.elapsed() < PATIENCE, "the guest makes no accesses");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Runs `instruction` with `ecx` at its most, and stops it in the middle.
fn stop_amid(instruction: &[u8]) {
    let code = [
        &DX_PORT[..],
        &[0xfc, 0xb9, 0xff, 0xff, 0xff, 0xff],       // cld; mov ecx, -1
        &[0xbe, 0, 0, 0x20, 0, 0xbf, 0, 0, 0x20, 0], // mov esi, 0x200000; mov edi, 0x200000
        instruction,
        &SPIN,
    ]
    .concat();
    let counter = Arc::new(Counter::default());
    let machine = Machine::new(1, &code).with_port(0x500, 4, counter.clone());
    let (running, _events) = machine.run();
    counter.wait_for(100);
    let begun = Instant::now();
    let stopped = running.stop(BOUND).unwrap();
    assert!(begun.elapsed() < BOUND);
    assert_eq!(stopped.vcpus()[0].end(), &End::Requested { io_complete: true });
    // Every item that was answered has been taken: the count register and the devices agree.
    let left = stopped.vcpus()[0].fd().get_regs().unwrap().rcx & 0xffff_ffff;
    assert_eq!(0xffff_ffff - left, counter.0.load(Ordering::Relaxed));
}

#[test]
fn an_endless_string_write_is_stopped_between_two_items() {
    stop_amid(&[0xf3, 0x6e]); // rep outsb
}

#[test]
fn an_endless_string_read_is_stopped_with_what_was_read_in_memory() {
    stop_amid(&[0xf3, 0x6c]); // rep insb
}

#[test]
fn an_access_across_a_page_border_arrives_in_parts_and_whole() {
    let code = [
        &DX_PORT[..],
        &[0xa1, 0xfe, 0x0f, 0, 0xd0, 0xef], // mov eax, [0xd0000ffe]; out dx, eax
        &[0xa3, 0xfe, 0x0f, 0, 0xd0],       // mov [0xd0000ffe], eax
        &SPIN,
    ]
    .concat();
    let (port, written) = Recorder::new([]);
    let (low, _) = Recorder::new([0x2211]);
    let (high, arrived) = Recorder::new([0x4433]);
    let machine = Machine::new(1, &code)
        .with_port(0x500, 4, port)
        .with_mmio(0xd000_0000, low.clone())
        .with_mmio(0xd000_1000, high.clone());
    let (running, _events) = machine.run();
    assert_eq!(take(&written, 1), [0x4433_2211]);
    assert_eq!(take(&arrived, 1), [0x4433]);
    let _ = running.stop(BOUND).unwrap();
    assert_eq!(*low.reads.lock().unwrap(), [(0xffe, 2)]);
    assert_eq!(*low.writes.lock().unwrap(), [(0xffe, vec![0x11, 0x22])]);
    assert_eq!(*high.writes.lock().unwrap(), [(0, vec![0x33, 0x44])]);
}

#[test]
fn eight_bytes_are_one_access_in_long_mode() {
    let code = [
        &[0xb8, 0x00, 0, 0, 0xd0][..], // mov eax, 0xd0000000
        &[0x48, 0x8b, 0x18],           // mov rbx, [rax]
        &[0x48, 0x89, 0x58, 0x08],     // mov [rax + 8], rbx
        &SPIN,
    ]
    .concat();
    let (window, written) = Recorder::new([0x0123_4567_89ab_cdef]);
    let machine = Machine::new(1, &code).with_mmio(0xd000_0000, window.clone());
    let entry = Entry::Linux64 {
        rip: GuestAddress(CODE),
        boot_params: GuestAddress(0x1_0000),
    };
    let (running, _events) = machine.run_at(entry);
    assert_eq!(take(&written, 1), [0x0123_4567_89ab_cdef]);
    let _ = running.stop(BOUND).unwrap();
    assert_eq!(*window.reads.lock().unwrap(), [(0, 8)]);
}

#[test]
fn accesses_to_nothing_are_counted_and_harm_nobody() {
    // again: in al, dx; mov ebx, [0xd8000000]; out dx, al; inc ecx; cmp ecx, 50; jne again; jmp $
    let storm = [
        0xec, 0x8b, 0x1d, 0, 0, 0, 0xd8, 0xee, 0x41, 0x83, 0xf9, 50, 0x75, 0xf2,
    ];
    let code = [
        &DX_PORT[..],
        &[0x31, 0xc9],
        &storm,
        &[0x66, 0xba, 0x10, 0x05, 0xef],
        &SPIN,
    ]
    .concat();
    let (end, written) = Recorder::new([]);
    let machine = Machine::new(1, &code).with_port(0x510, 4, end);
    let (running, _events) = machine.run();
    assert_eq!(take(&written, 1)[0] & 0xff, 0xff);
    let stopped = running.stop(BOUND).unwrap();
    let [counts] = stopped.exits()[..] else {
        panic!("one vCPU")
    };
    assert_eq!((counts.unmapped, counts.count(ExitReason::MmioRead)), (150, 50));
    assert_eq!(stopped.vcpus()[0].fd().get_regs().unwrap().rbx, 0xffff_ffff);
}

#[test]
fn a_crash_of_one_vcpu_leaves_the_other_working() {
    let code = [
        // The second's code at 0x8000: cli; lidt of nothing; ud2.
        &[0xc7, 0x05, 0x00, 0x80, 0, 0, 0xfa, 0x2e, 0x0f, 0x01][..],
        &[0xc7, 0x05, 0x04, 0x80, 0, 0, 0x1e, 0x10, 0x00, 0x0f], // lidt cs:[0x10]
        &[0xc7, 0x05, 0x08, 0x80, 0, 0, 0x0b, 0x90, 0x90, 0x90],
        &[0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0, 0],
        &[0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x0c, 0], // INIT
        &[0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x0c, 0], // SIPI
        &DX_PORT,
        &[0xed, 0xef, 0xeb, 0xfc], // again: in eax, dx; out dx, eax; jmp again
    ]
    .concat();
    let (port, written) = Recorder::new([]);
    let machine = Machine::new(2, &code).with_port(0x500, 4, port);
    let (running, events) = machine.run();
    let event = events.recv_timeout(PATIENCE).unwrap();
    // A triple fault on a processor; a KVM that emulates real mode may give up before.
    assert!(matches!(event, VcpuEvent::Crashed { vcpu: 1, .. }), "{event}");
    while written.try_recv().is_ok() {}
    take(&written, 10);
    let stopped = running.stop(BOUND).unwrap();
    assert_eq!(stopped.vcpus()[0].end(), &End::Requested { io_complete: true });
    assert!(matches!(stopped.vcpus()[1].end(), End::Crashed(_)));
}

#[test]
fn a_crash_is_told_also_by_a_pause() {
    let machine = Machine::new(2, &[0x0f, 0x0b]);
    let (mut running, events) = machine.run();
    events.recv_timeout(PATIENCE).unwrap();
    running.pause(BOUND).unwrap();
    running.resume();
    let stopped = running.stop(BOUND).unwrap();
    assert_eq!(stopped.vcpus()[0].end(), &End::Crashed(Crash::TripleFault));
    assert_eq!(stopped.vcpus()[1].end(), &End::Requested { io_complete: true });
}

#[test]
fn an_owner_whose_closure_panics_can_still_stop_its_vcpus() {
    let machine = Machine::new(1, &[0x0f, 0x0b]);
    let entry = Entry::Pvh {
        rip: GuestAddress(CODE),
        start_info: GuestAddress(0),
    };
    let parked = Parked::create(&machine.partition, entry, &VcpuPolicy::default()).unwrap();
    let running = parked
        .run(|event| panic!("the owner does not like {event}"))
        .unwrap();
    while running.exits()[0].count(ExitReason::Last) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let stopped = running.stop(BOUND).unwrap();
    assert_eq!(stopped.vcpus()[0].end(), &End::Crashed(Crash::TripleFault));
}

#[test]
fn a_meter_outlives_what_it_measured() {
    let counter = Arc::new(Counter::default());
    let code = [&DX_PORT[..], &[0xef, 0xeb, 0xfd]].concat();
    let machine = Machine::new(1, &code).with_port(0x500, 4, counter.clone());
    let (running, _events) = machine.run();
    let meter = running.meter();
    counter.wait_for(10);
    let before = meter.exits()[0].user();
    assert!(before >= 9);
    let _ = running.stop(BOUND).unwrap();
    drop(machine);
    let after = meter.exits()[0];
    assert!(after.user() >= before && after.count(ExitReason::PioWrite) == counter.0.load(Ordering::Relaxed));
    assert_eq!(meter.places(), [Place::Outside]);
}
