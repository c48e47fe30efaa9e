//! Marks: what tells a claim to those who do not share its state directory (another user, a private /run).
//!
//! A mark is a lock on one byte of a file that exists once in the kernel, whatever the namespaces; it dies with its holder.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, open, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::claim::Resource;
use crate::sys::lock::{self, Bytes};

/// The files on which this process can leave marks.
///
/// Root's file can be opened by root only, so nobody else keeps root from a claim. On `/dev/kvm` everybody meets who can run a VM.
#[derive(Debug, Default)]
pub(crate) struct HostMarks {
    root: Option<Arc<File>>,
    everybody: Option<Arc<File>>,
}

/// A resource marked as taken; dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Mark {
    file: Arc<File>,
    bytes: Bytes,
}

impl HostMarks {
    /// Opens what this process may open.
    pub(crate) fn open() -> Self {
        match of_root() {
            Ok((root, everybody)) => Self {
                root: Some(Arc::new(root)),
                everybody: everybody.ok().map(Arc::new),
            },
            // Not the host's root: an ordinary user, or root of a container only.
            Err(error) => {
                tracing::debug!(%error, "claims are marked as those of an ordinary user");
                let flags = OFlags::RDWR | OFlags::CLOEXEC;
                let kvm = open("/dev/kvm", flags, Mode::empty()).ok();
                Self {
                    root: None,
                    everybody: kvm.map(|fd| Arc::new(File::from(fd))),
                }
            }
        }
    }

    /// Marks `resource`, or `None` if somebody outside the state directory has it.
    pub(crate) fn take(&self, resource: &Resource) -> io::Result<Option<Vec<Mark>>> {
        let bytes = bytes_of(resource);
        let mut marks = Vec::new();
        if let Some(file) = &self.root {
            match take(file, bytes)? {
                Some(mark) => marks.push(mark),
                None => return Ok(None),
            }
        }
        if let Some(file) = self.everybodys(resource) {
            match take(file, bytes)? {
                Some(mark) => marks.push(mark),
                None if self.root.is_none() => return Ok(None),
                // Else any user could keep root from its own machine.
                None => tracing::warn!(%resource, "an ordinary user has it too; root goes first"),
            }
        }
        Ok(Some(marks))
    }

    /// Whether [`HostMarks::take`] would refuse, asked without a moment of holding it.
    pub(crate) fn is_taken(&self, resource: &Resource) -> io::Result<bool> {
        match (&self.root, self.everybodys(resource)) {
            (Some(file), _) | (None, Some(file)) => lock::is_locked(file, bytes_of(resource)),
            (None, None) => Ok(false),
        }
    }

    /// A name belongs to its user: two users may call theirs the same.
    fn everybodys(&self, resource: &Resource) -> Option<&Arc<File>> {
        let host_wide = resource.kind != Resource::PARTITION;
        self.everybody.as_ref().filter(|_| host_wide)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Err(error) = lock::unlock(&self.file, self.bytes) {
            tracing::error!(%error, "a mark goes only with the process");
        }
    }
}

fn take(file: &Arc<File>, bytes: Bytes) -> io::Result<Option<Mark>> {
    let file = Arc::clone(file);
    Ok(lock::try_lock(&file, bytes)?.then_some(Mark { file, bytes }))
}

/// Root's file, and the node of KVM, on the one devtmpfs of this kernel: mounted for this process alone, so that no namespace
/// can have put something else in its place. Only the host's own root can do this.
fn of_root() -> io::Result<(File, io::Result<File>)> {
    let devices = fsopen("devtmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&devices)?;
    let devices = fsmount(&devices, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = openat(&devices, ROOTS_FILE, flags | OFlags::CREATE, mode)?;
    let found = rustix::fs::fstat(&file)?;
    let regular = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    if !regular || found.st_uid != 0 || found.st_mode & 0o077 != 0 {
        return Err(io::Error::other("the file of marks is not root's alone"));
    }
    let kvm = openat(&devices, "kvm", flags, Mode::empty());
    Ok((file.into(), kvm.map(File::from).map_err(io::Error::from)))
}

/// The byte that stands for a resource: a hash (FNV-1a), the same in every version, below what file offsets reach.
fn bytes_of(resource: &Resource) -> Bytes {
    let name = format!("{}-{}", resource.kind, resource.name);
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    Bytes::one((hash >> 2) as i64)
}

/// In devtmpfs, beside the nodes.
const ROOTS_FILE: &str = "pellucid-claims";
