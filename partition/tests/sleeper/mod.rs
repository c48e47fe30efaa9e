//! Tasks of the host that sleep on CPUs of their own, or in a group of their own.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part, and ends where the host fails it"
)]

use std::path::Path;
use std::process::{Child, Command};

use rustix::thread::{CpuSet, Pid, sched_setaffinity};

/// Killed when dropped.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("3600").spawn().unwrap())
    }

    pub(crate) fn on(cpus: &[usize]) -> Self {
        let sleeper = Self::start();
        sleeper.pin(cpus);
        sleeper
    }

    /// In that control group.
    pub(crate) fn within(group: &Path, cpus: &[usize]) -> Self {
        let sleeper = Self::start();
        std::fs::write(group.join("cgroup.procs"), sleeper.0.id().to_string()).unwrap();
        sleeper.pin(cpus);
        sleeper
    }

    /// Under SCHED_FIFO.
    pub(crate) fn fifo(priority: u8, cpus: &[usize]) -> Self {
        let sleeper = Self::on(cpus);
        let mut command = Command::new("chrt");
        command.args(["-f", "-p", &priority.to_string(), &sleeper.0.id().to_string()]);
        assert!(command.status().unwrap().success(), "{command:?}");
        sleeper
    }

    fn pin(&self, cpus: &[usize]) {
        let mut set = CpuSet::new();
        cpus.iter().for_each(|cpu| set.set(*cpu));
        sched_setaffinity(Pid::from_raw(self.0.id() as i32), &set).unwrap();
    }

    /// Where the kernel lets it run.
    pub(crate) fn allowed(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.unwrap().trim().to_owned()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
