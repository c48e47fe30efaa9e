//! The watch over dedicated CPUs: whether they still are what was promised, and who disturbed them.
//!
//! It reads files of the kernel, at most once a second, and disturbs no vCPU itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::thread::Pid;

use super::held::Held;
use super::usage::Times;
use super::{CpuHold, CpuTerms};
use crate::cgroup::CgroupTree;

mod tasks;

/// A breach of what dedicated CPUs promise.
#[derive(Debug, Clone, PartialEq)]
pub enum CpuEvent {
    /// Others ran on the CPU: tasks or interrupts of the host.
    Foreign {
        /// The CPU.
        cpu: usize,
        /// The part of the time that they had, in percent.
        percent: f64,
        /// Tasks that ran there last, by name, as far as they can still be seen.
        tasks: Vec<String>,
    },
    /// A vCPU's thread was pushed off its CPU while it wanted to run.
    Switched {
        /// The vCPU.
        vcpu: u32,
        /// How many times.
        times: u64,
    },
    /// The host is a guest itself, and its hypervisor took the CPU away.
    Stolen {
        /// The CPU.
        cpu: usize,
        /// The part of the time that it had, in percent.
        percent: f64,
    },
    /// A vCPU may run elsewhere than on its CPU.
    Unpinned {
        /// The vCPU.
        vcpu: u32,
        /// Its CPU.
        cpu: usize,
        /// Where the kernel lets it run.
        allowed: String,
    },
    /// The cpuset partition is not one any more.
    Unisolated {
        /// What the kernel says of it.
        state: String,
    },
}

/// What is still no breach, for each second. The defaults let pass what an undisturbed Linux does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WatchLimits {
    /// Part of the time that others may have, in percent.
    pub foreign_percent: f64,
    /// Involuntary switches of a vCPU.
    pub switches: u64,
    /// Part of the time that a hypervisor may take, in percent.
    pub stolen_percent: f64,
}

/// Looks at dedicated CPUs each time it is asked.
#[derive(Debug)]
pub struct CpuWatch {
    hold: Arc<CpuHold>,
    limits: WatchLimits,
    last: Option<Sample>,
}

/// The counters at one moment.
#[derive(Debug)]
struct Sample {
    at: Instant,
    vcpus: BTreeMap<u32, VcpuSample>,
    cpus: BTreeMap<usize, tasks::CpuTimes>,
}

#[derive(Debug, Clone)]
struct VcpuSample {
    thread: Pid,
    cpu: usize,
    ran: Duration,
    switches: u64,
    allowed: String,
}

impl CpuWatch {
    /// The shortest time between two looks.
    pub const INTERVAL: Duration = Duration::from_secs(1);

    pub(super) fn new(hold: Arc<CpuHold>, limits: WatchLimits) -> Self {
        Self {
            hold,
            limits,
            last: None,
        }
    }

    /// Every breach since the last look; nothing if that was less than a second ago, or the CPUs are shared.
    pub fn check(&mut self) -> Vec<CpuEvent> {
        let due = self
            .last
            .as_ref()
            .is_none_or(|last| last.at.elapsed() >= Self::INTERVAL);
        if !due {
            return Vec::new();
        }
        let held = self.hold.held();
        let tree = &self.hold.tree;
        let mut events = standing(&held);
        let now = Sample::take(tree, &held);
        drop(held);
        events.extend(now.vcpus.iter().filter_map(unpinned));
        if let Some(last) = &self.last {
            events.extend(now.since(last, &self.limits, tree));
        }
        self.last = Some(now);
        for event in &events {
            tracing::debug!(partition = self.hold.name, %event, "dedicated CPUs are disturbed");
        }
        events
    }
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self {
            foreign_percent: 5.0,
            switches: 20,
            stolen_percent: 1.0,
        }
    }
}

impl Sample {
    fn take(tree: &CgroupTree, held: &Held) -> Self {
        let dedicated = matches!(held.terms, CpuTerms::Dedicated { .. });
        let threads = held.threads.iter().filter(|_| dedicated);
        let vcpus: BTreeMap<_, _> = threads
            .filter_map(|(vcpu, thread)| Some((*vcpu, VcpuSample::of(tree, *thread, held.cpu_of(*vcpu)?)?)))
            .collect();
        let cpus = tasks::cpu_times(tree);
        Self {
            at: Instant::now(),
            vcpus,
            cpus,
        }
    }

