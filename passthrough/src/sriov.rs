//! Virtual functions, made on a physical function that stays with its host driver, and removed when nobody uses one any more.

mod healer;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use pellucid_partition::{Bdf, Claim, HealOutcome, Resource, StateDir, step};
use serde::{Deserialize, Serialize};

use crate::claimant::Claimant;
use crate::driver::{DRIVER_LIMIT, DriverSeat};
use crate::error::{SriovError, TakeError};

pub use healer::SriovHealer;

/// The virtual functions of a physical function, there as long as this value. Those that were made for it go with it, or with the last of
/// those who use one.
#[derive(Debug)]
#[must_use = "dropping it removes the virtual functions that were made for it"]
pub struct VirtualFunctions {
    state: StateDir,
    root: PathBuf,
    physical: Bdf,
    functions: Vec<Bdf>,
    /// The claim under which they were made; None: others made them, or they are removed.
    made: Option<Claim>,
}

/// How to undo what was done to a physical function: written and synced before the first change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    /// How many were made; before, there was none.
    made: u16,
    /// Whether host drivers took new virtual functions.
    autoprobe: Option<String>,
}

impl Claimant<'_> {
    /// Sees that `physical` has `count` virtual functions or more. Where it has none, they are made, for no host driver to take; where it has
    /// fewer, that is refused, since their number cannot grow while they are there.
    pub fn virtual_functions(&self, physical: Bdf, count: u16) -> Result<VirtualFunctions, SriovError> {
        let seat = DriverSeat::new(self.root(), physical, self.patience());
        let now = check(&seat, count)?;
        let mut functions = VirtualFunctions {
            state: self.state().clone(),
            root: self.root().to_owned(),
            physical,
            functions: Vec::new(),
            made: None,
        };
        if now == 0 {
            functions.made = Some(self.make(&seat, count)?);
        }
        // From here on, dropping `functions` removes those that were made.
        functions.functions = await_functions(&seat, count)?;
        tracing::info!(device = %physical, functions = ?functions.functions, "virtual functions");
        Ok(functions)
    }

    fn make(&self, seat: &DriverSeat, count: u16) -> Result<Claim, SriovError> {
        let device = seat.device();
        let resource = Resource::new(SRIOV_KIND, &device.to_string());
        let mut claim = self
            .state()
            .claim(resource, self.partition())
            .map_err(TakeError::from)?;
        let seat = DriverSeat::new(self.root(), device, self.patience()).held_by(claim.lock());
        let before = Before {
            made: count,
            autoprobe: fs::read_to_string(seat.path(AUTOPROBE)).ok(),
        };
        let value = serde_json::to_value(&before).map_err(|error| TakeError::Record {
            device: device.to_string(),
            source: error.into(),
        })?;
        claim
            .record_undo(SriovHealer::KIND, &value)
            .map_err(TakeError::from)?;
        let made = (|| {
            if before.autoprobe.is_some() {
                step("keep host drivers off", || seat.write(seat.path(AUTOPROBE), "0"))?;
            }
            write_count(&seat, count)
        })();
        match made {
            Ok(()) => Ok(claim),
            Err(source) => {
                let undone = restore(&seat, &before);
                if undone.is_ok() {
                    claim.release().map_err(TakeError::from)?;
                }
                Err(SriovError::Refused {
                    device,
                    source: Box::new(source),
                })
            }
        }
    }
}

impl VirtualFunctions {
    /// Whether `physical` of this host has `count` virtual functions or can have them. Touches nothing.
    pub fn check(physical: Bdf, count: u16) -> Result<(), SriovError> {
        check(&DriverSeat::new(Path::new("/"), physical, DRIVER_LIMIT), count).map(|_| ())
    }

    /// Virtual function `index` of `physical` of this host, if it is there.
    #[must_use]
    pub fn find(physical: Bdf, index: u16) -> Option<Bdf> {
        let seat = DriverSeat::new(Path::new("/"), physical, DRIVER_LIMIT);
        seat.virtual_functions().get(usize::from(index)).copied()
    }

    /// The physical function's address.
    #[must_use]
    pub fn physical(&self) -> Bdf {
        self.physical
    }

    /// Their addresses, in the order of their numbers.
    #[must_use]
    pub fn functions(&self) -> &[Bdf] {
        &self.functions
    }

