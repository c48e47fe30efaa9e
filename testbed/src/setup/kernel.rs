//! The physical server's kernel: the distribution's own, unpacked from its package
//! into the cache and never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::Cache;
use crate::setup::apt::Apt;
use crate::setup::modules::Modules;
use crate::setup::program::{find, output_of};
use crate::{Progress, SetupError};

/// A kernel and its modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release, as `uname -r` says it.
    pub release: String,
    /// The bzImage.
    pub image: PathBuf,
    /// The folder `lib/modules/RELEASE`.
    pub modules: PathBuf,
}

impl Kernel {
    /// The kernel in the cache, downloaded and unpacked if it is not there.
    ///
    /// # Errors
    /// The package cannot be fetched or is not built as expected.
    pub fn ready(cache: &Cache, progress: Progress) -> Result<Self, SetupError> {
        let recipe = format!(
            "recipe 1, {}",
            fs::read_to_string("/etc/os-release").unwrap_or_default()
        );
        let entry = cache.entry(
            "kernel",
            recipe.as_bytes(),
            &["vmlinuz", "modules.dep"],
            |fresh| {
                let _step = progress.step("fetching the Linux kernel of this distribution (about 70 MB)");
                let apt = Apt::ready(cache)?;
                let package = apt.first_dependency(META)?.ok_or_else(|| SetupError::Content {
                    subject: META.into(),
                    problem: "depends on no kernel".into(),
                    remedy: "do the apt sources have the component main?".into(),
                })?;
                apt.unpack(&package, fresh)?;
                settle(fresh)
            },
        )?;
        Self::in_folder(&entry)
    }

    /// The files of `names` and what they need, in load order, as absolute paths.
    pub(crate) fn load_order(&self, names: &[&str]) -> Result<Vec<PathBuf>, SetupError> {
        let read = |file: &str| {
            let path = self.modules.join(file);
            fs::read_to_string(&path).map_err(|source| SetupError::file(path, source))
        };
        let modules = Modules::parse(&read("modules.dep")?, &read("modules.builtin")?);
        let order = modules.load_order(names).map_err(|name| SetupError::Content {
            subject: format!("the kernel {}", self.release),
            problem: format!("has no module {name}"),
            remedy: "it needs a Debian kernel that is not of the cloud flavour".into(),
        })?;
        Ok(order.into_iter().map(|file| self.modules.join(file)).collect())
    }

    fn in_folder(folder: &Path) -> Result<Self, SetupError> {
        let modules = folder.join("lib/modules");
        let release = only_entry(&modules)?;
        Ok(Self {
            image: folder.join("vmlinuz"),
            modules: modules.join(&release),
            release,
        })
    }
}

/// The bytes of a module, uncompressed.
pub(crate) fn module_bytes(path: &Path) -> Result<Vec<u8>, SetupError> {
    if path.extension().is_none_or(|name| name != "xz") {
        return fs::read(path).map_err(|source| SetupError::file(path, source));
    }
    let output = Command::new("xz").arg("-dc").arg(path).output();
    let output = output.map_err(|source| SetupError::Start {
        program: "xz".into(),
        source,
    })?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(SetupError::Corrupt {
            path: path.to_owned(),
        })
    }
}

/// Gives the unpacked package fixed names and the module index it comes without.
fn settle(folder: &Path) -> Result<(), SetupError> {
    let nested = folder.join("usr/lib/modules");
    if nested.is_dir() && !folder.join("lib").exists() {
        fs::rename(folder.join("usr/lib"), folder.join("lib"))
            .map_err(|source| SetupError::file(&nested, source))?;
    }
    let release = only_entry(&folder.join("lib/modules"))?;
    let depmod = find("depmod").unwrap_or_else(|| PathBuf::from("depmod"));
    output_of(Command::new(depmod).arg("-b").arg(folder).arg(&release))?;
    for (from, to) in [
        (format!("boot/vmlinuz-{release}"), "vmlinuz"),
        (format!("boot/config-{release}"), "config"),
        (format!("lib/modules/{release}/modules.dep"), "modules.dep"),
    ] {
        fs::copy(folder.join(&from), folder.join(to))
            .map_err(|source| SetupError::file(folder.join(from), source))?;
    }
    Ok(())
}

fn only_entry(folder: &Path) -> Result<String, SetupError> {
    let entries = fs::read_dir(folder).map_err(|source| SetupError::file(folder, source))?;
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    match names.as_slice() {
        [name] => Ok(name.to_string_lossy().into_owned()),
        _ => Err(SetupError::Content {
            subject: folder.display().to_string(),
            problem: format!("has {} entries where one kernel was expected", names.len()),
            remedy: "run `cargo testbed clean` and try again".into(),
        }),
    }
}

const META: &str = "linux-image-amd64";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_two_kernels_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("6.1")).unwrap();
        assert_eq!(only_entry(folder.path()).unwrap(), "6.1");
        fs::create_dir(folder.path().join("6.2")).unwrap();
        let refusal = only_entry(folder.path()).unwrap_err().to_string();
        assert!(refusal.contains("2 entries"), "{refusal}");
    }

    #[test]
    fn an_uncompressed_module_is_read_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.ko");
        fs::write(&path, b"ELF").unwrap();
        assert_eq!(module_bytes(&path).unwrap(), b"ELF");
        assert!(module_bytes(&folder.path().join("y.ko.xz")).is_err());
    }
}
