//! The tree that is read: bounded, without waiting, and with a note for what is there and cannot be read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pellucid_partition::Bdf;

use crate::twin::Note;

/// The tree below a root, read for one part of the twin.
pub(crate) struct Files<'r> {
    pub(crate) root: &'r Path,
    part: &'static str,
    notes: RefCell<BTreeSet<Note>>,
}

impl<'r> Files<'r> {
    pub(crate) fn new(root: &'r Path, part: &'static str) -> Self {
        Files {
            root,
            part,
            notes: RefCell::default(),
        }
    }

    /// Says that something is missing.
    pub(crate) fn note(&self, what: String) {
        let mut notes = self.notes.borrow_mut();
        if notes.len() < MOST_NOTES {
            notes.insert(Note {
                part: self.part.to_owned(),
                what,
            });
        }
    }

    pub(crate) fn notes(self) -> impl Iterator<Item = Note> {
        self.notes.into_inner().into_iter()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The trimmed text of an attribute; empty counts as absent.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let bytes = self.bytes(path, ATTRIBUTE_LIMIT)?;
        let text = String::from_utf8_lossy(&bytes)
            .trim_matches(|c: char| c.is_whitespace() || c == '\0')
            .to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// A decimal number.
    pub(crate) fn number<N: std::str::FromStr>(&self, path: &str) -> Option<N> {
        self.text(path)?.parse().ok()
    }

    /// The bytes of a file that has at most `limit`; a larger one is absent, with a note.
    pub(crate) fn bytes(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        match read(&self.path(path), limit) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                // Most attributes are optional, and the kernel refuses those that do not apply with one of these.
                let absent = error.kind() == io::ErrorKind::NotFound
                    || matches!(
                        error.raw_os_error(),
                        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENODEV)
                    );
                if !absent {
                    self.note(format!("/{path} was not read: {error}"));
                }
                None
            }
        }
    }

    /// The names in a directory, in order.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = match fs::read_dir(self.path(path)) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.note(format!("/{path} was not listed: {error}"));
                }
                return Vec::new();
            }
        };
        let entries = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = entries.take(MOST_NAMES + 1).collect();
        if names.len() > MOST_NAMES {
            self.note(format!(
                "/{path} has more than {MOST_NAMES} entries; the others are left out"
            ));
            names.truncate(MOST_NAMES);
        }
        names.sort_unstable();
        names
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// The last part of where a link leads.
    pub(crate) fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// The parts of the real path, outermost first; empty where there is none.
    pub(crate) fn real(&self, path: &str) -> Vec<String> {
        let real = fs::canonicalize(self.path(path)).unwrap_or_default();
        let parts = real.components();
        parts
            .filter_map(|part| Some(part.as_os_str().to_str()?.to_owned()))
            .collect()
    }

    /// The PCI function that a device is, or is behind without another kind of device between but virtio.
    pub(crate) fn function_of(&self, path: &str) -> Option<Bdf> {
        let parts = self.real(path);
        let device = parts.iter().rev().find(|part| !part.starts_with("virtio"))?;
        device.parse().ok()
    }

    /// The innermost PCI function on the real path.
    pub(crate) fn function_above(&self, path: &str) -> Option<Bdf> {
        self.real(path).iter().rev().find_map(|part| part.parse().ok())
    }
}

/// A pipe in the place of a file is not waited for.
fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

/// An attribute of sysfs is at most a page.
const ATTRIBUTE_LIMIT: u64 = 64 << 10;
pub(crate) const MOST_NAMES: usize = 8192;
const MOST_NOTES: usize = 256;
