//! Claims: a kernel-held lock says who owns a resource, a record written ahead says how to undo what the owner did.
//!
//! The lock dies with its owner, whatever kills it; the record stays, and [`StateDir::heal`](crate::StateDir::heal) reads it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::error::ClaimError;

/// The directory of locks and records, readable by its owner only.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// What can be claimed: `device 0000:01:00.0`, `cpu 3`, `partition db1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resource {
    /// Its kind.
    pub kind: String,
    /// Its name among its kind.
    pub name: String,
}

/// Who holds a resource, and how to undo what was done to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// What is held.
    pub resource: Resource,
    /// The partition that holds it.
    pub partition: String,
    /// Its process.
    pub pid: u32,
    /// How to restore the resource; `None` while nothing was changed.
    pub undo: Option<Undo>,
}

/// A way back, readable by the healer of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// Which healer understands it.
    pub kind: String,
    /// What that healer needs to know.
    pub data: serde_json::Value,
}

/// A resource held by this process.
///
/// Dropped without [`Claim::release`], the lock goes but a written undo stays for `heal`.
#[derive(Debug)]
#[must_use = "dropping the claim gives the resource up"]
pub struct Claim {
    state: StateDir,
    record: ClaimRecord,
    _lock: File,
}

impl StateDir {
    /// The system's directory: `/run/pellucid` for root, else `$XDG_RUNTIME_DIR/pellucid`.
    pub fn standard() -> Result<Self, ClaimError> {
        if rustix::process::geteuid().is_root() {
            return Self::at(Path::new("/run/pellucid"));
        }
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(base) => Self::at(&Path::new(&base).join("pellucid")),
            None => Err(state_error(Path::new("$XDG_RUNTIME_DIR"), "is not set")(
                io::ErrorKind::NotFound.into(),
            )),
        }
    }

    /// The directory at `path`, made if missing. Refused if others could write to it and so forge claims.
    pub fn at(path: &Path) -> Result<Self, ClaimError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(state_error(path, "cannot be created"))?;
        let found = path
            .symlink_metadata()
            .map_err(state_error(path, "cannot be read"))?;
        let ours = found.uid() == rustix::process::geteuid().as_raw();
        if !found.is_dir() || !ours || found.mode() & 0o022 != 0 {
            let why = "is not a directory of this user that nobody else can write to";
            return Err(state_error(path, why)(io::ErrorKind::PermissionDenied.into()));
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Claims `resource` for `partition`. Refused while another holds it (who is said) or what a dead owner left is not yet healed.
    pub fn claim(&self, resource: Resource, partition: &str) -> Result<Claim, ClaimError> {
        let lock = self.lock(&resource)?;
        let Some(lock) = lock else {
            let holder = self.read(&resource)?;
            let (holder, pid) = holder.map_or(("starting".to_owned(), 0), |r| (r.partition, r.pid));
            return Err(ClaimError::Held {
                resource: resource.to_string(),
                holder,
                pid,
            });
        };
        if let Some(left) = self.read(&resource)?
            && left.undo.is_some()
        {
            let (holder, pid) = (left.partition, left.pid);
            return Err(ClaimError::Stale {
                resource: resource.to_string(),
                holder,
                pid,
            });
        }
        let record = ClaimRecord {
            resource,
            partition: partition.to_owned(),
            pid: std::process::id(),
            undo: None,
        };
        self.write(&record)?;
        Ok(Claim {
            state: self.clone(),
            record,
            _lock: lock,
        })
    }

    /// Every record, with whether its owner still holds it.
    pub fn records(&self) -> Result<Vec<(ClaimRecord, bool)>, ClaimError> {
        let failed = || state_error(&self.path, "cannot be listed");
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            if path.extension().is_some_and(|e| e == "json")
                && let Some(record) = read_record(&path)?
            {
                let held = self.lock(&record.resource)?.is_none();
                all.push((record, held));
            }
        }
        all.sort_by(|a, b| a.0.resource.cmp(&b.0.resource));
        Ok(all)
    }

    /// The lock of `resource`, or `None` while another process (or claim) holds it.
    pub(crate) fn lock(&self, resource: &Resource) -> Result<Option<File>, ClaimError> {
        let path = self.file(resource, "lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = file.map_err(state_error(&path, "cannot be opened"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(state_error(&path, "cannot be locked")(error.into())),
        }
    }

    pub(crate) fn read(&self, resource: &Resource) -> Result<Option<ClaimRecord>, ClaimError> {
        read_record(&self.file(resource, "json"))
    }

    /// Writes a record whole and synced: a crash leaves the old one or the new one.
    fn write(&self, record: &ClaimRecord) -> Result<(), ClaimError> {
        let path = self.file(&record.resource, "json");
        let draft = self.file(&record.resource, "draft");
        let text = serde_json::to_vec_pretty(record).map_err(|source| ClaimError::Record {
            path: path.clone(),
            source,
        })?;
        let written = (|| {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)?;
            self.sync()
        })();
        written.map_err(state_error(&path, "cannot be written"))
    }

    pub(crate) fn remove(&self, resource: &Resource) -> Result<(), ClaimError> {
        let path = self.file(resource, "json");
        let removed = match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| self.sync()),
        };
        removed.map_err(state_error(&path, "cannot be removed"))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn file(&self, resource: &Resource, ending: &str) -> PathBuf {
        self.path
            .join(format!("{}-{}.{ending}", resource.kind, resource.name))
    }
}

impl Resource {
    /// A resource of a kind; neither text may contain a path separator.
    #[must_use]
    pub fn new(kind: &str, name: &str) -> Self {
        let plain = |text: &str| text.replace(['/', '\0'], "_");
        Self {
            kind: plain(kind),
            name: plain(name),
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl Claim {
    /// Records how to undo what the owner is about to do, before it does it. Replaces an earlier record.
    pub fn record_undo(&mut self, kind: &str, data: &serde_json::Value) -> Result<(), ClaimError> {
        self.record.undo = Some(Undo {
            kind: kind.to_owned(),
            data: data.clone(),
        });
        self.state.write(&self.record)
    }

    /// Who holds what.
    #[must_use]
    pub fn record(&self) -> &ClaimRecord {
        &self.record
    }

    /// Gives the resource back, after its owner has undone what it did.
    pub fn release(mut self) -> Result<(), ClaimError> {
        self.record.undo = None;
        self.state.remove(&self.record.resource)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.record.undo.is_none()
            && let Err(error) = self.state.remove(&self.record.resource)
        {
            tracing::error!(%error, "a claim's record stays behind; it is harmless");
        }
    }
}

fn read_record(path: &Path) -> Result<Option<ClaimRecord>, ClaimError> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(state_error(path, "cannot be read"))?,
    };
    let record = serde_json::from_slice(&text);
    record.map(Some).map_err(|source| ClaimError::Record {
        path: path.to_owned(),
        source,
    })
}

fn state_error(path: &Path, act: &'static str) -> impl FnOnce(io::Error) -> ClaimError + use<> {
    let path = path.to_owned();
    move |source| ClaimError::State { path, act, source }
}
