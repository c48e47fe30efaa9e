//! The files of a state directory, reached through its descriptor: no link is followed, nothing of another user's is opened.
//!
//! Each change of them is a step of its own; whatever is left in between is removed by the next holder or healer.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::step::step;
use crate::sys::lock::{self, Bytes};

#[derive(Debug, Clone)]
pub(crate) struct Files {
    path: PathBuf,
    directory: Arc<OwnedFd>,
}

/// A lock file, locked by this value.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Files {
    /// Opens the directory, made if missing; an error says what is wrong with it.
    pub(crate) fn open(path: &Path) -> Result<Self, (&'static str, io::Error)> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| ("cannot be created", error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let refused = |error: Errno| match error {
            // A link in its place, which whoever made it may turn to anywhere.
            Errno::LOOP | Errno::NOTDIR => (OURS_ALONE, io::ErrorKind::PermissionDenied.into()),
            other => ("cannot be opened", other.into()),
        };
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(refused)?;
        let found = fstat(&directory).map_err(|error| ("cannot be read", error.into()))?;
        if found.st_uid != rustix::process::geteuid().as_raw() || found.st_mode & 0o077 != 0 {
            return Err((OURS_ALONE, io::ErrorKind::PermissionDenied.into()));
        }
        let above = path.canonicalize().map_err(|error| ("cannot be read", error))?;
        for above in above.ancestors().skip(1) {
            let found = above.metadata().map_err(|error| ("cannot be read", error))?;
            if !keeps_its_entries(&found) {
                return Err((REPLACEABLE, io::ErrorKind::PermissionDenied.into()));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            directory: Arc::new(directory),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Every name in it.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        if fstat(&self.directory)?.st_nlink == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    /// Creates the lock file and locks it; `None` while somebody else has it locked.
    pub(crate) fn lock(&self, name: &str) -> io::Result<Option<Lock>> {
        loop {
            let file = step("create the lock", || {
                self.file(name, OFlags::CREATE | OFlags::WRONLY)
            })?;
            if !step("lock", || lock::try_lock(&file, Bytes::ALL))? {
                return Ok(None);
            }
            // Its last holder may have removed it since it was opened: a lock on that keeps nobody out.
            match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(now) if now.st_ino == fstat(&file)?.st_ino => return Ok(Some(Lock(file))),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether somebody has the lock file locked.
    pub(crate) fn is_locked(&self, name: &str) -> io::Result<bool> {
        match self.file(name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.and_then(|file| lock::is_locked(&file, Bytes::ALL)),
        }
    }

    /// A file's whole content; `None` if it is not there.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut file = match self.file(name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(Some(content))
    }

    /// Replaces a file whole and synced, by way of `draft`: a crash leaves the old content or the new.
    pub(crate) fn replace(&self, name: &str, draft: &str, content: &[u8]) -> io::Result<()> {
        let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let mut file = match step("create the draft", || self.file(draft, new)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Left by one who died here. Never written into: it may be a link to something else.
                self.remove(draft)?;
                self.file(draft, new)?
            }
            other => other?,
        };
        step("write the draft", || file.write_all(content))?;
        step("sync the draft", || file.sync_all())?;
        step("replace the record", || {
            renameat(&self.directory, draft, &self.directory, name)
        })?;
        self.sync()
    }

    /// Removes a file; that it is not there is no error.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match step("remove a file", || {
            unlinkat(&self.directory, name, AtFlags::empty())
        }) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(step("sync the directory", || rustix::fs::fsync(&self.directory))?)
    }

    /// Opens a plain file of this user's, without waiting.
    fn file(&self, name: impl AsRef<OsStr>, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(&self.directory, name.as_ref(), flags, Mode::RUSR | Mode::WUSR)?;
        let found = fstat(&file)?;
        let plain = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_nlink <= 1;
        if !plain || found.st_uid != rustix::process::geteuid().as_raw() {
            let why = "it is not a plain file of this user with one name";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(file.into())
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would not do while a child that was just forked has a copy, for the moment until it executes something.
        if let Err(error) = lock::unlock(&self.0, Bytes::ALL) {
            tracing::error!(%error, "a lock goes only with the process");
        }
    }
}

/// Whether nobody but its owner (who could do anything anyway, or is ourselves) can put something else in an entry's place.
fn keeps_its_entries(directory: &Metadata) -> bool {
    const STICKY: u32 = 0o1000;
    directory.mode() & 0o022 == 0 || directory.mode() & STICKY != 0
}

const OURS_ALONE: &str =
    "is not a directory of this user alone, which nobody else can write to or read (chmod 700)";
const REPLACEABLE: &str =
    "is in a directory that others can write to, so they could put another in its place";
