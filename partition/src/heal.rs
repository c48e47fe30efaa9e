//! Healing: any later process restores what a dead one left, from the records it wrote ahead.

use std::error::Error;

use crate::claim::{ClaimRecord, Resource, StateDir};
use crate::error::ClaimError;

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
    /// Its owner died before it changed anything; the record is gone.
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
        for (record, _) in self.records()? {
            let outcome = self.heal_one(&record.resource, healers, dry_run)?;
            if let Some(outcome) = outcome {
                report.push(HealEntry { record, outcome });
            }
        }
        Ok(report)
    }

    /// Heals one resource while holding its lock; `None` if its record has gone meanwhile.
    fn heal_one(
        &self,
        resource: &Resource,
        healers: &[&dyn Healer],
        dry_run: bool,
    ) -> Result<Option<HealOutcome>, ClaimError> {
        let Some(_lock) = self.lock(resource)? else {
            return Ok(Some(HealOutcome::InUse));
        };
        let Some(record) = self.read(resource)? else {
            return Ok(None);
        };
        let Some(undo) = record.undo else {
            if !dry_run {
                self.remove(resource)?;
            }
            return Ok(Some(HealOutcome::NothingToUndo));
        };
        if dry_run {
            return Ok(Some(HealOutcome::WouldHeal));
        }
        let Some(healer) = healers.iter().find(|healer| healer.kind() == undo.kind) else {
            let unknown = format!("no healer here understands an undo of kind {:?}", undo.kind);
            return Ok(Some(HealOutcome::Failed(unknown.into())));
        };
        match healer.undo(&resource.name, &undo.data) {
            Ok(()) => self.remove(resource).map(|()| Some(HealOutcome::Healed)),
            Err(error) => Ok(Some(HealOutcome::Failed(error))),
        }
    }
}