    /// Whether they were made for this value.
    #[must_use]
    pub fn are_made_here(&self) -> bool {
        self.made.is_some()
    }

    /// Removes them, if they were made for it and nobody uses one. Says whether they are gone: those in use go with their last user, who
    /// releases a value of this type too, or by `heal`.
    pub fn release(mut self) -> Result<bool, SriovError> {
        self.remove()
    }

    fn remove(&mut self) -> Result<bool, SriovError> {
        let healer = SriovHealer::of(&self.state).at(&self.root);
        let resource = Resource::new(SRIOV_KIND, &self.physical.to_string());
        // Let go of, its record stays for whoever heals it: ourselves now, or the last user.
        drop(self.made.take());
        let healed = self
            .state
            .heal_only(&resource, &[&healer])
            .map_err(TakeError::from)?;
        match healed.map(|entry| entry.outcome) {
            Some(HealOutcome::Failed(error)) => match error.downcast::<SriovError>() {
                Ok(error) if matches!(*error, SriovError::InUse { .. }) => {
                    tracing::info!(device = %self.physical, %error, "virtual functions stay");
                    Ok(false)
                }
                Ok(error) => Err(*error),
                Err(source) => Err(SriovError::Refused {
                    device: self.physical,
                    source: Box::new(TakeError::Record {
                        device: self.physical.to_string(),
                        source,
                    }),
                }),
            },
            Some(HealOutcome::InUse) => Ok(false),
            _ => Ok(true),
        }
    }
}

impl Drop for VirtualFunctions {
    fn drop(&mut self) {
        if self.made.is_none() {
            return;
        }
        if let Err(error) = self.remove() {
            tracing::error!(device = %self.physical, %error, "virtual functions stay; `heal` will try again");
        }
    }
}

/// How many there are now, none or enough of them.
fn check(seat: &DriverSeat, count: u16) -> Result<u16, SriovError> {
    let device = seat.device();
    let total = number(seat, "sriov_totalvfs").ok_or(SriovError::Incapable { device })?;
    if count == 0 || count > total {
        return Err(SriovError::Count { device, count, total });
    }
    match number(seat, "sriov_numvfs").unwrap_or(0) {
        now if (1..count).contains(&now) => Err(SriovError::Few { device, now, count }),
        now => Ok(now),
    }
}

fn restore(seat: &DriverSeat, before: &Before) -> Result<(), TakeError> {
    if number(seat, "sriov_numvfs").is_some_and(|now| now > 0) {
        write_count(seat, 0)?;
    }
    match &before.autoprobe {
        Some(autoprobe) => step("let host drivers probe again", || {
            seat.write(seat.path(AUTOPROBE), autoprobe.trim())
        }),
        None => Ok(()),
    }
}

fn write_count(seat: &DriverSeat, count: u16) -> Result<(), TakeError> {
    let driver = seat.bound().unwrap_or_else(|| "(none)".to_owned());
    step("set the number of virtual functions", || {
        seat.write_limited(&seat.path("sriov_numvfs"), &count.to_string(), &driver)
    })
}

/// Waits until all are there, each in its IOMMU group.
fn await_functions(seat: &DriverSeat, count: u16) -> Result<Vec<Bdf>, SriovError> {
    let end = Instant::now() + FUNCTIONS_COME;
    loop {
        let functions = seat.virtual_functions();
        let grouped = |function: &&Bdf| {
            let function = DriverSeat::new(seat.root(), **function, DRIVER_LIMIT);
            function.path("iommu_group").exists()
        };
        let there = functions.iter().filter(grouped).count();
        if there >= usize::from(count) {
            return Ok(functions);
        }
        if Instant::now() > end {
            let device = seat.device();
            return Err(SriovError::Missing { device, there, count });
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn number(seat: &DriverSeat, name: &str) -> Option<u16> {
    fs::read_to_string(seat.path(name)).ok()?.trim().parse().ok()
}

/// The kind of resource under which a physical function is claimed while it has virtual ones of ours. It sorts behind `device`.
pub const SRIOV_KIND: &str = "sriov";
const AUTOPROBE: &str = "sriov_drivers_autoprobe";
const FUNCTIONS_COME: Duration = Duration::from_secs(5);
