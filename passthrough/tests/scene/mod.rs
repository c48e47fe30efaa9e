//! Shared by the tests on real devices: a guest without an operating system, whose one CPU pokes and peeks memory.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test uses its part, and ends where the host fails it"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kvm_ioctls::{VcpuExit, VcpuFd};
use pellucid_partition::{
    Bdf, ConfigHandler, GuestAddress, Inventory as Host, LastHit, MmioHandler, PartitionSpec, PioHandler,
    Plan, Populated, StateDir,
};
use pellucid_passthrough::{BarShape, Function, Guest, Inventory, Placement, PlacementWindows};

/// A partition of 64 MiB with one CPU in flat 32-bit mode.
pub(crate) struct Scene {
    _populated: Populated,
    pub(crate) guest: Guest,
    pub(crate) windows: PlacementWindows,
    cpu: VcpuFd,
    hit: LastHit<dyn MmioHandler>,
    port_hit: LastHit<dyn PioHandler>,
}

/// How a device is made to raise its interrupt, and told that it was taken: instructions for a CPU that has the BAR in EDI, and may
/// change ESI.
pub(crate) struct Raiser {
    pub(crate) bar: u64,
    pub(crate) raise: Vec<u8>,
    pub(crate) acknowledge: Vec<u8>,
}

impl Raiser {
    /// QEMU's `edu`.
    pub(crate) fn edu(bar: u64) -> Raiser {
        Raiser {
            bar,
            // mov dword [edi+0x60], 1; mov dword [edi+0x64], 1
            raise: vec![0xc7, 0x47, 0x60, 1, 0, 0, 0],
            acknowledge: vec![0xc7, 0x47, 0x64, 1, 0, 0, 0],
        }
    }
}

impl Scene {
    pub(crate) fn new(state: &StateDir, name: &str) -> Scene {
        let spec = PartitionSpec::new(name, 1, 64 << 20).unwrap();
        let plan = Plan::fit(&Host::survey().unwrap(), &spec).unwrap();
        let windows = PlacementWindows::of(plan.layout());
        let populated = plan.reserve(state).unwrap().populate(&|_| {}).unwrap();
        let cpu = populated.vm().fd().create_vcpu(0).unwrap();
        flat_mode(&cpu);
        let guest = Guest::of(&populated);
        Scene {
            _populated: populated,
            guest,
            windows,
            cpu,
            hit: LastHit::new(),
            port_hit: LastHit::new(),
        }
    }

    pub(crate) fn place(&self, function: &Function) -> Vec<BarShape> {
        Placement::fit(&self.windows, &[function])
            .unwrap()
            .bars(function.bdf)
            .to_vec()
    }

    /// mov [edi], eax
    pub(crate) fn poke(&mut self, address: u64, value: u32) {
        self.run([0x89, 0x07, 0xe6, DONE], address, value);
    }

    /// mov eax, [edi]
    pub(crate) fn peek(&mut self, address: u64) -> u32 {
        self.run([0x8b, 0x07, 0xe6, DONE], address, 0)
    }

