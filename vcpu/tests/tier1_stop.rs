//! Stopping, pausing and starting vCPUs on /dev/kvm: bounded whatever the guest does, with a diagnosis when a handler does not return.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod machine;

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use machine::{Machine, PATIENCE, Recorder, take};
use pellucid_partition::{CpuRequest, Inventory, PartitionSpec, PioHandler, Plan};
use pellucid_vcpu::{End, ExitReason, Place, StopError};

const DX_PORT: [u8; 4] = [0x66, 0xba, 0x00, 0x05];
const SPIN: [u8; 2] = [0xeb, 0xfe];
const HLT_FOREVER: [u8; 3] = [0xf4, 0xeb, 0xfd];

#[test]
fn a_spinning_guest_stops_at_once() {
    let (port, written) = Recorder::new([]);
    let machine = Machine::new(1, &[&DX_PORT[..], &[0xef], &SPIN].concat()).with_port(0x500, 4, port);
    let (running, _events) = machine.run();
    take(&written, 1);
    let begun = Instant::now();
    let stopped = running.stop(PATIENCE).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(stopped.vcpus()[0].end(), &End::Requested { io_complete: true });
}

#[test]
fn a_halted_guest_and_one_never_started_stop_too() {
    let (port, written) = Recorder::new([]);
    let machine = Machine::new(2, &[&DX_PORT[..], &[0xef], &HLT_FOREVER].concat()).with_port(0x500, 4, port);
    let (running, _events) = machine.run();
    take(&written, 1);
    let stopped = running.stop(PATIENCE).unwrap();
    assert_eq!(
        stopped
            .vcpus()
            .iter()
            .map(|vcpu| vcpu.index())
            .collect::<Vec<_>>(),
        [0, 1]
    );
    assert!(
        stopped
            .vcpus()
            .iter()
            .all(|vcpu| *vcpu.end() == End::Requested { io_complete: true })
    );
}

#[test]
fn a_vcpu_is_stopped_fifty_times_without_a_hang() {
    let machine_code = [&DX_PORT[..], &[0xef, 0xeb, 0xfd]].concat(); // again: out dx, eax; jmp again
    for round in 0..50 {
        let (port, _) = Recorder::new([]);
        let machine = Machine::new(1, &machine_code).with_port(0x500, 4, port);
        let (running, _events) = machine.run();
        std::thread::sleep(Duration::from_micros(round * 37));
        let _ = running.stop(PATIENCE).unwrap();
    }
}

#[test]
fn the_state_is_read_with_pending_reads_complete() {
    // mov ecx, 0; again: in eax, dx; inc ecx; cmp eax, ecx; je again; ud2
    let code = [
        &DX_PORT[..],
        &[0xb9, 0, 0, 0, 0],
        &[0xed, 0x41, 0x39, 0xc8, 0x74, 0xfa, 0x0f, 0x0b],
    ]
    .concat();
    let (port, _) = Recorder::new(1..100_000);
    let machine = Machine::new(1, &code).with_port(0x500, 4, port.clone());
    let (mut running, events) = machine.run();
    for _ in 0..20 {
        running.pause(PATIENCE).unwrap();
        let answered = port.reads.lock().unwrap().len();
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(
            port.reads.lock().unwrap().len(),
            answered,
            "a paused vCPU made an access"
        );
        running.resume();
        std::thread::sleep(Duration::from_millis(2));
    }
    let answered = || port.reads.lock().unwrap().len() as u64;
    let stopped = running.stop(PATIENCE).unwrap();
    let regs = stopped.vcpus()[0].fd().get_regs().unwrap();
    // Each answer arrived exactly once: what was answered is in eax.
    assert_eq!(regs.rax & 0xffff_ffff, answered());
    assert!(
        answered() > 0 && events.try_recv().is_err(),
        "the guest found an answer lost or doubled"
    );
}

#[test]
fn a_paused_vcpu_keeps_no_removed_device() {
    let (port, written) = Recorder::new([]);
    let alive = Arc::downgrade(&port);
    let mut machine = Machine::new(1, &[&DX_PORT[..], &[0xef], &SPIN].concat()).with_port(0x500, 4, port);
    let (mut running, _events) = machine.run();
    take(&written, 1);
    machine.ranges.0.clear();
    running.pause(PATIENCE).unwrap();
    assert_eq!(alive.strong_count(), 0);
    running.resume();
    let _ = running.stop(PATIENCE).unwrap();
}

/// Keeps a vCPU in its write until it is told to let go.
struct Sticky(Mutex<Receiver<()>>, std::sync::mpsc::Sender<()>);

impl PioHandler for Sticky {
    fn read(&self, _: u16, _: &mut [u8]) {}
    fn write(&self, _: u16, _: &[u8]) {
        self.1.send(()).unwrap();
        let _ = self.0.lock().unwrap().recv();
    }
}

#[test]
fn a_handler_that_does_not_return_is_named() {
    let (let_go, held) = channel();
    let (entered, inside) = channel();
    let sticky = Arc::new(Sticky(Mutex::new(held), entered));
    let machine = Machine::new(1, &[&DX_PORT[..], &[0xef], &SPIN].concat()).with_port(0x500, 4, sticky);
    let (mut running, _events) = machine.run();
    inside.recv_timeout(PATIENCE).unwrap();
    let error = running.pause(Duration::from_millis(50)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("vCPU 0 is still in the handler of port 0x500"),
        "{error}"
    );
    let StopError::Stuck { vcpus, .. } = error;
    assert_eq!(vcpus, [(0, Place::Port(0x500))]);
    let_go.send(()).unwrap();
    let _ = running.stop(PATIENCE).unwrap();
}

