//! Exits of real guests on /dev/kvm: ports, MMIO, string instructions, long mode, crashes. Each guest is a few hand-assembled bytes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here fails the test")]

mod machine;

use std::sync::Arc;

use machine::{CODE, Machine, PATIENCE, Recorder, take};
use pellucid_partition::{Entry, GuestAddress, MmioHandler};
use pellucid_vcpu::{Crash, End, ExitReason, Place, VcpuEvent};

/// `mov dx, port` for 32-bit code.
const DX_PORT: [u8; 4] = [0x66, 0xba, 0x00, 0x05];
const HLT_FOREVER: [u8; 3] = [0xf4, 0xeb, 0xfd];

#[test]
fn a_port_sees_what_the_guest_writes_and_the_guest_what_it_reads() {
    let code = [
        &DX_PORT[..],
        &[0xb0, b'p', 0xee],       // mov al, 'p'; out dx, al
        &[0xed],                   // in eax, dx
        &[0xef],                   // out dx, eax
        &[0x66, 0xed, 0x66, 0xef], // in ax, dx; out dx, ax
        &HLT_FOREVER,
    ]
    .concat();
    let (port, written) = Recorder::new([0x1234_5678, 0xbeef]);
    let machine = Machine::new(1, &code).with_port(0x500, 4, port.clone());
    let (running, _events) = machine.run();
    assert_eq!(take(&written, 3), [u64::from(b'p'), 0x1234_5678, 0xbeef]);
    let stopped = running.stop(PATIENCE).unwrap();
    let [counts] = stopped.exits()[..] else {
        panic!("one vCPU")
    };
    assert_eq!(
        (
            counts.count(ExitReason::PioRead),
            counts.count(ExitReason::PioWrite)
        ),
        (2, 3)
    );
    assert_eq!(*port.reads.lock().unwrap(), [(0, 4), (0, 2)]);
    assert_eq!(stopped.vcpus()[0].end(), &End::Requested { io_complete: true });
}

#[test]
fn an_address_without_memory_reaches_its_handler() {
    let code = [
        &[0xa1, 0x10, 0, 0, 0xd0][..], // mov eax, [0xd0000010]
        &[0xa3, 0x20, 0, 0, 0xd0],     // mov [0xd0000020], eax
        &[0xa0, 0, 0, 0, 0xd8],        // mov al, [0xd8000000]: nothing there
        &[0xa2, 0x21, 0, 0, 0xd0],     // mov [0xd0000021], al
        &HLT_FOREVER,
    ]
    .concat();
    let (window, written) = Recorder::new([0xcafe_f00d]);
    let machine = Machine::new(1, &code).with_mmio(0xd000_0000, window.clone());
    let (running, _events) = machine.run();
    assert_eq!(take(&written, 2), [0xcafe_f00d, 0xff]);
    let [counts] = running.stop(PATIENCE).unwrap().exits()[..] else {
        panic!("one vCPU")
    };
    assert_eq!((counts.count(ExitReason::MmioRead), counts.unmapped), (2, 1));
    assert_eq!(*window.reads.lock().unwrap(), [(0x10, 4)]);
}

#[test]
fn string_instructions_reach_the_port_item_by_item() {
    let code = [
        &DX_PORT[..],
        &[0xfc, 0xbf, 0, 0, 0x20, 0],          // cld; mov edi, 0x200000
        &[0xb9, 3, 0, 0, 0, 0xf3, 0x66, 0x6d], // mov ecx, 3; rep insw
        &[0xbe, 0, 0, 0x20, 0],                // mov esi, 0x200000
        &[0xb9, 3, 0, 0, 0, 0xf3, 0x66, 0x6f], // mov ecx, 3; rep outsw
        &HLT_FOREVER,
    ]
    .concat();
    let (port, written) = Recorder::new([0x1111, 0x2222, 0x3333]);
    let machine = Machine::new(1, &code).with_port(0x500, 4, port.clone());
    let (running, _events) = machine.run();
    assert_eq!(take(&written, 3), [0x1111, 0x2222, 0x3333]);
    let _ = running.stop(PATIENCE).unwrap();
    assert_eq!(*port.reads.lock().unwrap(), [(0, 2); 3]);
    assert!(
        port.writes
            .lock()
            .unwrap()
            .iter()
            .all(|(offset, data)| (*offset, data.len()) == (0, 2))
    );
}