    pub(crate) fn await_value(&mut self, address: u64, mask: u32, wanted: u32) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.peek(address) & mask != wanted {
            assert!(Instant::now() < end, "{address:#x} is {:#x}", self.peek(address));
        }
    }

    /// Lets the CPU take an interrupt of this vector: its handler writes `acknowledge` (address, value), then the local
    /// APIC's end-of-interrupt register.
    pub(crate) fn take_interrupt(&mut self, vector: u8, acknowledge: (u64, u32)) {
        // mov [edi], eax; mov dword [0xfee000b0], 0; out DONE, al
        let handler = [
            0x89, 0x07, 0xc7, 0x05, 0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0, 0xe6, DONE,
        ];
        self.take_by(&[vector], &handler);
        // sti; nop; jmp $
        self.run([0xfb, 0x90, 0xeb, 0xfe], acknowledge.0, acknowledge.1);
    }

    /// Has the CPU raise a device's interrupt so many times, waiting each time for the handler that all of `vectors` have: how many came, and
    /// how many did not in time.
    pub(crate) fn raise_and_count(&mut self, raiser: &Raiser, vectors: &[u8], times: u32) -> (u32, u32) {
        let [count, lost] = [COUNT, LOST].map(|at| (at as u32).to_le_bytes());
        // inc dword [COUNT]; acknowledge; mov dword [0xfee000b0], 0; iretd
        let end = [0xc7, 0x05, 0xb0, 0x00, 0xe0, 0xfe, 0, 0, 0, 0, 0xcf];
        let handler = [&[0xff, 0x05][..], &count, &raiser.acknowledge, &end].concat();
        self.take_by(vectors, &handler);
        self.write_memory(COUNT, &[0; 8]);
        let again = (-31 - raiser.raise.len() as i8).cast_unsigned();
        let program = [
            // sti; again: mov ebx, [COUNT]; mov edx, SPINS; raise
            &[0xfb, 0x8b, 0x1d][..],
            &count,
            &[0xba, 0, 0, 0, 4],
            &raiser.raise,
            // wait: cmp [COUNT], ebx; jne came; dec edx; jnz wait; inc dword [LOST]
            &[0x39, 0x1d],
            &count,
            &[0x75, 0x09, 0x4a, 0x75, 0xf5, 0xff, 0x05],
            &lost,
            // came: dec ecx; jnz again; cli; out DONE, al
            &[0x49, 0x75, again, 0xfa, 0xe6, DONE],
        ];
        self.execute(&program.concat(), [raiser.bar as u32, 0, times]);
        let [mut counted, mut lost] = [[0; 4]; 2];
        self.read_memory(COUNT, &mut counted);
        self.read_memory(LOST, &mut lost);
        (u32::from_le_bytes(counted), u32::from_le_bytes(lost))
    }

    /// Raises so many interrupts, of which none may be lost, and tells how many a second came.
    pub(crate) fn loses_none(&mut self, raiser: &Raiser, (vectors, times): (&[u8], u32), kind: &str) {
        let begun = Instant::now();
        assert_eq!(self.raise_and_count(raiser, vectors, times), (times, 0), "{kind}");
        let rate = f64::from(times) / begun.elapsed().as_secs_f64();
        println!("{kind}: {rate:.0} interrupts/s, {times} raised, none lost");
    }

    /// mov edx, edi; in eax, dx
    pub(crate) fn port_in(&mut self, port: u64) -> u32 {
        self.execute(&[0x89, 0xfa, 0xed, 0xe6, DONE], [port as u32, 0, 0])
    }

    /// mov edx, edi; out dx, eax
    pub(crate) fn port_out(&mut self, port: u64, value: u32) {
        self.execute(&[0x89, 0xfa, 0xef, 0xe6, DONE], [port as u32, value, 0]);
    }

    /// Reads an address so many times without leaving the guest for anything else.
    pub(crate) fn peek_often(&mut self, address: u64, times: u32) {
        // again: mov eax, [edi]; dec ecx; jnz again; out DONE, al
        self.execute(
            &[0x8b, 0x07, 0x49, 0x75, 0xfb, 0xe6, DONE],
            [address as u32, 0, times],
        );
    }

    /// Gives these vectors a handler.
    fn take_by(&mut self, vectors: &[u8], handler: &[u8]) {
        let mut gate = (u64::from(HANDLER as u16) | 8 << 16 | 0x8e00 << 32).to_le_bytes();
        gate[6..].copy_from_slice(&[0, 0]);
        for vector in vectors {
            self.write_memory(GATES + u64::from(*vector) * 8, &gate);
        }
        self.write_memory(DESCRIPTORS + 8, &0x00cf_9b00_0000_ffff_u64.to_le_bytes());
        self.write_memory(HANDLER, handler);
        let mut sregs = self.cpu.get_sregs().unwrap();
        (sregs.gdt.base, sregs.gdt.limit, sregs.idt.base, sregs.idt.limit) = (DESCRIPTORS, 15, GATES, 0x7ff);
        self.cpu.set_sregs(&sregs).unwrap();
    }

    /// Whether the CPU's local APIC has an interrupt of this vector waiting.
    pub(crate) fn interrupt_waits(&self, vector: u8) -> bool {
        let lapic = self.cpu.get_lapic().unwrap();
        let at = 0x200 + usize::from(vector / 32) * 0x10 + usize::from(vector % 32 / 8);
        lapic.regs[at] as u8 >> (vector % 8) & 1 != 0
    }

    pub(crate) fn read_memory(&self, address: u64, data: &mut [u8]) {
        self.guest.memory.read(GuestAddress(address), data).unwrap();
    }

    pub(crate) fn write_memory(&self, address: u64, data: &[u8]) {
        self.guest.memory.write(GuestAddress(address), data).unwrap();
    }

    fn run(&mut self, code: [u8; 4], address: u64, value: u32) -> u32 {
        self.execute(&code, [address as u32, value, 0])
    }

    /// Runs 32-bit code that ends by writing to the port DONE, with EDI, EAX and ECX; EAX afterwards.
    fn execute(&mut self, code: &[u8], [edi, eax, ecx]: [u32; 3]) -> u32 {
        self.write_memory(CODE, code);
        let mut regs = self.cpu.get_regs().unwrap();
        (regs.rip, regs.rflags, regs.rsp) = (CODE, 2, STACK);
        (regs.rdi, regs.rax, regs.rcx) = (edi.into(), eax.into(), ecx.into());
        self.cpu.set_regs(&regs).unwrap();
        loop {
            match self.cpu.run().unwrap() {
                VcpuExit::IoOut(port, _) if port == u16::from(DONE) => break,
                VcpuExit::IoIn(port, data) => drop(self.guest.pio.read(&mut self.port_hit, port, data)),
                VcpuExit::IoOut(port, data) => drop(self.guest.pio.write(&mut self.port_hit, port, data)),
                VcpuExit::MmioRead(at, data) => drop(self.guest.mmio.read(&mut self.hit, at, data)),
                VcpuExit::MmioWrite(at, data) => drop(self.guest.mmio.write(&mut self.hit, at, data)),
                other => panic!("{other:?}"),
            }
        }
        self.cpu.get_regs().unwrap().rax as u32
    }
}

