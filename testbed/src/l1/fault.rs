//! The emulator's own faults, told from the product's. Only what is known is a fault:
//! anything else that ends a machine is reported as it is and never rerun.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

/// A known fault of the emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// QEMU 10 and 11 abort when a nested guest's CR8 write raises an interrupt.
    LockAssertion,
    /// The emulator died of a signal that nobody sent it.
    Crash,
    /// The physical server's kernel died, which it does while nesting two CPUs.
    KernelPanic,
    /// The physical server stopped answering; a lost interrupt leaves it so.
    Hang {
        /// Whether the emulator was using a CPU.
        spinning: bool,
    },
    /// The physical server answers, but its kernel waits for itself: a grace period of RCU does not end. A program
    /// cannot cause that; a processor that lost an interrupt can.
    Stall,
    /// A CPU of the physical server slept with an interrupt in service, so that none below that reaches it any more, or slept on with one
    /// requested.
    LostInterrupt,
    /// A kernel, here or in a guest, went round at one place with interrupts off for most of a minute, translated anew or not: seen of a guest of
    /// one CPU whose interrupt handler waited for a lock.
    Spin,
    /// A guest died of what neither it nor its test did: its CPU left its code, or its kernel found its own stack overwritten.
    /// The same happens to the physical server's kernel ([`Fault::KernelPanic`]).
    GuestDeath,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockAssertion => out.write_str("the emulator aborted (interrupt raised without its lock)"),
            Self::Crash => out.write_str("the emulator crashed"),
            Self::LostInterrupt => out.write_str("a processor of the emulated server lost an interrupt"),
            Self::Spin => out.write_str("a kernel spun with interrupts off"),
            Self::KernelPanic => out.write_str("the emulated server's kernel died"),
            Self::Hang { spinning: true } => out.write_str("the emulated server spun without answering"),
            Self::GuestDeath => out.write_str("a guest died that nobody had let die"),
            Self::Stall => out.write_str("the emulated server's kernel waited for its own processors"),
            Self::Hang { spinning: false } => out.write_str("the emulated server stopped answering"),
        }
    }
}

/// The fault that the emulator's log and the kernel's console tell of.
pub fn in_logs(emulator: &str, console: &str) -> Option<Fault> {
    if emulator.contains("tcg_handle_interrupt: assertion failed") {
        return Some(Fault::LockAssertion);
    }
    last_sign(console).map(|_| Fault::KernelPanic)
}

/// The crash that the end of the emulator's process tells of. The testbed itself ends it by other signals.
pub(crate) fn crash(status: ExitStatus) -> Option<Fault> {
    let signal = Signal::from_named_raw(status.signal()?)?;
    let crashes = [Signal::SEGV, Signal::BUS, Signal::ILL, Signal::ABORT, Signal::FPE];
    crashes.contains(&signal).then_some(Fault::Crash)
}

/// The death of a guest that a line of its VMM or of its console tells of.
pub(crate) fn in_guest(line: &str) -> Option<Fault> {
    let crashed = line.contains("the guest crashed: ") && CRASHES.iter().any(|crash| line.contains(crash));
    let died = DEATHS.iter().any(|sign| line.contains(sign));
    (crashed || died).then_some(Fault::GuestDeath)
}

/// The line of a kernel's console by which it says that it is dead.
pub(crate) fn last_sign(console: &str) -> Option<&str> {
    console
        .lines()
        .rfind(|line| SIGNS.iter().any(|sign| line.contains(sign)))
}

/// The stall that the kernel's console tells of, or that shows in where a task stands.
pub(crate) fn stall(console: &str, stacks: &str) -> Option<Fault> {
    let told = |line: &str| {
        STALLS
            .iter()
            .any(|words| words.iter().all(|word| line.contains(word)))
    };
    let waits = |stack: &str| {
        let mut frames = stack
            .split([' ', '\n'])
            .filter_map(|frame| frame.split_once("+0x"));
        frames.any(|(function, _)| WAITS_FOR_RCU.contains(&function))
    };
    (console.lines().any(told) || waits(stacks)).then_some(Fault::Stall)
}

/// The stall of a kernel that said twice, 21 s apart, that a processor's timers do not run, although that is idle.
pub(crate) fn dead_timer(console: &str) -> Option<Fault> {
    console.matches(DEAD_TIMER).nth(1).map(|_| Fault::Stall)
}

/// Whether the process `id` uses most of a CPU.
pub fn is_spinning(id: u32) -> bool {
    let Some(before) = ticks_of(id) else { return false };
    std::thread::sleep(Duration::from_secs(2));
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    ticks_of(id).is_some_and(|after| after.saturating_sub(before) > ticks_per_second * 3 / 2)
}

