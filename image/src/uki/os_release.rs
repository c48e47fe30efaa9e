//! What an image says of its operating system (os-release), as far as boot menus need it.

use crate::entries::assignments;

/// Title, version and sort key of an operating system, each from the first field that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// What a menu shows: `PRETTY_NAME`, `IMAGE_ID`, `NAME` or `ID`. Without one, systemd-boot does not show the image.
    pub title: Option<String>,
    /// `IMAGE_VERSION`, `VERSION`, `VERSION_ID` or `BUILD_ID`.
    pub version: Option<String>,
    /// `IMAGE_ID` or `ID`.
    pub sort_key: Option<String>,
}

impl OsRelease {
    /// Reads the text of an os-release file.
    #[must_use]
    pub fn parse(content: &[u8]) -> Self {
        let fields = assignments(content);
        let first = |names: &[&str]| {
            let value = |name: &&str| {
                let mut found = fields.iter().rev().filter(|(key, _)| key == name);
                found.next().map(|(_, value)| value.clone())
            };
            names.iter().find_map(value)
        };
        Self {
            title: first(&["PRETTY_NAME", "IMAGE_ID", "NAME", "ID"]),
            version: first(&["IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"]),
            sort_key: first(&["IMAGE_ID", "ID"]),
        }
    }
}