fn flat_mode(cpu: &VcpuFd) {
    let mut sregs = cpu.get_sregs().unwrap();
    sregs.cr0 |= 1;
    let flat = |mut segment: kvm_bindings::kvm_segment, type_| {
        (segment.base, segment.limit, segment.selector) = (0, u32::MAX, 8);
        (segment.g, segment.db, segment.s, segment.present, segment.type_) = (1, 1, 1, 1, type_);
        segment
    };
    sregs.cs = flat(sregs.cs, 0xb);
    (sregs.ds, sregs.es, sregs.ss) = (flat(sregs.ds, 3), flat(sregs.es, 3), flat(sregs.ss, 3));
    cpu.set_sregs(&sregs).unwrap();
    // Spurious interrupt register: the local APIC enabled by software, as an operating system would.
    let mut lapic = cpu.get_lapic().unwrap();
    (lapic.regs[0xf0], lapic.regs[0xf1]) = (-1, 1);
    // And the old interrupt controller's pin masked, whose vectors nobody has set up.
    lapic.regs[0x352] = 1;
    cpu.set_lapic(&lapic).unwrap();
}

/// A state directory that goes with the test.
pub(crate) fn state() -> (tempfile::TempDir, StateDir) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::at(&directory.path().join("state")).unwrap();
    (directory, state)
}

pub(crate) fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

/// Where the MSI capability is.
#[track_caller]
pub(crate) fn msi(config: &dyn ConfigHandler) -> u16 {
    capability(config, 0x05)
}

/// Where the capability with this id is.
#[track_caller]
pub(crate) fn capability(config: &dyn ConfigHandler, id: u8) -> u16 {
    let byte = |at: u16| {
        let mut data = [0];
        config.read(at, &mut data);
        data[0]
    };
    let mut at = u16::from(byte(0x34));
    while byte(at) != id {
        at = u16::from(byte(at + 1));
        assert_ne!(at, 0, "no capability {id:#x}");
    }
    at
}

/// Has the function's MSI raise `vector` on CPU 0; returns where the capability is.
#[track_caller]
pub(crate) fn arm_msi(config: &dyn ConfigHandler, vector: u8) -> u16 {
    let at = msi(config);
    config.write(at + 4, &0xfee0_0000_u32.to_le_bytes());
    config.write(at + 8, &[0; 4]);
    config.write(at + 12, &[vector, 0]);
    config.write(at + 2, &[0x01, 0]);
    at
}

pub(crate) fn driver_of(device: &str) -> Option<String> {
    Inventory::survey()
        .unwrap()
        .function(bdf(device))
        .unwrap()
        .driver
        .bound
        .clone()
}

/// The disk of an NVMe controller, once its driver has found it.
pub(crate) fn disk_of(device: &str) -> PathBuf {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let controllers = std::fs::read_dir(format!("/sys/bus/pci/devices/{device}/nvme"));
        for controller in controllers.into_iter().flatten().flatten() {
            // `nvme1c1n1`, the path, or without multipath `nvme1n1`, the disk.
            let paths = std::fs::read_dir(controller.path()).unwrap().flatten();
            let names = paths.map(|path| path.file_name().to_string_lossy().into_owned());
            for name in names.filter(|name| name.starts_with("nvme")) {
                let (path, namespace) = name.rsplit_once('n').unwrap();
                let node = PathBuf::from(format!("/dev/{}n{namespace}", path.split('c').next().unwrap()));
                if node.exists() {
                    return node;
                }
            }
        }
        assert!(Instant::now() < end, "{device} has no disk");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Its first block.
pub(crate) fn first_block(device: &str) -> Vec<u8> {
    use std::io::Read;
    let mut block = vec![0; 4096];
    std::fs::File::open(disk_of(device))
        .unwrap()
        .read_exact(&mut block)
        .unwrap();
    block
}

/// Where the CPU's instructions are.
const CODE: u64 = 0x1000;
/// An interrupt handler, the table of gates, the segment descriptors, and the end of a stack.
const HANDLER: u64 = 0x2000;
const GATES: u64 = 0x3000;
const DESCRIPTORS: u64 = 0x4000;
const STACK: u64 = 0x6000;
/// Interrupts that came, and that did not.
const COUNT: u64 = 0x6100;
const LOST: u64 = 0x6104;
/// The port that ends a run.
const DONE: u8 = 0x99;
