//! A fault of the emulator, and its cure. While one CPU writes over an instruction, as kernels do for their static branches, the
//! emulator's thread of another CPU can translate the old one and keep that: memory holds a `nop`, the CPU goes on to execute
//! the breakpoint that stood there for a moment, forever. QEMU forgets every translation when its debugger has made a step, which
//! nothing in the machine can see. That is done here whenever a machine has shown no sign of life for a while.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::debugger::Debugger;
use crate::l1::fault::Fault;
use crate::look::Look;

/// When something was last heard of a machine. As a writer, it hears what is written.
#[derive(Debug, Clone)]
pub(crate) struct Signs(Arc<Mutex<Instant>>);

/// Looks at a silent machine and has it translated anew, until dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    looks: Arc<Mutex<Looks>>,
    /// Its drop ends the thread.
    ends: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Signs {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Something was heard.
    pub(crate) fn heard(&self) {
        *locked(&self.0) = Instant::now();
    }

    fn last(&self) -> Instant {
        *locked(&self.0)
    }
}

impl Write for Signs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Watch {
    /// Watches the machine whose debugger listens at `socket`.
    pub(crate) fn start(socket: PathBuf, signs: Signs) -> Self {
        let (ends, ended) = channel::<()>();
        let looks = Arc::new(Mutex::new(Looks::default()));
        let kept = looks.clone();
        let thread = std::thread::spawn(move || {
            let mut patience = Patience::new();
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let last = signs.last();
                if patience.is_over(last, Instant::now()) {
                    // What cannot be helped is reported as what it is by those who wait for the machine.
                    let _ = look_and_step(&socket, last.elapsed(), |look| locked(&kept).add(last, look));
                }
            }
        });
        Self {
            looks,
            ends: Some(ends),
            thread: Some(thread),
        }
    }

    /// The fault of the emulator that showed in a silence since [`Watch::seen`] was asked.
    pub(crate) fn fault(&self) -> Option<Fault> {
        locked(&self.looks).fault
    }

    /// What the CPUs did in the longest silence since this was asked before, and the fault of the emulator that showed in any.
    pub(crate) fn seen(&self) -> (Vec<String>, Option<Fault>) {
        let fault = self.fault();
        let looks = std::mem::take(&mut *locked(&self.looks));
        (looks.longest.iter().map(Look::to_string).collect(), fault)
    }
}

/// The last looks at a machine in a silence.
#[derive(Debug, Default)]
struct Looks {
    kept: VecDeque<Look>,
    /// The sign of life before it.
    silence: Option<Instant>,
    /// Those of the longest silence.
    longest: VecDeque<Look>,
    fault: Option<Fault>,
}

impl Looks {
    /// A look at a machine whose last sign of life was at `last`.
    fn add(&mut self, last: Instant, look: Look) {
        if self.silence != Some(last) {
            self.silence = Some(last);
            self.kept.clear();
        }
        let earlier = || self.kept.iter().filter(|earlier| earlier.silence < look.silence);
        let lost_interrupt = earlier().any(|earlier| look.lost_interrupt(earlier));
        let spins = earlier().filter(|earlier| look.spins(earlier)).count() >= MOST_CURED;
        let fault = match (lost_interrupt, spins) {
            (true, _) => Some(Fault::LostInterrupt),
            (false, true) => Some(Fault::Spin),
            (false, false) => None,
        };
        self.fault = self.fault.or(fault);
        self.kept.push_back(look);
        if self.kept.len() > MOST_LOOKS {
            self.kept.pop_front();
        }
        let length = |looks: &VecDeque<Look>| looks.back().map(|look| look.silence);
        if length(&self.kept) >= length(&self.longest) {
            self.longest.clone_from(&self.kept);
        }
    }
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends = None;
        // It only ever waits for the debugger, which answers or is gone within seconds.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// How long a silence is borne: longer each time, since most of those that last are a program at work.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    /// The sign of life that was the last when it ended, and when that was.
    spent: Option<(Instant, Instant)>,
}

