//! What the CPUs of a machine did at a moment, as the emulator's monitor tells it: evidence of why a machine is silent.

use std::fmt;
use std::time::Duration;

/// A machine at a moment of a silence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    /// How long it had been silent.
    pub(crate) silence: Duration,
    /// In the order of their numbers.
    pub(crate) cpus: Vec<Cpu>,
}

/// A CPU. In a virtual machine of the machine's own, its registers are the guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cpu {
    halted: bool,
    user: bool,
    instruction: u64,
    stack: u64,
    space: u64,
    flags: u64,
    /// The vector of the highest interrupt that was taken and not ended.
    in_service: Option<u8>,
    /// The highest that waits.
    requested: Option<u8>,
    /// All of its registers, as they were printed.
    registers: String,
    /// What its timer counts down from.
    timer: String,
}

impl Look {
    /// Reads what `info registers -a` printed, and `info lapic N` for each CPU.
    pub(crate) fn read(
        silence: Duration,
        registers: &str,
        mut controller: impl FnMut(usize) -> String,
    ) -> Self {
        let cpus = registers.split("CPU#").skip(1).enumerate();
        let cpus = cpus
            .map(|(number, text)| Cpu::read(text, &controller(number)))
            .collect();
        Self { silence, cpus }
    }

    /// The number of a CPU that is not halted.
    pub(crate) fn running(&self) -> Option<usize> {
        self.cpus.iter().position(|cpu| !cpu.halted)
    }

    /// Whether a CPU is halted, as it was in `earlier`, by an interrupt that the emulator lost. Either one is in service both times: kernels end
    /// the service before they do anything else. Or one is requested, the CPU takes interrupts, and not a register is another than
    /// before, nor was its timer set since: it was never told. A CPU that was only idle at both looks has other counters in its registers.
    pub(crate) fn lost_interrupt(&self, earlier: &Self) -> bool {
        let mut pairs = self.cpus.iter().zip(&earlier.cpus);
        pairs.any(|(cpu, before)| {
            let served = cpu.in_service.is_some() && cpu.in_service == before.in_service;
            let untold = cpu.requested.is_some() && cpu.flags & INTERRUPTS_ON != 0 && cpu == before;
            cpu.halted && before.halted && (served || untold)
        })
    }

    /// Whether a CPU stands where one stood in `earlier` (a virtual one moves between CPUs), in a kernel, with interrupts off and every general
    /// register the same: it goes round in a loop that nothing can end.
    pub(crate) fn spins(&self, earlier: &Self) -> bool {
        let deaf = |cpu: &&Cpu| !cpu.halted && !cpu.user && cpu.flags & INTERRUPTS_ON == 0;
        let before = || earlier.cpus.iter().filter(deaf);
        let mut now = self.cpus.iter().filter(deaf);
        now.any(|cpu| before().any(|before| before.place() == cpu.place()))
    }
}

impl Cpu {
    fn read(registers: &str, controller: &str) -> Self {
        let of = |name: &str| number_after(registers, name).unwrap_or_default();
        Self {
            halted: of("HLT=") == 1,
            user: of("CPL=") == 3,
            instruction: of("RIP=").max(of("EIP=")),
            stack: of("RSP=").max(of("ESP=")),
            space: of("CR3="),
            flags: of("RFL=").max(of("EFL=")),
            in_service: highest_of(controller, "ISR"),
            requested: highest_of(controller, "IRR"),
            registers: registers.to_owned(),
            timer: timer(controller),
        }
    }

    /// Where it is in which program, and with what in its general registers, the stack's among them.
    fn place(&self) -> (u64, u64, u64, &str) {
        let (before, _) = self.registers.split_once("RIP=").unwrap_or_default();
        let (_, general) = before.split_once("RAX=").unwrap_or_default();
        (self.instruction, self.space, self.flags, general)
    }
}

