//! The tree of files that is read. What the kernel may leave out is nothing said; what it must write is an error that names the file.

use std::collections::BTreeSet;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

use super::parse_list;
use crate::error::SurveyError;

/// The tree below a root.
pub(super) struct Files<'r> {
    pub(super) root: &'r Path,
}

impl Files<'_> {
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.root.join(file.trim_start_matches('/'))
    }

    pub(super) fn text(&self, file: &str) -> Result<String, SurveyError> {
        let path = self.path(file);
        std::fs::read_to_string(&path).map_err(|source| SurveyError { path, source })
    }

    pub(super) fn optional(&self, file: &str) -> String {
        self.found(file).unwrap_or_default()
    }

    /// The text of a file that is there.
    pub(super) fn found(&self, file: &str) -> Option<String> {
        std::fs::read_to_string(self.path(file)).ok()
    }

    pub(super) fn words(&self, file: &str) -> Vec<String> {
        let text = self.optional(file);
        text.split_whitespace().map(str::to_owned).collect()
    }

    pub(super) fn set(&self, file: &str) -> BTreeSet<usize> {
        parse_list(&self.optional(file)).unwrap_or_default()
    }

    pub(super) fn number<N: std::str::FromStr>(&self, file: &str) -> Option<N> {
        self.optional(file).trim().parse().ok()
    }

    /// The value of a line of `/proc/self/status`.
    pub(super) fn status(&self, key: &str) -> Result<Option<String>, SurveyError> {
        let text = self.text("proc/self/status")?;
        let value = text.lines().find_map(|line| line.strip_prefix(key));
        Ok(value.map(|value| value.trim().to_owned()))
    }

    /// The bytes of a line such as `MemFree:  123 kB`, also with a prefix such as `Node 0 MemFree:`.
    pub(super) fn kilobytes(&self, file: &str, key: &str) -> Result<u64, SurveyError> {
        let missing = || Error::new(ErrorKind::InvalidData, format!("no line {key:?}"));
        kilobytes_in(&self.text(file)?, key).ok_or_else(|| SurveyError {
            path: self.path(file),
            source: missing(),
        })
    }
}

/// The bytes of the line with `key`, if there is one with a number.
pub(super) fn kilobytes_in(text: &str, key: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.split_once(key).map(|(_, rest)| rest))?;
    let number: u64 = value.split_whitespace().next()?.parse().ok()?;
    Some(number.saturating_mul(1024))
}
