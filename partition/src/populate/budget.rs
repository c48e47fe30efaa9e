//! How much memory this process may lock, asked before the first byte is.

use std::io;

use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;

use crate::error::PopulateError;

/// What may be locked, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockBudget {
    /// RLIMIT_MEMLOCK; `None` is no limit, as for a process with CAP_IPC_LOCK.
    pub limit: Option<u64>,
    /// What is locked already.
    pub locked: u64,
}

/// Who locks guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locking {
    /// Nobody has to.
    None,
    /// This process, before the guest starts.
    Here,
    /// VFIO, when the first device is assigned.
    ByDevice,
}

impl LockBudget {
    /// Reads it for this process.
    pub fn read() -> Result<Self, PopulateError> {
        let path = "/proc/self/status";
        let unread = |source: io::Error| PopulateError::Proof {
            path: path.into(),
            source,
        };
        let capabilities = rustix::thread::capabilities(None).map_err(|error| unread(error.into()))?;
        let free = capabilities.effective.contains(CapabilitySet::IPC_LOCK);
        let status = std::fs::read_to_string(path).map_err(unread)?;
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
        let kilobytes = locked.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Ok(Self {
            limit: getrlimit(Resource::Memlock).current.filter(|_| !free),
            locked: kilobytes.unwrap_or(0) << 10,
        })
    }

    /// Who locks `asked` bytes that a device will reach, or that the limit does not carry them.
    ///
    /// VFIO pins and charges what it maps even if it is locked already, so both fit only where there is room for twice as much.
    pub(crate) fn locking(self, asked: u64) -> Result<Locking, PopulateError> {
        let Some(limit) = self.limit else {
            return Ok(Locking::Here);
        };
        let left = limit.saturating_sub(self.locked);
        match asked {
            _ if left / 2 >= asked => Ok(Locking::Here),
            _ if left >= asked => Ok(Locking::ByDevice),
            _ => Err(PopulateError::Budget {
                asked,
                limit,
                locked: self.locked,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn budget(limit: u64, locked: u64) -> LockBudget {
        LockBudget {
            limit: Some(limit),
            locked,
        }
    }

    #[test]
    fn memory_is_locked_here_where_the_device_can_charge_for_it_again() {
        let unlimited = LockBudget {
            limit: None,
            locked: 7 * MIB,
        };
        assert_eq!(unlimited.locking(1 << 50).unwrap(), Locking::Here);
        assert_eq!(budget(128 * MIB, 0).locking(64 * MIB).unwrap(), Locking::Here);
        assert_eq!(budget(127 * MIB, 0).locking(64 * MIB).unwrap(), Locking::ByDevice);
        assert_eq!(
            budget(128 * MIB, MIB).locking(64 * MIB).unwrap(),
            Locking::ByDevice
        );
        assert_eq!(
            budget(65 * MIB, MIB).locking(64 * MIB).unwrap(),
            Locking::ByDevice
        );
    }

    #[test]
    fn a_limit_that_others_have_used_up_is_refused_with_all_three_figures() {
        let refusal = budget(65 * MIB, 2 * MIB)
            .locking(64 * MIB)
            .unwrap_err()
            .to_string();
        assert_eq!(
            refusal,
            "64 MiB of guest memory cannot be locked: RLIMIT_MEMLOCK is 65 MiB and 2 MiB are locked already; raise it (ulimit -l) or run as root"
        );
        assert!(budget(0, MIB).locking(1).is_err());
    }

    #[test]
    fn the_budget_of_this_process_is_what_proc_says() {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max locked memory"))
            .unwrap();
        let soft = line.split_whitespace().nth(3).unwrap();
        let budget = LockBudget::read().unwrap();
        assert!(budget.limit.is_none() || budget.limit == soft.parse().ok());
    }
}
