//! The state directory: a lock and a record for each claimed resource.
//!
//! A record is replaced whole and synced. Looking at a lock never takes it, so those who only look disturb nobody.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::claim::{Claim, ClaimRecord, Holding, Resource};
use crate::error::ClaimError;
use crate::host_marks::HostMarks;
use crate::owner::Owner;

mod files;
mod hold;

use files::Files;
pub(crate) use hold::Hold;
use hold::elsewhere;

/// The directory of locks and records, for its owner only.
///
/// It excludes those who use the same directory. [`StateDir::host_wide`] excludes the other users and namespaces of the host too.
#[derive(Debug, Clone)]
pub struct StateDir {
    files: Files,
    marks: Option<Arc<HostMarks>>,
}

impl StateDir {
    /// The system's directory: `/run/pellucid` for root, else `$XDG_RUNTIME_DIR/pellucid`; host-wide.
    pub fn standard() -> Result<Self, ClaimError> {
        if rustix::process::geteuid().is_root() {
            return Ok(Self::at(Path::new("/run/pellucid"))?.host_wide());
        }
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(base) => Ok(Self::at(&Path::new(&base).join("pellucid"))?.host_wide()),
            None => Err(state_error(Path::new("$XDG_RUNTIME_DIR"), "is not set")(
                io::ErrorKind::NotFound.into(),
            )),
        }
    }

    /// The directory at `path`, made if missing: a ledger of its own, which knows nothing of others.
    ///
    /// Refused if anybody else could read or write it, or put another directory in its place, and so forge claims.
    pub fn at(path: &Path) -> Result<Self, ClaimError> {
        let files = Files::open(path).map_err(|(act, source)| state_error(path, act)(source))?;
        Ok(Self { files, marks: None })
    }

    /// The same, and what is claimed in it is refused to those who use another directory: other users, and whoever has a
    /// private `/run`. Root's claims go before those of ordinary users.
    #[must_use]
    pub fn host_wide(self) -> Self {
        Self {
            marks: Some(Arc::new(HostMarks::open())),
            ..self
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.files.path()
    }

    /// Claims `resource` for `partition`. Refused while another holds it (who is said) or what a dead owner left is not yet healed.
    ///
    /// It never waits for an owner to let go, so claims in whatever order do not block each other.
    pub fn claim(&self, resource: Resource, partition: &str) -> Result<Claim, ClaimError> {
        self.claim_for(resource, partition, None)
    }

    /// The same, with what comes with it.
    pub(crate) fn claim_for(
        &self,
        resource: Resource,
        partition: &str,
        holding: Option<Holding>,
    ) -> Result<Claim, ClaimError> {
        let hold = self.hold_or_holder(&resource)?;
        if let Some(left) = self.read(&resource)?
            && left.undo.is_some()
        {
            return Err(left.into_stale());
        }
        let record = ClaimRecord {
            resource,
            partition: partition.to_owned(),
            owner: Owner::this(),
            holding,
            undo: None,
        };
        let claim = Claim {
            state: self.clone(),
            record,
            hold: Some(hold),
        };
        self.write(&claim.record)?;
        Ok(claim)
    }

    /// Why `resource` could not be claimed now, asked without touching it; `None` if it could.
    pub fn refusal(&self, resource: &Resource) -> Result<Option<ClaimError>, ClaimError> {
        let found = self.look(resource)?;
        match found {
            Some((record, true)) => Ok(Some(record.into_held())),
            None if self.is_held(resource)? => Ok(Some(self.held(resource, None))),
            _ if self.is_marked(resource)? => Ok(Some(elsewhere(resource))),
            Some((record, false)) if record.undo.is_some() => Ok(Some(record.into_stale())),
            Some(_) | None => Ok(None),
        }
    }

    /// Every record, with whether its owner still holds it.
    pub fn records(&self) -> Result<Vec<(ClaimRecord, bool)>, ClaimError> {
        let mut all = Vec::new();
        for resource in self.named(&[RECORD])? {
            all.extend(self.look(&resource)?);
        }
        Ok(all)
    }

    /// The record of `resource`, and whether its owner holds it. What was just given back is not taken for left behind.
    pub(crate) fn look(&self, resource: &Resource) -> Result<Option<(ClaimRecord, bool)>, ClaimError> {
        let mut found = self.read(resource)?;
        while let Some(record) = found {
            if self.is_held(resource)? {
                return Ok(Some((record, true)));
            }
            found = self.read(resource)?;
            if found.as_ref() == Some(&record) {
                return Ok(Some((record, false)));
            }
        }
        Ok(None)
    }

    /// Every resource that has left a file, whatever is in it; ordered.
    pub(crate) fn traces(&self) -> Result<Vec<Resource>, ClaimError> {
        self.named(&[RECORD, LOCK, DRAFT])
    }

    fn named(&self, endings: &[&str]) -> Result<Vec<Resource>, ClaimError> {
        let names = self.files.names().map_err(self.error("", "cannot be listed"))?;
        let resource = |name: &str| {
            let (stem, ending) = name.rsplit_once('.')?;
            let (kind, name) = stem.split_once('-')?;
            endings.contains(&ending).then(|| Resource::new(kind, name))
        };
        let mut all: Vec<_> = names.iter().filter_map(|name| resource(name)).collect();
        all.sort();
        all.dedup();
        Ok(all)
    }

    pub(crate) fn read(&self, resource: &Resource) -> Result<Option<ClaimRecord>, ClaimError> {
        let name = file(resource, RECORD);
        let text = self
            .files
            .read(&name)
            .map_err(self.error(&name, "cannot be read"))?;
        let Some(text) = text else { return Ok(None) };
        match serde_json::from_slice::<ClaimRecord>(&text) {
            Ok(record) if record.resource == *resource => Ok(Some(record)),
            Ok(record) => Err(serde::de::Error::custom(format!("it is of {}", record.resource))),
            Err(source) => Err(source),
        }
        .map_err(self.damaged(&name))
    }

    /// Writes a record whole and synced: a crash leaves the old one or the new one.
    pub(crate) fn write(&self, record: &ClaimRecord) -> Result<(), ClaimError> {
        let (name, draft) = (file(&record.resource, RECORD), file(&record.resource, DRAFT));
        let text = serde_json::to_vec_pretty(record).map_err(self.damaged(&name))?;
        let written = self.files.replace(&name, &draft, &text);
        written.map_err(self.error(&name, "cannot be written"))
    }

    fn error(&self, name: &str, act: &'static str) -> impl FnOnce(io::Error) -> ClaimError + use<> {
        state_error(&self.path_of(name), act)
    }

    fn damaged(&self, name: &str) -> impl FnOnce(serde_json::Error) -> ClaimError + use<> {
        let path = self.path_of(name);
        move |source| ClaimError::Record { path, source }
    }

    fn path_of(&self, name: &str) -> PathBuf {
        match name {
            "" => self.path().to_owned(),
            name => self.path().join(name),
        }
    }
}

fn file(resource: &Resource, ending: &str) -> String {
    format!("{}-{}.{ending}", resource.kind, resource.name)
}

fn state_error(path: &Path, act: &'static str) -> impl FnOnce(io::Error) -> ClaimError + use<> {
    let path = path.to_owned();
    move |source| ClaimError::State { path, act, source }
}

const RECORD: &str = "json";
const LOCK: &str = "lock";
const DRAFT: &str = "draft";
