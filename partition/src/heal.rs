//! Healing: any later process restores what a dead one left, from the records it wrote ahead.

use std::error::Error;
use std::time::{Duration, Instant};

use crate::claim::{ClaimRecord, Resource};
use crate::error::ClaimError;
use crate::owner::{Owner, Standing};
use crate::state_dir::{Hold, StateDir};

/// Somebody who can undo one kind of change.
pub trait Healer {
    /// The kind of [`crate::Undo`] it understands.
    fn kind(&self) -> &str;
    /// Restores `resource` from what its owner wrote. Done twice, it changes nothing more.
    fn undo(&self, resource: &str, data: &serde_json::Value) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// What became of one record.
#[derive(Debug)]
pub struct HealEntry {
    /// What was held, by whom.
    pub record: ClaimRecord,
    /// What was done.
    pub outcome: HealOutcome,
}

/// The outcome for one record.
#[derive(Debug)]
pub enum HealOutcome {
    /// Its owner lives; not touched.
    InUse,
    /// Its owner died before it changed anything; the record is gone, or would be after a real run.
    NothingToUndo,
    /// Restored; the record is gone.
    Healed,
    /// A dry run: this would be restored.
    WouldHeal,
    /// Not restored; the record stays.
    Failed(Box<dyn Error + Send + Sync>),
}

impl StateDir {
    /// Restores everything that dead owners left. One failure does not stop the others.
    pub fn heal(&self, healers: &[&dyn Healer], dry_run: bool) -> Result<Vec<HealEntry>, ClaimError> {
        let mut report = Vec::new();
        for resource in self.traces()? {
            let healed = match dry_run {
                true => self.look_at(&resource),
                false => self.heal_one(&resource, healers),
            };
            match healed {
                Ok(None) => {}
                Ok(Some((record, outcome))) => report.push(HealEntry { record, outcome }),
                Err(error) => report.push(HealEntry {
                    record: unreadable(resource),
                    outcome: HealOutcome::Failed(error.into()),
                }),
            }
        }
        Ok(report)
    }

    /// Restores what a dead owner left of one resource; `None` if nothing is on record.
    pub fn heal_only(
        &self,
        resource: &Resource,
        healers: &[&dyn Healer],
    ) -> Result<Option<HealEntry>, ClaimError> {
        let healed = self.heal_one(resource, healers)?;
        Ok(healed.map(|(record, outcome)| HealEntry { record, outcome }))
    }

    /// What healing one resource would do, judged without touching its lock.
    fn look_at(&self, resource: &Resource) -> Result<Option<Healed>, ClaimError> {
        let Some((record, held)) = self.look(resource)? else {
            return Ok(None);
        };
        let outcome = match (held || self.is_marked(resource)?, &record.undo) {
            (true, _) => HealOutcome::InUse,
            (false, None) => HealOutcome::NothingToUndo,
            (false, Some(_)) => HealOutcome::WouldHeal,
        };
        Ok(Some((record, outcome)))
    }

    /// Its lock, or what is to be said without it. A dead owner's child may still be at work in the kernel, where it cannot be ended, and
    /// keeps the lock so long: that is waited for.
    fn hold_of_the_dead(&self, resource: &Resource) -> Result<Result<Hold, Option<Healed>>, ClaimError> {
        let begun = Instant::now();
        loop {
            if let Ok(hold) = self.hold(resource)? {
                return Ok(Ok(hold));
            }
            let Some(record) = self.read(resource)? else {
                return Ok(Err(None));
            };
            if !matches!(record.owner.standing(), Standing::Gone) {
                return Ok(Err(Some((record, HealOutcome::InUse))));
            }
            if begun.elapsed() > KERNEL_ENDS {
                return Ok(Err(Some((record, HealOutcome::Failed(UNDER_WAY.into())))));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Heals one resource while holding its lock; `None` if its record has gone meanwhile.
    fn heal_one(&self, resource: &Resource, healers: &[&dyn Healer]) -> Result<Option<Healed>, ClaimError> {
        let hold = match self.hold_of_the_dead(resource)? {
            Ok(hold) => hold,
            Err(record) => return Ok(record),
        };
        let Some(record) = self.read(resource)? else {
            // Its owner died before it had written anything but a draft.
            return self.remove(resource, hold).map(|()| None);
        };
        let outcome = match undo(&record, healers) {
            HealOutcome::Failed(error) => HealOutcome::Failed(error),
            undone => self.remove(resource, hold).map(|()| undone)?,
        };
        Ok(Some((record, outcome)))
    }
}

fn undo(record: &ClaimRecord, healers: &[&dyn Healer]) -> HealOutcome {
    let Some(undo) = &record.undo else {
        return HealOutcome::NothingToUndo;
    };
    let Some(healer) = healers.iter().find(|healer| healer.kind() == undo.kind) else {
        let unknown = format!("no healer here understands an undo of kind {:?}", undo.kind);
        return HealOutcome::Failed(unknown.into());
    };
    match healer.undo(&record.resource.name, &undo.data) {
        Ok(()) => HealOutcome::Healed,
        Err(error) => HealOutcome::Failed(error),
    }
}

/// What was on record, and what became of it.
type Healed = (ClaimRecord, HealOutcome);

/// Stands in a report for a record that cannot be read.
fn unreadable(resource: Resource) -> ClaimRecord {
    ClaimRecord {
        resource,
        partition: "unknown".to_owned(),
        owner: Owner {
            pid: 0,
            pid_namespace: None,
            user: 0,
            started: None,
        },
        holding: None,
        undo: None,
    }
}

const UNDER_WAY: &str = "its owner is dead, and what that began has not ended in the kernel (a driver hangs; its log says more); try again later";
/// A driver that lets go of a device takes seconds at most, if it does not hang.
const KERNEL_ENDS: Duration = Duration::from_secs(10);