#[test]
fn a_pause_that_came_too_late_does_not_answer_the_next_one() {
    let (let_go, held) = channel();
    let (entered, inside) = channel();
    let sticky = Arc::new(Sticky(Mutex::new(held), entered));
    // again: out dx, eax; jmp again
    let machine = Machine::new(1, &[&DX_PORT[..], &[0xef, 0xeb, 0xfd]].concat()).with_port(0x500, 4, sticky);
    let (mut running, _events) = machine.run();
    inside.recv_timeout(PATIENCE).unwrap();
    assert!(running.pause(Duration::from_millis(20)).is_err());
    let_go.send(()).unwrap();
    while running.meter().places() != [Place::Paused] {
        std::thread::sleep(Duration::from_millis(1));
    }
    running.resume();
    inside.recv_timeout(PATIENCE).unwrap();
    let error = running.pause(Duration::from_millis(20)).unwrap_err();
    assert!(error.to_string().contains("port 0x500"), "{error}");
    let_go.send(()).unwrap();
    running.pause(PATIENCE).unwrap();
    assert_eq!(running.meter().places(), [Place::Paused]);
    let _ = running.stop(PATIENCE).unwrap();
}

#[test]
fn a_dropped_owner_leaves_no_thread_in_the_guest() {
    let (port, written) = Recorder::new([]);
    let machine =
        Machine::new(1, &[&DX_PORT[..], &[0xef, 0xeb, 0xfd]].concat()).with_port(0x500, 4, port.clone());
    let (running, events) = machine.run();
    take(&written, 3);
    drop(running);
    let answered = port.writes.lock().unwrap().len();
    // The thread held the other end of this channel.
    assert_eq!(
        events.recv_timeout(PATIENCE),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
    );
    assert_eq!(port.writes.lock().unwrap().len(), answered);
}

#[test]
fn the_first_vcpu_starts_the_second() {
    let code = [
        // Copy of the second's code to 0x8000: mov dword [0x8000], ...
        &[0xc7, 0x05, 0x00, 0x80, 0, 0, 0xba, 0x00, 0x05, 0xb8][..], // mov dx, 0x500; mov ax, ...
        &[0xc7, 0x05, 0x04, 0x80, 0, 0, 0x02, 0x00, 0xef, 0xf4],     // ... 2; out dx, ax; hlt
        &[0xc7, 0x05, 0x08, 0x80, 0, 0, 0xeb, 0xfd, 0x90, 0x90],     // jmp to the hlt
        // The local APIC: spurious vector register on, INIT to all others, then SIPI with page 8.
        &[0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0, 0],
        &[0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x00, 0x45, 0x0c, 0],
        &[0xc7, 0x05, 0x00, 0x03, 0xe0, 0xfe, 0x08, 0x46, 0x0c, 0],
        &HLT_FOREVER,
    ]
    .concat();
    let (port, written) = Recorder::new([]);
    let machine = Machine::new(2, &code).with_port(0x500, 4, port);
    let (running, _events) = machine.run();
    assert_eq!(take(&written, 1), [2]);
    let counts = running.stop(PATIENCE).unwrap().exits();
    assert_eq!(counts[1].count(ExitReason::PioWrite), 1);
    assert_eq!(counts[0].count(ExitReason::PioWrite), 0);
}

#[test]
fn a_pinned_vcpu_runs_where_the_plan_says() {
    let inventory = Inventory::survey().unwrap();
    let cpu = inventory.usable_cpus().last().unwrap().id;
    let cpus = CpuRequest::list([cpu]).unwrap();
    let spec = PartitionSpec::on("pinned", cpus, 16 << 20).unwrap().dedicated();
    let (port, written) = Recorder::new([]);
    let code = [&DX_PORT[..], &[0xef], &SPIN].concat();
    let machine = Machine::fitted(&Plan::fit(&inventory, &spec).unwrap(), &code).with_port(0x500, 4, port);
    let (running, _events) = machine.run();
    take(&written, 1);
    assert_eq!(allowed_cpus("vcpu0"), [cpu.to_string()]);
    let _ = running.stop(PATIENCE).unwrap();
}

/// What the kernel says of this process's threads of that name that may run on one CPU only.
fn allowed_cpus(name: &str) -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let status = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok());
    let field = |text: &str, field: &str| {
        text.lines()
            .find_map(|line| Some(line.strip_prefix(field)?.trim().to_owned()))
            .unwrap()
    };
    let ours = status.filter(|text| field(text, "Name:") == name);
    ours.map(|text| field(&text, "Cpus_allowed_list:"))
        .filter(|list| list.parse::<usize>().is_ok())
        .collect()
}

#[test]
fn a_cpu_that_is_not_there_is_refused_before_the_guest_runs() {
    let inventory = Inventory::survey().unwrap();
    let mut host = inventory.clone();
    host.cpus.last_mut().unwrap().id = 1000;
    let cpus = CpuRequest::list([1000]).unwrap();
    let spec = PartitionSpec::on("nowhere", cpus, 16 << 20).unwrap().dedicated();
    let (port, written) = Recorder::new([]);
    let code = [&DX_PORT[..], &[0xef], &SPIN].concat();
    let machine = Machine::fitted(&Plan::fit(&host, &spec).unwrap(), &code).with_port(0x500, 4, port);
    let entry = pellucid_partition::Entry::Reset;
    let parked = pellucid_vcpu::Parked::create(&machine.partition, entry, &Default::default()).unwrap();
    let begun = Instant::now();
    let error = parked.run(|_| {}).unwrap_err();
    assert!(error.to_string().contains("CPU 1000"), "{error}");
    assert!(written.try_recv().is_err());
    assert!(begun.elapsed() < Duration::from_secs(2), "nothing was waited for");
}