impl fmt::Display for Look {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "after {} s of silence:", self.silence.as_secs())?;
        for (number, cpu) in self.cpus.iter().enumerate() {
            write!(out, "\n  CPU {number} {cpu}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let does = if self.halted { "halted" } else { "ran" };
        let mode = if self.user { "a program" } else { "a kernel" };
        write!(
            out,
            "{does} at {:#x} of {mode}, rsp {:#x}, cr3 {:#x}, rflags {:#x}",
            self.instruction, self.stack, self.space, self.flags
        )?;
        if let Some(vector) = self.in_service {
            write!(out, ", vector {vector} in service")?;
        }
        if let Some(vector) = self.requested {
            write!(out, ", vector {vector} requested")?;
        }
        Ok(())
    }
}

/// The hexadecimal number behind the first `name`.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    let end = rest.find(|digit: char| !digit.is_ascii_hexdigit());
    u64::from_str_radix(&rest[..end.unwrap_or(rest.len())], 16).ok()
}

/// The highest vector in the line of a register of the interrupt controller, which lists them, each perhaps with marks behind it.
fn highest_of(controller: &str, register: &str) -> Option<u8> {
    let line = controller.lines().find_map(|line| line.strip_prefix(register))?;
    let vectors = line.split(|letter: char| !letter.is_ascii_digit());
    vectors.filter_map(|vector| vector.parse().ok()).max()
}

/// What the timer of the interrupt controller counts down from.
fn timer(controller: &str) -> String {
    let (_, rest) = controller.split_once("initial_count = ").unwrap_or_default();
    rest.split(' ').next().unwrap_or_default().to_owned()
}

