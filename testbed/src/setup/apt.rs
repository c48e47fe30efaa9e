//! An apt of the testbed's own: its sources, lists and archives lie in the cache,
//! so that packages of other suites can be fetched without touching the system's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::SetupError;
use crate::cache::{Cache, hex_digest};
use crate::setup::program::output_of;
use crate::setup::sources;

/// An apt state folder with lists that have been fetched.
#[derive(Debug)]
pub(crate) struct Apt {
    folder: PathBuf,
    codename: String,
}

/// A version of a package and the suite that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) version: String,
    pub(crate) suite: String,
}

impl Apt {
    /// Derives the sources from the system's and fetches the lists; without the
    /// backports suite where the mirror has none.
    pub(crate) fn ready(cache: &Cache) -> Result<Self, SetupError> {
        let codename = codename(Path::new("/etc/os-release"))?;
        let surveyed = sources::survey_at(Path::new("/etc/apt"))?;
        let main = sources::main_of(&surveyed, &codename).ok_or_else(|| SetupError::Content {
            subject: "the apt sources of this machine".into(),
            problem: format!("have no component main of the suite {codename}"),
            remedy: "add it to /etc/apt/sources.list.d".into(),
        })?;
        let suites = [codename.clone(), format!("{codename}-backports")];
        let with_backports = sources::derive(main, &suites);
        let digest = hex_digest(with_backports.as_bytes());
        let folder = cache.root().join(format!("apt-{}", &digest[..12]));
        let apt = Self { folder, codename };
        if apt.folder.join("fetched").exists() {
            return Ok(apt);
        }
        apt.lay_out()?;
        if apt.fetch(&with_backports).is_err() {
            apt.fetch(&sources::derive(main, &suites[..1]))?;
        }
        apt.write("fetched", "")?;
        Ok(apt)
    }

    /// The name of the distribution's release.
    pub(crate) fn codename(&self) -> &str {
        &self.codename
    }

    /// Every version of `package` that can be had.
    pub(crate) fn candidates(&self, package: &str) -> Result<Vec<Candidate>, SetupError> {
        Ok(parse_madison(&output_of(
            self.command("apt-cache").args(["madison", package]),
        )?))
    }

    /// The package that the meta package `package` stands for in the main suite.
    pub(crate) fn first_dependency(&self, package: &str) -> Result<Option<String>, SetupError> {
        let suite = format!("{package}/{}", self.codename);
        let text = output_of(
            self.command("apt-cache")
                .args(["show", "--no-all-versions", &suite]),
        )
        .or_else(|_| {
            output_of(
                self.command("apt-cache")
                    .args(["show", "--no-all-versions", package]),
            )
        })?;
        Ok(parse_depends(&text))
    }

    /// Downloads `package` and unpacks it into `target`, without what it depends on.
    pub(crate) fn unpack(&self, package: &str, target: &Path) -> Result<(), SetupError> {
        let debs = self.fresh_archives()?;
        output_of(
            self.command("apt-get")
                .current_dir(&debs)
                .args(["download", package]),
        )?;
        unpack_all(&debs, target)
    }

    /// Downloads `package` of `suite` with everything it needs that this system
    /// lacks, and unpacks all of it into `target`. Nothing is installed.
    pub(crate) fn unpack_with_needs(
        &self,
        package: &str,
        suite: &str,
        target: &Path,
    ) -> Result<(), SetupError> {
        let debs = self.fresh_archives()?;
        fs::create_dir_all(debs.join("partial")).map_err(|source| SetupError::file(&debs, source))?;
        let mut archives = std::ffi::OsString::from("Dir::Cache::archives=");
        archives.push(&debs);
        let mut command = self.command("apt-get");
        command
            .arg("-o")
            .arg(archives)
            .args(["install", "--download-only", "--reinstall", "--yes"]);
        output_of(command.args(["--no-install-recommends", "-t", suite, package]))?;
        unpack_all(&debs, target)
    }

    fn fresh_archives(&self) -> Result<PathBuf, SetupError> {
        let debs = self.folder.join("debs");
        crate::cache::remove_tree(&debs)?;
        fs::create_dir_all(&debs).map_err(|source| SetupError::file(&debs, source))?;
        Ok(debs)
    }

