//! Who owns a claim: a process, told apart from whatever gets its number after it.
//!
//! The kernel's lock decides who holds a resource; this says whom to name, and whom a signal may be sent to.

use std::os::fd::OwnedFd;
use std::os::linux::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process as it described itself. A number alone is not enough: it is given to others once the process is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its number, as its own pid namespace counts.
    pub pid: u32,
    /// That namespace, by its inode; `None` where /proc does not tell.
    #[serde(default)]
    pub pid_namespace: Option<u64>,
    /// The user it ran as.
    #[serde(default)]
    pub user: u32,
    /// When it started; `None` where /proc does not tell.
    #[serde(default)]
    pub started: Option<Started>,
}

/// When a process started. Boot and ticks are the same for no other process with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The boot that it belongs to (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Clock ticks from that boot to its start (`/proc/PID/stat`, field 22).
    pub ticks: u64,
    /// The same as wall-clock time: seconds since 1970, UTC.
    pub unix: u64,
}

/// What became of an owner.
#[derive(Debug)]
pub enum Standing {
    /// It runs. The descriptor is of this very process: a signal sent through it reaches nobody else.
    Running(OwnedFd),
    /// It is gone; its number is free, or another process has it.
    Gone,
    /// It cannot be told from here: another pid namespace, or no /proc.
    Unknown,
}

impl Owner {
    /// The calling process.
    pub(crate) fn this() -> Self {
        Self {
            pid: std::process::id(),
            pid_namespace: pid_namespace(),
            user: rustix::process::geteuid().as_raw(),
            // What /proc calls "self" is this process, whichever namespace /proc was mounted in.
            started: started("self"),
        }
    }

    /// Whether this very process still runs.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let here = boot();
        if let (Some(started), Some(here)) = (&self.started, &here)
            && started.boot != *here
        {
            return Standing::Gone;
        }
        if self.pid_namespace.is_some() && self.pid_namespace != pid_namespace() {
            return Standing::Unknown;
        }
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Standing::Gone;
        };
        // The descriptor first: what /proc says about the number afterwards is true of the process that it is open on, or of none.
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::SRCH) => return Standing::Gone,
            Err(_) => return Standing::Unknown,
        };
        let Some(recorded) = self.started.as_ref().filter(|_| proc_counts_as_we_do()) else {
            return Standing::Unknown;
        };
        match ticks(&self.pid.to_string()) {
            Some(ticks) if ticks == recorded.ticks => Standing::Running(descriptor),
            _ => Standing::Gone,
        }
    }
}

/// The inode of this process's pid namespace.
fn pid_namespace() -> Option<u64> {
    Some(std::fs::metadata("/proc/self/ns/pid").ok()?.st_ino())
}

/// Whether the numbers in /proc are those of this pid namespace: /proc may have been mounted in another.
fn proc_counts_as_we_do() -> bool {
    let own = std::process::id().to_string();
    std::fs::read_link("/proc/self").is_ok_and(|target| target.as_os_str() == own.as_str())
}

fn boot() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

fn started(process: &str) -> Option<Started> {
    let ticks = ticks(process)?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let age = uptime - ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    let start = SystemTime::now() - Duration::try_from_secs_f64(age).unwrap_or_default();
    Some(Started {
        boot: boot()?,
        ticks,
        unix: start.duration_since(UNIX_EPOCH).ok()?.as_secs(),
    })
}

/// Field 22 of `/proc/PID/stat`. The second field is a name that may hold anything, so fields are counted behind its last bracket.
fn ticks(process: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let behind_name = stat.rsplit_once(')')?.1;
    behind_name.split_whitespace().nth(19)?.parse().ok()
}
