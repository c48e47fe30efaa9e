//! Where Debian's packages come from: this machine's own apt configuration, or an address from the environment.
//! The project itself names no archive.

use super::error::DiskError;
use super::tool::Tool;

/// The `sources.list` for a release, from `PELLUCID_DEBIAN_MIRROR` or else from the system's apt.
pub(crate) fn survey(suite: &str) -> Result<String, DiskError> {
    if let Ok(mirror) = std::env::var("PELLUCID_DEBIAN_MIRROR") {
        return Ok(line(mirror.trim(), suite));
    }
    let format = "$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)|$(COMPONENT)";
    let known = Tool::new("apt-get", "apt")
        .args(["indextargets", "--format", format, "Created-By: Packages"])
        .run_quietly()?;
    select(&known, suite).ok_or(DiskError::NoSources)
}

/// Picks the Debian archives out of apt's list and points them at `suite`, whatever release this machine runs.
fn select(known: &str, suite: &str) -> Option<String> {
    let mut lines: Vec<String> = Vec::new();
    for target in known.lines() {
        let fields: Vec<&str> = target.split('|').collect();
        let [origin, label, codename, uri, component] = fields[..] else {
            continue;
        };
        if origin != "Debian" || component != "main" {
            continue;
        }
        let release = match (label, codename.split_once('-').map(|(_, part)| part)) {
            ("Debian", None) => suite.to_owned(),
            ("Debian", Some("updates")) => format!("{suite}-updates"),
            ("Debian-Security", _) => format!("{suite}-security"),
            _ => continue,
        };
        let entry = line(uri, &release);
        if !lines.contains(&entry) {
            lines.push(entry);
        }
    }
    (!lines.is_empty()).then(|| lines.concat())
}

fn line(uri: &str, release: &str) -> String {
    format!("deb {uri} {release} main\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_own_archives_are_used_and_no_others() {
        let known = "\
Debian|Debian|bookworm|http://a.example/debian/|main
Debian|Debian|bookworm|http://a.example/debian/|contrib
Debian|Debian|bookworm-updates|http://a.example/debian/|main
Debian|Debian-Security|bookworm-security|http://a.example/security/|main
Debian Backports|Debian Backports|bookworm-backports|http://a.example/debian/|main
Others|others|stable|http://b.example/|main
";
        let expected = "\
deb http://a.example/debian/ bookworm main
deb http://a.example/debian/ bookworm-updates main
deb http://a.example/security/ bookworm-security main
";
        assert_eq!(select(known, "bookworm").as_deref(), Some(expected));
    }

    #[test]
    fn a_newer_machine_still_builds_the_release_that_was_asked_for() {
        let known = "Debian|Debian|trixie|http://a.example/debian/|main\n";
        assert_eq!(
            select(known, "bookworm").as_deref(),
            Some("deb http://a.example/debian/ bookworm main\n")
        );
    }

    #[test]
    fn a_machine_without_debian_archives_is_told_so() {
        assert_eq!(
            select("Ubuntu|Ubuntu|noble|http://u.example/|main\n", "bookworm"),
            None
        );
        assert_eq!(select("", "bookworm"), None);
        assert!(
            DiskError::NoSources
                .to_string()
                .contains("PELLUCID_DEBIAN_MIRROR")
        );
    }
}
