//! Attributes of sysfs and /proc, read with a limit and believed only as far as they can be read.
//!
//! Whoever asks decides what an attribute's absence means; here a file that is not there, cannot be read or is no text is
//! never a panic and never a wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pellucid_partition::Bdf;

use crate::error::SurveyError;

/// The text of attribute `name` below `path`, trimmed. None: it is not there, or not for us.
pub(super) fn text(path: &Path, name: &str) -> Option<String> {
    let file = path.join(name);
    match read(&file, ATTRIBUTE_LIMIT) {
        Ok(text) => Some(text.trim().to_owned()),
        Err(error) => {
            // Most functions lack most attributes, and one that is being unplugged answers ENODEV.
            let absent =
                error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV);
            if !absent {
                tracing::warn!(path = %file.display(), %error, "not read; the device is described without it");
            }
            None
        }
    }
}

/// A number as sysfs writes identities: hexadecimal, with or without `0x`.
pub(super) fn hex(path: &Path, name: &str) -> Option<u64> {
    let text = text(path, name)?;
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// A number as sysfs writes counts: decimal.
pub(super) fn count<T: std::str::FromStr>(path: &Path, name: &str) -> Option<T> {
    text(path, name)?.parse().ok()
}

/// A whole list that the host's use of its devices is told by: absent is empty, unreadable is an error, since what
/// is not known to be free must not be lent.
pub(super) fn list(path: &Path) -> Result<String, SurveyError> {
    match read(path, LIST_LIMIT) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(SurveyError {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The last part of where the link `name` below `path` leads.
pub(super) fn link(path: &Path, name: &str) -> Option<String> {
    let target = std::fs::read_link(path.join(name)).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// The functions on the real path of `path`, outermost first.
pub(super) fn functions_above(path: &Path) -> Vec<Bdf> {
    // A loop of links has no real path.
    let real = std::fs::canonicalize(path).unwrap_or_default();
    real.components()
        .filter_map(|part| part.as_os_str().to_str()?.parse().ok())
        .collect()
}

/// The names in a directory, in order; empty if it cannot be read.
pub(super) fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

/// The first `most` bytes of an attribute.
pub(super) fn bytes(path: &Path, name: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(&path.join(name))?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file of at most `limit` bytes. What is no UTF-8 becomes a replacement character.
fn read(path: &Path, limit: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A pipe in the place of a file is not waited for.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

/// An attribute of sysfs is at most a page.
const ATTRIBUTE_LIMIT: u64 = 64 << 10;
/// Hosts with thousands of containers have some MiB of mounts.
const LIST_LIMIT: u64 = 64 << 20;
