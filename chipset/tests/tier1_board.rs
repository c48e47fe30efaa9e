//! The board on a real VM: a guest of some eighty bytes echoes what it receives by interrupt, and powers off when the button is pressed.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench that cannot be built fails its test"
)]

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use kvm_ioctls::VcpuExit;
use pellucid_chipset::{Board, BoardEvent, BoardSpec, ConfigPorts, Console, EcamPlace};
use pellucid_partition::{GuestAddress, Inventory, LastHit, PartitionSpec, Plan, Populated, StateDir};

/// Longer than the guest takes where KVM itself is emulated.
const PATIENCE: Duration = Duration::from_secs(20);
const CODE: u16 = 0x7c00;
const ECHO: u16 = 0x7d00;
const POWER: u16 = 0x7e00;

/// Interrupt controllers at vectors 0x20 and 0x28 with lines 4 and 9 open, the serial port's input and the power
/// button enabled, `>`, then nothing but interrupts.
fn main_code() -> Vec<u8> {
    let outs: [(u16, u8); 15] = [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 0x04),
        (0x21, 0x01),
        (0xa0, 0x11),
        (0xa1, 0x28),
        (0xa1, 0x02),
        (0xa1, 0x01),
        (0x21, 0xeb),
        (0xa1, 0xfd),
        (0x3fa, 0x01),
        (0x3fc, 0x0b),
        (0x3f9, 0x01),
        (0x603, 0x01),
        (0x3f8, b'>'),
    ];
    let mut code: Vec<u8> = outs.iter().flat_map(|&(port, value)| out(port, value)).collect();
    code.extend([0xfb, 0xf4, 0xeb, 0xfd]); // sti; hlt; jmp hlt
    code
}

/// Line 4: while there is a byte, send it back.
fn echo_code() -> Vec<u8> {
    let mut code = vec![0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0x07]; // mov dx, 0x3fd; in al, dx; test al, 1; jz +7
    code.extend([0xba, 0xf8, 0x03, 0xec, 0xee, 0xeb, 0xf1]); // mov dx, 0x3f8; in al, dx; out dx, al; jmp 0
    code.extend([0xb0, 0x20, 0xe6, 0x20, 0xcf]); // end of interrupt; iret
    code
}

/// Line 9: acknowledge the button, end the interrupt, sleep.
fn power_code() -> Vec<u8> {
    [
        &out(0x601, 0x01)[..],
        &out(0xa0, 0x20),
        &out(0x20, 0x20),
        &out(0x605, 0x20),
        &[0xcf],
    ]
    .concat()
}

/// `mov dx, port; mov al, value; out dx, al`
fn out(port: u16, value: u8) -> [u8; 6] {
    let [low, high] = port.to_le_bytes();
    [0xba, low, high, 0xb0, value, 0xee]
}

fn partition(state: &StateDir) -> Populated {
    let plan = Plan::fit(
        &Inventory::survey().unwrap(),
        &PartitionSpec::new("board", 1, 16 << 20).unwrap(),
    )
    .unwrap();
    let partition = plan.reserve(state).unwrap().populate(&|_| {}).unwrap();
    let vector = |offset: u16| [offset.to_le_bytes(), [0, 0]].concat();
    let memory = partition.memory();
    for (address, bytes) in [
        (u64::from(CODE), main_code()),
        (u64::from(ECHO), echo_code()),
        (u64::from(POWER), power_code()),
        (0x24 * 4, vector(ECHO)),
        (0x29 * 4, vector(POWER)),
    ] {
        memory.write(GuestAddress(address), &bytes).unwrap();
    }
    partition
}

struct Line(Sender<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes
            .iter()
            .try_for_each(|&byte| self.0.send(byte).map_err(io::Error::other))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs the guest's only vCPU until `done`.
fn run(partition: &Populated, done: &AtomicBool) {
    let mut vcpu = partition.vm().fd().create_vcpu(0).unwrap();
    let mut segments = vcpu.get_sregs().unwrap();
    (segments.cs.base, segments.cs.selector) = (0, 0);
    vcpu.set_sregs(&segments).unwrap();
    let mut registers = vcpu.get_regs().unwrap();
    (registers.rip, registers.rsp) = (u64::from(CODE), u64::from(CODE));
    vcpu.set_regs(&registers).unwrap();
    let mut hit = LastHit::new();
    while !done.load(Ordering::Acquire) {
        match vcpu.run().unwrap() {
            VcpuExit::IoIn(port, data) => partition.pio().read(&mut hit, port, data),
            VcpuExit::IoOut(port, data) => partition.pio().write(&mut hit, port, data),
            other => panic!("{other:?}"),
        };
    }
}

fn receive(line: &Receiver<u8>, count: usize) -> Vec<u8> {
    (0..count).map(|_| line.recv_timeout(PATIENCE).unwrap()).collect()
}

#[test]
fn a_guest_echoes_by_interrupt_and_powers_off_at_the_button() {
    let directory = tempfile::tempdir().unwrap();
    let partition = Arc::new(partition(&StateDir::at(&directory.path().join("state")).unwrap()));
    let (sent, line) = channel();
    let (room, has_room) = channel();
    let (done, room) = (Arc::new(AtomicBool::new(false)), Mutex::new(room));
    let (told, stop) = (Mutex::new(Vec::new()), Arc::clone(&done));
    let spec = BoardSpec {
        console: Console {
            out: Box::new(Line(sent)),
            room: Box::new(move || room.lock().unwrap().send(()).unwrap()),
        },
        events: Arc::new(move |event| {
            told.lock().unwrap().push(event);
            assert_eq!(*told.lock().unwrap(), [BoardEvent::PowerOff]);
            stop.store(true, Ordering::Release);
        }),
        clock_offset: 0,
        sooner: Arc::new(|| ()),
        root_buses: Vec::new(),
        root_ports: vec![],
        config_ports: ConfigPorts::default(),
        ecam: EcamPlace::default(),
        clock_memory: Vec::new(),
    };
    let board = Board::attach(&partition, spec).unwrap();
    let lent = Arc::clone(&partition);
    // Not scoped: a guest that hangs must not keep a failed test from ending.
    let vcpu = thread::spawn(move || run(&lent, &done));
    assert_eq!(receive(&line, 1), b">");
    let text = b"more than sixteen bytes, so that the receiver must refuse some of them";
    let mut rest = &text[..];
    while !rest.is_empty() {
        rest = &rest[board.serial().receive(rest)..];
        if !rest.is_empty() {
            has_room.recv_timeout(PATIENCE).unwrap();
        }
    }
    assert_eq!(receive(&line, text.len()), text);
    board.power().press_power_button();
    vcpu.join().unwrap();
    assert!(!board.power().is_power_button_pending());
    drop(board);
    Arc::into_inner(partition).unwrap().release().unwrap();
}
