//! GRUB's variables, which of them are exported, and the block file (`grubenv`) that keeps some across boots.

use std::collections::{BTreeMap, BTreeSet};

/// The variables that a script sees.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment {
    values: BTreeMap<String, String>,
    exported: BTreeSet<String>,
    size: usize,
}

impl Environment {
    /// What GRUB has set before the first line of a configuration, on the platform `efi` or `pc`.
    pub(super) fn new(platform: &str) -> Self {
        let mut environment = Self::default();
        let features = FEATURES.iter().map(|name| (*name, "y"));
        for (name, value) in features.chain([
            ("grub_cpu", if platform == "efi" { "x86_64" } else { "i386" }),
            ("grub_platform", platform),
        ]) {
            environment.values.insert(name.to_owned(), value.to_owned());
            environment.exported.insert(name.to_owned());
        }
        for name in ["root", "prefix", "config_file", "config_directory"] {
            environment.exported.insert(name.to_owned());
        }
        environment
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Sets a variable. Values, and all of them together, are bounded.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        self.unset(name);
        self.size += name.len() + value.len();
        if value.len() > MAX_VALUE || self.size > MAX_SIZE {
            return Err("its variables hold more than any boot menu's".to_owned());
        }
        self.values.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    pub(super) fn unset(&mut self, name: &str) {
        if let Some(value) = self.values.remove(name) {
            self.size = self.size.saturating_sub(name.len() + value.len());
        }
    }

    pub(super) fn export(&mut self, name: &str) {
        if self.exported.len() < MAX_EXPORTED {
            self.exported.insert(name.to_owned());
        }
    }

    /// What a menu below this one, or another configuration file, sees of it: the exported variables.
    pub(super) fn inner(&self) -> Self {
        let exported = |(name, _): &(&String, &String)| self.exported.contains(*name);
        let values: BTreeMap<String, String> = self
            .values
            .iter()
            .filter(exported)
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Self {
            size: values.iter().map(|(name, value)| name.len() + value.len()).sum(),
            values,
            exported: self.exported.clone(),
        }
    }
}

/// The variables in an environment block; `None` when it is none.
pub(super) fn block(content: &[u8]) -> Option<Vec<(String, String)>> {
    let mut rest = content.strip_prefix(SIGNATURE)?;
    let mut variables = Vec::new();
    while let Some(end) = rest.iter().position(|&byte| byte == b'=') {
        let line_end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        if rest.first() == Some(&b'#') || line_end < end {
            rest = rest.get(line_end + 1..).unwrap_or_default();
            continue;
        }
        let name = String::from_utf8_lossy(&rest[..end]).into_owned();
        let mut value = Vec::new();
        let mut bytes = rest[end + 1..].iter().enumerate();
        let mut used = rest.len();
        while let Some((at, &byte)) = bytes.next() {
            match byte {
                b'\n' => {
                    used = end + 1 + at + 1;
                    break;
                }
                b'\\' => value.extend(bytes.next().map(|(_, &byte)| byte)),
                byte => value.push(byte),
            }
        }
        variables.push((name, String::from_utf8_lossy(&value).into_owned()));
        if variables.len() > MAX_VARIABLES {
            break;
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    Some(variables)
}

const FEATURES: &[&str] = &[
    "feature_chainloader_bpb",
    "feature_ntldr",
    "feature_platform_search_hint",
    "feature_default_font_path",
    "feature_all_video_module",
    "feature_menuentry_id",
    "feature_menuentry_options",
    "feature_200_final",
    "feature_nativedisk_cmd",
    "feature_timeout_style",
];
const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";
const MAX_VALUE: usize = 64 << 10;
const MAX_SIZE: usize = 256 << 10;
const MAX_EXPORTED: usize = 1024;
const MAX_VARIABLES: usize = 1024;
