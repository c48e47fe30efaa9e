//! The state directory: a lock and a record for each claimed resource.
//!
//! A record is replaced whole and synced. Looking at a lock never takes it, so those who only look disturb nobody.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::claim::{Claim, ClaimRecord, Resource};
use crate::error::ClaimError;
use crate::sys::lock;

/// The directory of locks and records, readable by its owner only.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
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
        let lock = self.lock_or_holder(&resource)?;
        if let Some(left) = self.read(&resource)?
            && left.undo.is_some()
        {
            return Err(left.into_stale());
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
        let mut all = Vec::new();
        for resource in self.recorded()? {
            if let Some(record) = self.read(&resource)? {
                all.push((record, self.is_held(&resource)?));
            }
        }
        Ok(all)
    }

    /// Every resource that has a record, whatever is in it; ordered.
    pub(crate) fn recorded(&self) -> Result<Vec<Resource>, ClaimError> {
        let failed = || state_error(&self.path, "cannot be listed");
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let ours = name.to_str().and_then(|name| name.strip_suffix(".json"));
            all.extend(
                ours.and_then(|name| name.split_once('-'))
                    .map(|(kind, name)| Resource::new(kind, name)),
            );
        }
        all.sort();
        Ok(all)
    }

    /// The lock of `resource`, or who holds it. An owner that has not written its name yet, or is just going, is waited for.
    fn lock_or_holder(&self, resource: &Resource) -> Result<File, ClaimError> {
        let patience = Instant::now() + Duration::from_secs(1);
        loop {
            if let Some(lock) = self.lock(resource)? {
                return Ok(lock);
            }
            let record = self.read(resource)?;
            let named = record.as_ref().is_some_and(|record| is_alive(record.pid));
            if named || Instant::now() > patience {
                let unnamed = || ClaimError::Held {
                    resource: resource.to_string(),
                    holder: "starting".to_owned(),
                    pid: 0,
                };
                return Err(record.map_or_else(unnamed, ClaimRecord::into_held));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
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
        let locked = lock::try_lock(&file).map_err(state_error(&path, "cannot be locked"))?;
        Ok(locked.then_some(file))
    }

    /// Whether somebody living holds `resource`.
    pub(crate) fn is_held(&self, resource: &Resource) -> Result<bool, ClaimError> {
        let path = self.file(resource, "lock");
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.and_then(|file| lock::is_locked(&file)),
        }
        .map_err(state_error(&path, "cannot be looked at"))
    }

    pub(crate) fn read(&self, resource: &Resource) -> Result<Option<ClaimRecord>, ClaimError> {
        let path = self.file(resource, "json");
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(state_error(&path, "cannot be read"))?,
        };
        match serde_json::from_slice::<ClaimRecord>(&text) {
            Ok(record) if record.resource == *resource => Ok(Some(record)),
            Ok(record) => Err(serde::de::Error::custom(format!("it is of {}", record.resource))),
            Err(source) => Err(source),
        }
        .map_err(|source| ClaimError::Record { path, source })
    }

    /// Writes a record whole and synced: a crash leaves the old one or the new one.
    pub(crate) fn write(&self, record: &ClaimRecord) -> Result<(), ClaimError> {
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

/// Whether the process exists in this process's view; a zombie still does.
fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

fn state_error(path: &Path, act: &'static str) -> impl FnOnce(io::Error) -> ClaimError + use<> {
    let path = path.to_owned();
    move |source| ClaimError::State { path, act, source }
}
