//! What is held of a function: its claim, and the way back. Functions of one IOMMU group go back together, since the kernel gives none of
//! them to a host driver while another is open.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pellucid_partition::{Bdf, Claim};

use crate::driver::{DriverSeat, Way};
use crate::error::TakeError;
use crate::quarantine::Quarantine;
use crate::sys::Errand;

/// A function's claim, its place in sysfs, and its undo record as it is on disk.
#[derive(Debug)]
pub(crate) struct Custody {
    pub(crate) seat: Arc<DriverSeat>,
    pub(crate) way: Way,
    pub(crate) claim: Claim,
}

/// The functions of one group that were claimed together.
#[derive(Debug, Default)]
pub(crate) struct Fellows {
    state: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// How many have not ended yet.
    open: usize,
    done: Vec<(Custody, Option<Quarantine>)>,
}

impl Custody {
    /// To the driver that it had. On an error the record stays for `heal`.
    pub(crate) fn give_back(self) -> Result<(), TakeError> {
        let Custody { seat, way, claim } = self;
        // Moving a function again whose driver hangs would only hang too.
        let restored = match seat.stuck() {
            Some(errand) => {
                wait_for_the_kernel(errand, claim);
                return Ok(());
            }
            None => seat.restore(&way),
        };
        if let Some(errand) = seat.stuck() {
            wait_for_the_kernel(errand, claim);
            return restored;
        }
        restored?;
        claim.release()?;
        tracing::info!(device = %seat.device(), to = ?way.original.bound, "given back");
        Ok(())
    }

    /// Keeps it away from everybody. The record stays, and says why.
    pub(crate) fn quarantine(mut self, quarantine: Quarantine) -> TakeError {
        self.mark(quarantine).err().unwrap_or_else(|| self.refusal())
    }

    fn mark(&mut self, quarantine: Quarantine) -> Result<(), TakeError> {
        let (device, reason) = (self.seat.device(), &quarantine.reason);
        tracing::error!(%device, reason, "quarantined: the function is not given back to the host");
        self.way.quarantined = Some(quarantine);
        self.way.record(&mut self.claim)
    }

    fn refusal(&self) -> TakeError {
        let quarantine = self.way.quarantined.clone().unwrap_or_default();
        TakeError::Quarantined {
            device: self.seat.device(),
            quarantine: Box::new(quarantine),
        }
    }
}

impl Fellows {
    /// One more of them. All are there before the first is moved.
    pub(crate) fn join(&self) {
        self.lock().open += 1;
    }

    /// Ends the lending of one of them, closed by now. The last one takes all back to their drivers, or, if one is not well, none: what the
    /// IOMMU cannot tell apart could be written to by it. Says whether it has gone back.
    pub(crate) fn leave(&self, mut held: Custody, fault: Option<Quarantine>) -> Result<bool, TakeError> {
        // On record at once, whatever comes before the last one ends.
        let marked = fault
            .clone()
            .map(|fault| held.mark(fault).err().unwrap_or_else(|| held.refusal()));
        let all = {
            let mut state = self.lock();
            state.done.push((held, fault));
            state.open = state.open.saturating_sub(1);
            match state.open {
                0 => std::mem::take(&mut state.done),
                _ => return marked.map_or(Ok(false), Err),
            }
        };
        let sick = all.iter().find_map(|(held, fault)| {
            let fault = fault.as_ref()?;
            Some((held.seat.device(), fault.reason.clone()))
        });
        let mut outcome = marked.map_or(Ok(()), Err);
        for (held, fault) in all {
            let ended = match (&sick, fault) {
                (None, _) => held.give_back(),
                // Marked when it left.
                (Some(_), Some(_)) => Ok(()),
                (Some((device, reason)), None) => Err(held.quarantine(beside(*device, reason))),
            };
            outcome = outcome.and(ended);
        }
        outcome.map(|()| true)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn beside(device: Bdf, reason: &str) -> Quarantine {
    Quarantine::now(format!("{device} of its IOMMU group is not well: {reason}"), None)
}

/// Keeps a function held as long as a child hangs in its driver. Its record stays, so that `heal` gives it back once the kernel lets go. If
/// this process ends before, the child's copy of the lock holds it.
fn wait_for_the_kernel(errand: Errand, claim: Claim) {
    let name = format!("stuck-{}", claim.record().resource.name);
    let wait = move || {
        errand.bury();
        drop(claim);
    };
    let spawned = std::thread::Builder::new()
        .name(name)
        .stack_size(STACK)
        .spawn(wait);
    if let Err(error) = spawned {
        tracing::error!(%error, "nobody waits for a driver that hangs; the function can be healed meanwhile");
    }
}

const STACK: usize = 128 << 10;
