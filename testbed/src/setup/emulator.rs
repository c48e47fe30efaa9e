//! Finds or fetches the emulator and probes what it can do. QEMU 10.0 is wanted: it
//! has `igb` with SR-IOV and the fewest faults while nesting.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Cache;
use crate::setup::apt::{Apt, Candidate};
use crate::setup::packages;
use crate::setup::program::{find, output_of};
use crate::{Progress, SetupError};

/// A QEMU for x86-64 that was started once and asked what it can do.
#[derive(Debug, Clone)]
pub struct Emulator {
    /// The program to start; for an unpacked emulator a script that sets its paths.
    pub program: PathBuf,
    /// Its version.
    pub version: Version,
    devices: BTreeSet<&'static str>,
}

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl Emulator {
    /// `$PELLUCID_QEMU`, else the installed QEMU if it is a 10.0, else one unpacked in
    /// the cache, else the distribution's, which is installed if need be.
    ///
    /// # Errors
    /// None of them can be had, or the one found does not start.
    pub fn ready(cache: &Cache, progress: Progress) -> Result<Self, SetupError> {
        if let Some(program) = std::env::var_os("PELLUCID_QEMU") {
            return Self::probe(Path::new(&program));
        }
        let installed = find(PROGRAM).and_then(|program| Self::probe(&program).ok());
        if let Some(emulator) = installed.filter(|emulator| emulator.version == WANTED) {
            return Ok(emulator);
        }
        let unpacked = Self::unpacked(cache, progress);
        match unpacked {
            Ok(emulator) => Ok(emulator),
            Err(reason) => {
                progress.say(format!(
                    "no QEMU 10.0 could be fetched ({reason}); using the distribution's"
                ));
                Self::installed(progress)
            }
        }
    }

    /// Starts `program` and asks it for its version and the devices not all versions have.
    ///
    /// # Errors
    /// It does not start or says something else.
    pub fn probe(program: &Path) -> Result<Self, SetupError> {
        let text = output_of(Command::new(program).arg("--version"))?;
        let version = Version::parse(&text).ok_or_else(|| SetupError::Content {
            subject: format!("the output of {} --version", program.display()),
            problem: "has no version".into(),
            remedy: "is this a qemu-system-x86_64?".into(),
        })?;
        // One by one, because the list of all loads every module of the emulator, and an
        // unpacked one finds those of an installed one of another version.
        let known =
            |name: &&str| output_of(Command::new(program).args(["-device", &format!("{name},help")])).is_ok();
        let devices = PROBED.into_iter().filter(known).collect();
        Ok(Self {
            program: program.to_owned(),
            version,
            devices,
        })
    }

    /// Whether it emulates the device `name`: one of those not all versions have (`igb`).
    pub fn has(&self, name: &str) -> bool {
        self.devices.contains(name)
    }

    fn unpacked(cache: &Cache, progress: Progress) -> Result<Self, SetupError> {
        let recipe = format!(
            "recipe 2, {}",
            fs::read_to_string("/etc/os-release").unwrap_or_default()
        );
        let entry = cache.entry("qemu", recipe.as_bytes(), &["run", EXECUTABLE], |fresh| {
            let _step = progress.step("fetching QEMU (about 16 MB)");
            let apt = Apt::ready(cache)?;
            let candidates = apt.candidates(PACKAGE)?;
            let best = best_of(&candidates).ok_or_else(|| SetupError::Content {
                subject: format!("the mirror's suites of {}", apt.codename()),
                problem: format!("have no {PACKAGE} 8 or later"),
                remedy: "the distribution's own will do for most tests".into(),
            })?;
            apt.unpack_with_needs(PACKAGE, &best.suite, fresh)?;
            write_script(fresh)
        })?;
        Self::probe(&entry.join("run"))
    }

    fn installed(progress: Progress) -> Result<Self, SetupError> {
        if find(PROGRAM).is_none() {
            packages::install(
                &[packages::Shortage {
                    program: PROGRAM,
                    package: PACKAGE,
                }],
                progress,
            )?;
        }
        Self::probe(&find(PROGRAM).unwrap_or_else(|| PathBuf::from(PROGRAM)))
    }
}

impl Version {
    /// The version in the output of `qemu-system-x86_64 --version`.
    pub fn parse(text: &str) -> Option<Self> {
        let word = text.split_once("version ")?.1.split_whitespace().next()?;
        let mut numbers = word.split('.').map(str::parse);
        Some(Self {
            major: numbers.next()?.ok()?,
            minor: numbers.next()?.ok()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

/// The oldest candidate that has everything: newer ones have more faults while nesting.
fn best_of(candidates: &[Candidate]) -> Option<&Candidate> {
    let major = |candidate: &Candidate| {
        let upstream = candidate
            .version
            .split_once(':')
            .map_or(candidate.version.as_str(), |parts| parts.1);
        upstream
            .split('.')
            .next()
            .and_then(|number| number.parse::<u32>().ok())
    };
    candidates
        .iter()
        .filter(|one| major(one) >= Some(8))
        .min_by_key(|one| major(one))
}

/// The unpacked program finds neither its libraries nor its firmware by itself.
fn write_script(folder: &Path) -> Result<(), SetupError> {
    let path = folder.join("run");
    let failed = |source| SetupError::file(&path, source);
    fs::write(&path, SCRIPT).map_err(failed)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(failed)
}

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
const EXECUTABLE: &str = "usr/bin/qemu-system-x86_64";
const PROBED: [&str; 1] = ["igb"];
const WANTED: Version = Version { major: 10, minor: 0 };
const SCRIPT: &str = r#"#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
libs=$here/usr/lib/x86_64-linux-gnu
LD_LIBRARY_PATH=$libs:$here/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
QEMU_MODULE_DIR=$libs/qemu
export LD_LIBRARY_PATH QEMU_MODULE_DIR
exec "$here/usr/bin/qemu-system-x86_64" -L "$here/usr/share/qemu" -L "$here/usr/share/seabios" \
    -L "$here/usr/lib/ipxe/qemu" "$@"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let version = |text| Version::parse(text);
        let debian = version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)").unwrap();
        let old = version("QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright").unwrap();
        assert_eq!(debian, WANTED);
        assert!(old < debian);
        assert_eq!(version("QEMU emulator"), None);
        assert_eq!(version("QEMU emulator version x.y"), None);
    }

    #[test]
    fn the_oldest_emulator_with_every_device_is_taken() {
        let candidate = |version: &str, suite: &str| Candidate {
            version: version.into(),
            suite: suite.into(),
        };
        let both = [
            candidate("1:10.0.2+ds~bpo12+1", "b-backports"),
            candidate("1:7.2+dfsg-7", "b"),
        ];
        assert_eq!(best_of(&both).unwrap().suite, "b-backports");
        let newer = [
            candidate("1:11.0.1~bpo13+1", "t-backports"),
            candidate("1:10.0.2+ds-2", "t"),
        ];
        assert_eq!(best_of(&newer).unwrap().suite, "t");
        assert_eq!(best_of(&[candidate("1:7.2+dfsg-7", "b")]), None);
    }
}