/// In RFLAGS (AMD64 Architecture Programmer's Manual, volume 2, 3.1.6).
const INTERRUPTS_ON: u64 = 1 << 9;

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a server that hung, as QEMU 10.0.2 printed it, and shortened.
    const REGISTERS: &str = "\nCPU#0\n\
        RAX=ffffffff95e4e760 RBX=0000000000000000 RCX=7fffffdfd0f81aff RDX=4000000000000000\n\
        RSI=0000000000000000 RDI=000000000007b694 RBP=ffffffff96e1aa40 RSP=ffffffff96e03e90\n\
        RIP=ffffffff95e4e8cb RFL=00000206 [-----P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\n\
        CR0=80050033 CR2=0000000000583157 CR3=0000000103b4e000 CR4=00751ef0\n\
        \nCPU#1\n\
        RSI=0000000000000000 RDI=000000000007b694 RBP=ffffffff96e1aa40 RSP=00007ffd0c59b3a8\n\
        RIP=000056228f3bda80 RFL=00000202 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=0\n\
        CR0=80050033 CR2=0000000000583157 CR3=0000000103f92000 CR4=00751ef0\n";
    const STUCK: &str = "dumping local APIC state for CPU 0\n\n\
        SPIV\t 0x000001ff APIC enabled, focus=off, spurious vec 255\n\
        ISR\t 251 \nIRR\t 35 236 \n\nAPR 0x00 TPR 0x00 DFR 0x0f LDR 0x01 PPR 0xf0\n";
    const QUIET: &str = "ISR\t (none)\nIRR\t (none)\n";

    fn look(first: &str) -> Look {
        Look::read(Duration::from_secs(30), REGISTERS, |cpu| {
            if cpu == 0 { first } else { QUIET }.to_owned()
        })
    }

    #[test]
    fn what_each_cpu_did_is_read_and_told() {
        let told = look(STUCK).to_string();
        assert_eq!(
            told,
            "after 30 s of silence:\n  CPU 0 halted at 0xffffffff95e4e8cb of a kernel, rsp 0xffffffff96e03e90, cr3 0x103b4e000, \
             rflags 0x206, vector 251 in service, vector 236 requested\n  CPU 1 ran at 0x56228f3bda80 of a program, \
             rsp 0x7ffd0c59b3a8, cr3 0x103f92000, rflags 0x202"
        );
    }

    #[test]
    fn a_cpu_that_sleeps_with_an_interrupt_in_service_twice_has_lost_one() {
        assert!(look(STUCK).lost_interrupt(&look(STUCK)));
        for (now, before) in [(STUCK, QUIET), (QUIET, STUCK), (QUIET, QUIET)] {
            assert!(!look(now).lost_interrupt(&look(before)));
        }
        let other = STUCK.replace("251", "252");
        assert!(!look(&other).lost_interrupt(&look(STUCK)));
    }

    #[test]
    fn a_cpu_that_slept_on_with_an_interrupt_requested_was_not_told_of_it() {
        const WAITS: &str = "ISR\t (none)\nIRR\t 236 \n\
            Timer\t DCR=0xb (divide by 1) initial_count = 62503 current_count = 0\n";
        assert!(look(WAITS).lost_interrupt(&look(WAITS)));
        assert!(!look(WAITS).lost_interrupt(&look(QUIET)));
        let other = |from: &str, to: &str| {
            let registers = REGISTERS.replacen(from, to, 1);
            Look::read(Duration::ZERO, &registers, |cpu| {
                if cpu == 0 { WAITS } else { QUIET }.to_owned()
            })
        };
        let woke = other("RFL=00000206", "RFL=00000212");
        assert!(!look(WAITS).lost_interrupt(&woke), "it has run since");
        let idled = other("RDI=000000000007b694", "RDI=000000000007b6a8");
        assert!(
            !look(WAITS).lost_interrupt(&idled),
            "it sleeps again, at the same place"
        );
        let armed = WAITS.replace("62503", "62504");
        assert!(
            !look(&armed).lost_interrupt(&look(WAITS)),
            "it has set its timer since"
        );
        let counted = WAITS.replace("current_count = 0", "current_count = 7");
        assert!(
            look(&counted).lost_interrupt(&look(WAITS)),
            "that counts by itself"
        );
        let deaf = other("RFL=00000206", "RFL=00000006");
        assert!(!deaf.lost_interrupt(&deaf), "it takes none");
    }

    #[test]
    fn a_kernel_that_stands_still_with_interrupts_off_spins_on_whichever_cpu() {
        let stuck = REGISTERS
            .replace("HLT=1", "HLT=0")
            .replacen("RFL=00000206", "RFL=00000006", 1);
        let look = |registers: &str| Look::read(Duration::ZERO, registers, |_| QUIET.to_owned());
        let moved = stuck.replace("CPU#0", "CPU#9").replace("CPU#1", "CPU#0");
        assert!(look(&stuck).spins(&look(&moved)));
        for (from, to) in [
            ("RFL=00000006", "RFL=00000206"),
            ("HLT=0", "HLT=1"),
            ("CPL=0", "CPL=3"),
            ("RIP=ffffffff95e4e8cb", "RIP=ffffffff95e4e8cd"),
            ("RBX=0000000000000000", "RBX=0000000000000001"),
        ] {
            let other = look(&stuck.replacen(from, to, 1));
            assert!(!look(&stuck).spins(&other), "{to}");
            assert!(!other.spins(&look(&stuck)), "{to}");
        }
    }

    #[test]
    fn the_first_that_is_not_halted_runs() {
        assert_eq!(look(QUIET).running(), Some(1));
        let asleep = REGISTERS.replace("HLT=0", "HLT=1");
        let look = Look::read(Duration::ZERO, &asleep, |_| QUIET.to_owned());
        assert_eq!(look.running(), None);
    }

    #[test]
    fn a_cpu_at_work_may_have_one_in_service() {
        let running = REGISTERS.replace("HLT=1", "HLT=0");
        let look = Look::read(Duration::ZERO, &running, |_| STUCK.to_owned());
        assert!(!look.lost_interrupt(&look));
    }

    #[test]
    fn nonsense_is_no_cpu() {
        assert!(
            Look::read(Duration::ZERO, "unknown command", |_| String::new())
                .cpus
                .is_empty()
        );
        let odd = Look::read(Duration::ZERO, "CPU#0 RIP=zz HLT=", |_| "ISR 999".to_owned());
        assert_eq!(odd.cpus[0].in_service, None);
    }
}