#[test]
fn the_linux_entry_is_in_long_mode_with_its_memory_mapped() {
    let code = [
        &DX_PORT[..],
        &[0x48, 0x89, 0xf0, 0xef],             // mov rax, rsi; out dx, eax
        &[0x48, 0xc1, 0xe8, 0x20, 0xef], // shr rax, 32; out dx, eax: in 32-bit mode this is another number
        &[0x8c, 0xc8, 0xef, 0x8c, 0xd8, 0xef], // mov eax, cs; out; mov eax, ds; out
        &[0x67, 0xa1, 0, 0, 0x00, 0xd0, 0xef], // mov eax, [0xd0000000]; out: mapped far beyond RAM
        &HLT_FOREVER,
    ]
    .concat();
    let (port, written) = Recorder::new([]);
    let (window, _) = Recorder::new([0x6464]);
    let machine = Machine::new(1, &code)
        .with_port(0x500, 4, port)
        .with_mmio(0xd000_0000, window);
    let entry = Entry::Linux64 {
        rip: GuestAddress(CODE),
        boot_params: GuestAddress(0x1_0000),
    };
    let (running, _events) = machine.run_at(entry);
    assert_eq!(take(&written, 5), [0x1_0000, 0, 0x10, 0x18, 0x6464]);
    let stopped = running.stop(PATIENCE).unwrap();
    assert_eq!(stopped.vcpus()[0].fd().get_sregs().unwrap().efer & 0x500, 0x500);
}

#[test]
fn a_real_mode_entry_begins_at_its_segment() {
    // mov dx, 0x500; mov ax, cs; out dx, ax; hlt; jmp $-1
    let code = [0xba, 0x00, 0x05, 0x8c, 0xc8, 0xef, 0xf4, 0xeb, 0xfd];
    let (port, written) = Recorder::new([]);
    let machine = Machine::new(1, &[]).with_port(0x500, 4, port);
    machine
        .partition
        .memory()
        .write(GuestAddress(0x7010), &code)
        .unwrap();
    let (running, _events) = machine.run_at(Entry::Real {
        cs_base: GuestAddress(0x7000),
        ip: 0x10,
    });
    assert_eq!(take(&written, 1), [0x700]);
    let _ = running.stop(PATIENCE).unwrap();
}

#[test]
fn a_triple_fault_is_a_crash_with_a_name_and_a_place() {
    let machine = Machine::new(1, &[0x0f, 0x0b]); // ud2, with no interrupt table at all
    let (running, events) = machine.run();
    let event = events.recv_timeout(PATIENCE).unwrap();
    let VcpuEvent::Crashed {
        vcpu: 0,
        crash: Crash::TripleFault,
        rip: Some(_),
    } = &event
    else {
        panic!("{event:?}")
    };
    assert!(event.to_string().contains("triple fault"), "{event}");
    let stopped = running.stop(PATIENCE).unwrap();
    assert_eq!(stopped.vcpus()[0].end(), &End::Crashed(Crash::TripleFault));
}

#[test]
fn a_guest_that_jumps_out_of_its_memory_crashes_by_name() {
    let machine = Machine::new(1, &[0xb8, 0, 0, 0, 0xd0, 0xff, 0xe0]); // mov eax, 0xd0000000; jmp eax
    let (running, events) = machine.run();
    let event = events.recv_timeout(PATIENCE).unwrap();
    let VcpuEvent::Crashed {
        crash: Crash::Internal { suberror, .. },
        ..
    } = &event
    else {
        panic!("{event:?}")
    };
    assert_eq!(*suberror, 1, "{event}");
    let _ = running.stop(PATIENCE).unwrap();
}

struct Broken;

impl MmioHandler for Broken {
    fn read(&self, offset: u64, _: &mut [u8]) {
        panic!("no register {offset}");
    }
    fn write(&self, _: u64, _: &[u8]) {}
}

#[test]
fn a_panicking_handler_becomes_an_event_that_says_where() {
    let machine = Machine::new(1, &[0xa1, 7, 0, 0, 0xd0]).with_mmio(0xd000_0000, Arc::new(Broken));
    let (running, events) = machine.run();
    let event = events.recv_timeout(PATIENCE).unwrap();
    let VcpuEvent::Crashed {
        crash: Crash::HandlerPanicked { place, message },
        ..
    } = event
    else {
        panic!("{event:?}")
    };
    assert_eq!(
        (place, message.as_str()),
        (Place::Mmio(0xd000_0007), "no register 7")
    );
    let _ = running.stop(PATIENCE).unwrap();
}

#[test]
fn the_kernel_counts_at_least_the_exits_that_reached_us() {
    // mov ecx, 40; again: out dx, eax; loop again; hlt
    let code = [&DX_PORT[..], &[0xb9, 40, 0, 0, 0, 0xef, 0xe2, 0xfd], &HLT_FOREVER].concat();
    let (port, written) = Recorder::new([]);
    let machine = Machine::new(1, &code).with_port(0x500, 4, port);
    let (running, _events) = machine.run();
    take(&written, 40);
    let [counts] = running.stop(PATIENCE).unwrap().exits()[..] else {
        panic!("one vCPU")
    };
    assert_eq!(counts.count(ExitReason::PioWrite), 40);
    let kernel = counts.kernel.expect("this kernel has KVM statistics files");
    assert!(kernel.total >= 40 && counts.total() == kernel.total, "{counts:?}");
}