fn ticks_of(id: u32) -> Option<u64> {
    parse_ticks(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
}

/// User and system time in a line of `/proc/ID/stat`.
fn parse_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

const SIGNS: [&str; 4] = [
    "Kernel panic - not syncing",
    "PANIC: double fault",
    "BUG: stack guard page was hit",
    "BUG: TASK stack guard",
];

/// By what a CPU ends that executes what is no code.
const CRASHES: [&str; 2] = ["triple fault", "KVM internal error"];
/// By what a kernel ends whose memory is not what it wrote. Other panics have a reason, such as a disk that is not there.
const DEATHS: [&str; 5] = [
    "PANIC: double fault",
    "BUG: stack guard page was hit",
    "BUG: TASK stack guard",
    "corrupted stack end detected",
    "stack-protector: Kernel stack is corrupted",
];

/// Words that stand together in a line by which the kernel says that a processor does not come back to it.
const STALLS: [&[&str]; 3] = [
    &["rcu: INFO:", "stall"],
    &["rcu:", "kthread starved for"],
    &["watchdog: BUG: soft lockup"],
];
/// `rcu_check_gp_kthread_expired_fqs_timer` of Linux.
const DEAD_TIMER: &str = "Possible timer handling issue on cpu=";
/// Where a task waits for every processor to have passed through the scheduler, which takes milliseconds.
const WAITS_FOR_RCU: [&str; 4] = [
    "rcu_barrier",
    "synchronize_rcu",
    "synchronize_rcu_expedited",
    "__wait_rcu_gp",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_faults_are_recognized() {
        let abort =
            "ERROR:../system/cpus.c:504:tcg_handle_interrupt: assertion failed: (bql_locked())\nBail out!";
        assert_eq!(in_logs(abort, ""), Some(Fault::LockAssertion));
        let panic = "[   12.3] Kernel panic - not syncing: Fatal exception in interrupt";
        assert_eq!(in_logs("", panic), Some(Fault::KernelPanic));
        assert_eq!(
            in_logs("", "PANIC: double fault, error_code: 0x0"),
            Some(Fault::KernelPanic)
        );
    }

    #[test]
    fn anything_else_is_not_a_fault_of_the_emulator() {
        assert_eq!(
            in_logs("qemu: could not open disk image", "reboot: Power down"),
            None
        );
        assert_eq!(in_logs("", "test panicked at src/lib.rs"), None);
    }

    #[test]
    fn an_emulator_that_crashed_is_told_from_one_that_was_ended() {
        let ended = |signal: Signal| crash(ExitStatus::from_raw(signal.as_raw()));
        assert_eq!(ended(Signal::SEGV), Some(Fault::Crash));
        assert_eq!(ended(Signal::ABORT), Some(Fault::Crash));
        assert_eq!(ended(Signal::TERM), None);
        assert_eq!(ended(Signal::KILL), None);
        assert_eq!(crash(ExitStatus::from_raw(1 << 8)), None);
    }

    #[test]
    fn a_guest_that_dies_for_no_reason_is_told_from_one_that_has_one() {
        for line in [
            "vmm: the guest crashed: vCPU 0 at 0xfff0: triple fault: the guest's processor shut down",
            "vmm: the guest crashed: vCPU 0 at 0x1000000: KVM internal error 1, data [0, 400]",
            "[  300.6] Kernel panic - not syncing: corrupted stack end detected inside scheduler",
        ] {
            assert_eq!(in_guest(line), Some(Fault::GuestDeath), "{line}");
        }
        for line in [
            "[    2.1] Kernel panic - not syncing: VFS: Unable to mount root fs",
            "vmm: the guest crashed: the flag was read",
            "triple fault",
        ] {
            assert_eq!(in_guest(line), None, "{line}");
        }
    }

    #[test]
    fn a_kernel_that_waits_for_its_own_processors_is_told_from_a_program_that_hangs() {
        let stack = "  thread 1089 (vmm): rcu_barrier+0x1f6/0x2d0 kvm_destroy_vm+0x1/0x2";
        assert_eq!(stall("", stack), Some(Fault::Stall));
        let told = "[   40.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:";
        assert_eq!(stall(told, ""), Some(Fault::Stall));
        let asleep = "  thread 7 (rcu_barrier): futex_wait_queue+0x60/0x90 __synchronize_srcu+0x1/0x2";
        assert_eq!(stall("rcu: Hierarchical RCU implementation.", asleep), None);
    }

    #[test]
    fn a_timer_that_is_late_twice_is_dead() {
        let once = "[ 41.2] rcu: \tPossible timer handling issue on cpu=1 timer-softirq=866\n";
        assert_eq!(dead_timer(once), None);
        assert_eq!(dead_timer(&once.repeat(2)), Some(Fault::Stall));
    }

    #[test]
    fn cpu_time_is_read_past_a_name_with_brackets() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 70 30 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse_ticks(stat), Some(100));
        assert_eq!(parse_ticks("nonsense"), None);
        assert!(ticks_of(std::process::id()).is_some());
    }

    #[test]
    fn a_sleeping_process_does_not_spin() {
        assert!(!is_spinning(u32::MAX));
    }
}