impl Patience {
    fn new() -> Self {
        Self {
            limit: FIRST,
            spent: None,
        }
    }

    fn is_over(&mut self, last: Instant, now: Instant) -> bool {
        let since = match self.spent {
            Some((sign, when)) if sign == last => when,
            _ => {
                *self = Self::new();
                last
            }
        };
        if now.saturating_duration_since(since) < self.limit {
            return false;
        }
        if self.spent.is_some() {
            self.limit = (self.limit * 2).min(LONGEST);
        }
        self.spent = Some((last, now));
        true
    }
}

/// Looks at the machine whose debugger listens at `socket`, and has it translated anew by a step: of a CPU that runs, because QEMU drops
/// its translations only when a step was made, and one that sleeps makes none. If all of them sleep, none goes in a circle. The machine
/// stands still for some milliseconds, once: stops are not above suspicion of losing an interrupt themselves.
///
/// # Errors
/// No debugger listens there, or it does not answer as QEMU's does; the machine then goes on as it was.
fn look_and_step(socket: &Path, silence: Duration, take: impl FnOnce(Look)) -> io::Result<()> {
    let mut debugger = Debugger::connect(socket)?;
    let look = look(&mut debugger, silence);
    let steps = look.as_ref().map_or(Some(0), Look::running);
    let stepped = steps.map_or(Ok(()), |cpu| debugger.step(cpu));
    let left = debugger.leave();
    look.map(take)?;
    stepped.and(left)
}

/// What the CPUs of a machine that stands still do.
fn look(debugger: &mut Debugger, silence: Duration) -> io::Result<Look> {
    let registers = debugger.monitor("info registers -a")?;
    let mut failed = Ok(());
    let look = Look::read(silence, &registers, |cpu| {
        let printed = debugger.monitor(&format!("info lapic {cpu}"));
        printed.unwrap_or_else(|error| {
            failed = Err(error);
            String::new()
        })
    });
    failed.map(|()| look)
}