    fn lay_out(&self) -> Result<(), SetupError> {
        for part in ["state/lists/partial", "cache/archives/partial", "none", "debs"] {
            let path = self.folder.join(part);
            fs::create_dir_all(&path).map_err(|source| SetupError::file(path, source))?;
        }
        Ok(())
    }

    fn fetch(&self, sources: &str) -> Result<(), SetupError> {
        self.write("testbed.sources", sources)?;
        output_of(
            self.command("apt-get")
                .args(["-o", "APT::Update::Error-Mode=any", "update"]),
        )
        .map(drop)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), SetupError> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(|source| SetupError::file(path, source))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::State", "state"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::sourcelist", "testbed.sources"),
            ("Dir::Etc::sourceparts", "none"),
        ] {
            let mut word = std::ffi::OsString::from(format!("{option}="));
            word.push(self.folder.join(value));
            command.arg("-o").arg(word);
        }
        let fixed = [
            "Dir::State::status=/var/lib/dpkg/status",
            "APT::Sandbox::User=root",
            "Debug::NoLocking=1",
        ];
        for option in fixed {
            command.arg("-o").arg(option);
        }
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C");
        command
    }
}

/// The versions in the output of `apt-cache madison`.
pub(crate) fn parse_madison(text: &str) -> Vec<Candidate> {
    let candidate = |line: &str| {
        let mut columns = line.split('|').map(str::trim);
        let (_, version, place) = (columns.next()?, columns.next()?, columns.next()?);
        let suite = place.split_whitespace().nth(1)?.split('/').next()?;
        Some(Candidate {
            version: version.to_owned(),
            suite: suite.to_owned(),
        })
    };
    text.lines().filter_map(candidate).collect()
}

/// The first package named in the `Depends` field of `apt-cache show`.
pub(crate) fn parse_depends(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    let name = value.split([',', '|', ' ', '(']).next()?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn unpack_all(debs: &Path, target: &Path) -> Result<(), SetupError> {
    let entries = fs::read_dir(debs).map_err(|source| SetupError::file(debs, source))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|name| name == "deb") {
            output_of(Command::new("dpkg-deb").arg("-x").arg(&path).arg(target))?;
        }
    }
    crate::cache::remove_tree(debs)
}

fn codename(os_release: &Path) -> Result<String, SetupError> {
    let text = fs::read_to_string(os_release).map_err(|source| SetupError::file(os_release, source))?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    value
        .map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| SetupError::Content {
            subject: os_release.display().to_string(),
            problem: "names no VERSION_CODENAME".into(),
            remedy: "the testbed fetches its kernel and emulator by apt and needs a Debian or a derivative"
                .into(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_their_suites() {
        let text = "qemu-system-x86 | 1:10.0.2+ds-2~bpo12+1 | http://m.example/debian bookworm-backports/main amd64 Packages\n\
                    qemu-system-x86 | 1:7.2+dfsg-7 | http://m.example/debian bookworm/main amd64 Packages\nnoise\n";
        let found = parse_madison(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].suite, "bookworm-backports");
        assert_eq!(found[1].version, "1:7.2+dfsg-7");
    }

    #[test]
    fn the_real_kernel_package_is_found_behind_the_meta_package() {
        let text = "Package: linux-image-amd64\nDepends: linux-image-6.1.0-9-amd64 (= 6.1.27-1), x\n";
        assert_eq!(parse_depends(text).as_deref(), Some("linux-image-6.1.0-9-amd64"));
        assert_eq!(parse_depends("Package: x\n"), None);
    }

    #[test]
    fn a_system_without_a_codename_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("os-release");
        fs::write(&path, "ID=arch\n").unwrap();
        assert!(
            codename(&path)
                .unwrap_err()
                .to_string()
                .contains("VERSION_CODENAME")
        );
        fs::write(&path, "VERSION_CODENAME=\"bookworm\"\n").unwrap();
        assert_eq!(codename(&path).unwrap(), "bookworm");
    }
}