    /// What happened since `last`.
    fn since(&self, last: &Self, limits: &WatchLimits, tree: &CgroupTree) -> Vec<CpuEvent> {
        let elapsed = self.at.saturating_duration_since(last.at);
        let percent = |part: Duration| part.as_secs_f64() / elapsed.as_secs_f64().max(f64::EPSILON) * 100.0;
        let mut events = Vec::new();
        for (vcpu, now) in &self.vcpus {
            let same = |before: &&VcpuSample| before.thread == now.thread && before.cpu == now.cpu;
            let Some(before) = last.vcpus.get(vcpu).filter(same) else {
                continue;
            };
            let times = now.switches.saturating_sub(before.switches);
            if times as f64 > limits.switches as f64 * elapsed.as_secs_f64().max(1.0) {
                events.push(CpuEvent::Switched { vcpu: *vcpu, times });
            }
            let (Some(after), Some(until)) = (self.cpus.get(&now.cpu), last.cpus.get(&now.cpu)) else {
                continue;
            };
            let stolen = percent(after.stolen.saturating_sub(until.stolen));
            if stolen > limits.stolen_percent {
                events.push(CpuEvent::Stolen {
                    cpu: now.cpu,
                    percent: stolen,
                });
            }
            let idle = percent(after.idle.saturating_sub(until.idle));
            let foreign = 100.0 - idle - stolen - percent(now.ran.saturating_sub(before.ran));
            if foreign > limits.foreign_percent {
                events.push(CpuEvent::Foreign {
                    cpu: now.cpu,
                    percent: foreign,
                    tasks: tasks::last_on(tree, now.cpu, now.thread),
                });
            }
        }
        events
    }
}

impl VcpuSample {
    /// `None` for a thread that has just ended.
    fn of(tree: &CgroupTree, thread: Pid, cpu: usize) -> Option<Self> {
        let path = tree.proc(&format!("self/task/{}/status", thread.as_raw_nonzero()));
        let status = std::fs::read_to_string(path).ok()?;
        let field = |name: &str| Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim());
        Some(Self {
            thread,
            cpu,
            ran: Times::of(tree, thread).ran,
            switches: field("nonvoluntary_ctxt_switches:")?.parse().ok()?,
            allowed: field("Cpus_allowed_list:")?.to_owned(),
        })
    }
}

/// Whether the partition is one still.
fn standing(held: &Held) -> Vec<CpuEvent> {
    match (&held.terms, &held.place) {
        (CpuTerms::Dedicated { isolation, .. }, Some(place)) => {
            let lost = isolation.holds(&place.group).err();
            lost.map(|state| CpuEvent::Unisolated { state })
                .into_iter()
                .collect()
        }
        _ => Vec::new(),
    }
}

fn unpinned((vcpu, now): (&u32, &VcpuSample)) -> Option<CpuEvent> {
    (now.allowed != now.cpu.to_string()).then(|| CpuEvent::Unpinned {
        vcpu: *vcpu,
        cpu: now.cpu,
        allowed: now.allowed.clone(),
    })
}

impl fmt::Display for CpuEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { cpu, percent, tasks } => {
                write!(f, "CPU {cpu}: others had {percent:.1}% of the time")?;
                match tasks.as_slice() {
                    [] => Ok(()),
                    tasks => write!(f, " (last there: {})", tasks.join(", ")),
                }
            }
            Self::Switched { vcpu, times } => write!(f, "vCPU {vcpu} was pushed off its CPU {times} times"),
            Self::Stolen { cpu, percent } => {
                write!(
                    f,
                    "CPU {cpu}: this host's hypervisor took {percent:.1}% of the time"
                )
            }
            Self::Unpinned { vcpu, cpu, allowed } => {
                write!(f, "vCPU {vcpu} may run on CPUs {allowed} instead of CPU {cpu}")
            }
            Self::Unisolated { state } => write!(f, "the cpuset partition is lost: {state}"),
        }
    }
}