/// What still stands there after so many looks, each of which has had it translated anew, is not cured by that.
const MOST_CURED: usize = 2;
const TICK: Duration = Duration::from_secs(1);
/// Longer than what runs here is silent when it works, shorter than what waits for it would bear.
const FIRST: Duration = Duration::from_secs(15);
/// Short enough for two looks within what a test waits for its guest.
const LONGEST: Duration = Duration::from_secs(60);
/// More than the wait of a test has time for.
const MOST_LOOKS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{printed, request, says, scripted};

    const RUNNING: &str = "CPU#0\nRIP=0000000000001000 RFL=00000202 CPL=0 HLT=0\n";

    #[test]
    fn a_silent_machine_is_looked_at_and_stepped_and_let_go() {
        let (_folder, path, asked) = scripted(vec![
            ("?", says("T05")),
            ("registers", printed(RUNNING)),
            ("controller", printed("ISR\t 251 \n")),
            ("vCont;s:1", says("T05thread:01;")),
            ("D", says("OK")),
        ]);
        let mut looks = Vec::new();
        look_and_step(&path, Duration::from_secs(15), |look| {
            looks.push(look.to_string())
        })
        .unwrap();
        let registers = request("info registers -a");
        let controller = request("info lapic 0");
        assert_eq!(
            asked.join().unwrap(),
            ["?", &registers, &controller, "vCont;s:1", "D"]
        );
        assert_eq!(looks.len(), 1);
        assert!(looks[0].contains("CPU 0 ran at 0x1000") && looks[0].contains("vector 251 in service"));
    }

    #[test]
    fn the_cpu_that_runs_is_stepped_and_none_that_sleeps() {
        let asked_of = |registers: String, steps: &[(&'static str, Vec<String>)]| {
            let cpus = registers.matches("CPU#").count();
            let mut script = vec![("?", says("T05")), ("registers", printed(&registers))];
            script.extend(vec![("controller", printed("ISR\t (none)\n")); cpus]);
            script.extend(steps.iter().cloned());
            script.push(("D", says("OK")));
            let (_folder, path, asked) = scripted(script);
            look_and_step(&path, Duration::from_secs(15), drop).unwrap();
            asked.join().unwrap().split_off(2 + cpus)
        };
        let asleep = RUNNING.replace("HLT=0", "HLT=1");
        let second = format!("{asleep}{}", RUNNING.replace("CPU#0", "CPU#1"));
        let step = ("step", says("T05thread:02;"));
        assert_eq!(asked_of(second, &[step]), ["vCont;s:2", "D"]);
        assert_eq!(asked_of(asleep, &[]), ["D"]);
    }

    #[test]
    fn a_machine_whose_monitor_refuses_is_let_go_too() {
        let (_folder, path, asked) = scripted(vec![
            ("?", says("T05")),
            ("registers", says("E01")),
            ("vCont;s:1", says("T05thread:01;")),
            ("D", says("OK")),
        ]);
        let mut looks = 0;
        let done = look_and_step(&path, Duration::from_secs(15), |_| looks += 1);
        assert!(done.unwrap_err().to_string().contains("E01"));
        assert_eq!((looks, asked.join().unwrap().len()), (0, 4));
    }

    fn stuck(silence: u64) -> Look {
        let halted = RUNNING.replace("HLT=0", "HLT=1");
        Look::read(Duration::from_secs(silence), &halted, |_| {
            "ISR\t 251 \n".to_owned()
        })
    }

    #[test]
    fn an_interrupt_is_lost_when_a_later_moment_of_the_same_silence_finds_it_so_too() {
        let (sign, other) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let found = |added: &[(Instant, u64)]| {
            let mut looks = Looks::default();
            added
                .iter()
                .for_each(|&(last, silence)| looks.add(last, stuck(silence)));
            looks.fault
        };
        assert_eq!(
            found(&[(sign, 15), (sign, 15), (sign, 30)]),
            Some(Fault::LostInterrupt)
        );
        assert_eq!(found(&[(sign, 15), (sign, 15), (sign, 15)]), None);
        assert_eq!(found(&[(sign, 15), (other, 30)]), None);
    }

    #[test]
    fn a_kernel_that_three_looks_found_at_one_place_spins() {
        let deaf = RUNNING.replace("RFL=00000202", "RFL=00000002");
        let found = |seconds: &[u64]| {
            let (mut looks, sign) = (Looks::default(), Instant::now());
            for second in seconds {
                let look = Look::read(Duration::from_secs(*second), &deaf, |_| {
                    "ISR\t (none)\n".to_owned()
                });
                looks.add(sign, look);
            }
            looks.fault
        };
        assert_eq!(found(&[15, 30]), None);
        assert_eq!(found(&[15, 30, 60]), Some(Fault::Spin));
    }

    #[test]
    fn the_last_looks_of_the_longest_silence_are_kept() {
        let (mut looks, sign) = (Looks::default(), Instant::now());
        (0..40).for_each(|silence| looks.add(sign, stuck(silence)));
        looks.add(sign + Duration::from_secs(60), stuck(15));
        assert_eq!(looks.longest.len(), MOST_LOOKS);
        assert_eq!(looks.longest.back().unwrap().silence, Duration::from_secs(39));
    }

    #[test]
    fn patience_grows_with_a_silence_and_is_new_after_a_sign_of_life() {
        let (mut patience, start) = (Patience::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let over: Vec<u64> = (0..=240)
            .filter(|&now| patience.is_over(start, at(now)))
            .collect();
        assert_eq!(over, [15, 30, 60, 120, 180, 240]);
        let over: Vec<u64> = (241..=280)
            .filter(|&now| patience.is_over(at(241), at(now)))
            .collect();
        assert_eq!(over, [256, 271]);
    }

    #[test]
    fn what_is_written_is_a_sign_of_life() {
        let mut signs = Signs::new();
        let first = signs.last();
        std::thread::sleep(Duration::from_millis(2));
        signs.write_all(b"x").unwrap();
        assert!(signs.last() > first);
    }
}
