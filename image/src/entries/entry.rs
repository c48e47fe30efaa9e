//! One boot loader entry: a text file that names a kernel, its initrds and its options.

use serde::{Deserialize, Serialize};

use super::Rank;
use super::lines::key_values;

/// What an entry boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A Linux kernel (`linux`).
    Linux,
    /// An EFI program (`efi`): only firmware can run it.
    EfiProgram,
}

/// A Boot Loader Specification type 1 entry, as systemd-boot reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderEntry {
    /// The file's name in lower case.
    pub id: String,
    /// What the menu shows.
    pub title: Option<String>,
    /// Groups and orders entries.
    pub sort_key: Option<String>,
    /// The kernel's version.
    pub version: Option<String>,
    /// The installation it belongs to.
    pub machine_id: Option<String>,
    /// Linux or something else.
    pub kind: EntryKind,
    /// Path of the kernel or program on the ESP, with backslashes.
    pub kernel: String,
    /// Paths of the initrds, in order.
    pub initrds: Vec<String>,
    /// The `options` lines, joined by blanks.
    pub options: Option<String>,
    /// Boot attempts left, if attempts are counted.
    pub tries_left: Option<u32>,
    /// Boot attempts made, if attempts are counted.
    pub tries_done: Option<u32>,
}

impl LoaderEntry {
    /// Reads the entry in the file `name`. `None` when it boots nothing, or is for another architecture.
    #[must_use]
    pub fn parse(name: &str, content: &[u8]) -> Option<Self> {
        let mut target = None;
        let (tries_left, tries_done) = parse_tries(name, ".conf").unzip();
        let mut entry = Self {
            id: name.to_ascii_lowercase(),
            title: None,
            sort_key: None,
            version: None,
            machine_id: None,
            kind: EntryKind::Linux,
            kernel: String::new(),
            initrds: Vec::new(),
            options: None,
            tries_left,
            tries_done,
        };
        for (key, value) in key_values(content) {
            match key.as_str() {
                "title" => entry.title = Some(value),
                "sort-key" => entry.sort_key = Some(value),
                "version" => entry.version = Some(value),
                "machine-id" => entry.machine_id = Some(value),
                "linux" => target = Some((EntryKind::Linux, efi_path(&value))),
                "efi" => target = Some((EntryKind::EfiProgram, efi_path(&value))),
                "architecture" if value != "x64" => return None,
                "initrd" => entry.initrds.push(efi_path(&value)),
                "options" => entry.add_options(value),
                _ => {}
            }
        }
        (entry.kind, entry.kernel) = target?;
        Some(entry)
    }

    /// What the menu shows for it.
    #[must_use]
    pub fn shown_title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.id)
    }

    /// The command line that the kernel finds in `/proc/cmdline`: systemd-boot puts an `initrd=` per initrd before the options.
    #[must_use]
    pub fn command_line(&self) -> String {
        let initrds = self.initrds.iter().map(|path| format!("initrd={path}"));
        let parts: Vec<String> = initrds.chain(self.options.clone()).collect();
        parts.join(" ")
    }

    pub(crate) fn rank(&self) -> Rank {
        Rank {
            id: self.id.clone(),
            sort_key: self.sort_key.clone(),
            version: self.version.clone(),
            machine_id: self.machine_id.clone(),
            tries_left: self.tries_left,
            tries_done: self.tries_done,
        }
    }

    fn add_options(&mut self, value: String) {
        self.options = match self.options.take() {
            Some(before) => Some(format!("{before} {value}")),
            None => Some(value),
        };
    }
}

/// A path as EFI wants it: backslashes, none doubled.
fn efi_path(value: &str) -> String {
    let mut path = String::with_capacity(value.len());
    for c in value.chars() {
        let c = if c == '/' { '\\' } else { c };
        if c != '\\' || !path.ends_with('\\') {
            path.push(c);
        }
    }
    path
}

/// The counters of `name+LEFT-DONE` before `end`; `-DONE` may be missing.
pub(super) fn parse_tries(name: &str, end: &str) -> Option<(u32, u32)> {
    let (_, counter) = name.rsplit_once('+')?;
    let counter = counter.strip_suffix(end)?;
    let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
    let number = |text: &str| -> Option<u32> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|&value: &u32| digits && value <= i32::MAX as u32)
    };
    Some((number(left)?, number(done)?))
}
