//! The cache of what is built or downloaded once: kernels, emulators, initramfs.
//! An entry is named by the digest of its recipe and appears by one rename; the
//! digests of its files are recorded beside it and checked when it is used.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::SetupError;

/// The folder that holds everything the testbed builds once.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// Held while entries are made: one process at a time.
#[derive(Debug)]
pub struct CacheLock {
    _file: File,
}

impl Cache {
    /// `$XDG_CACHE_HOME/pellucid`, else `~/.cache/pellucid`, else `target/pellucid`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open() -> Result<Self, SetupError> {
        Self::open_at(default_root(|name| std::env::var_os(name).map(PathBuf::from)))
    }

    /// The cache in the folder `root`, which is made if need be.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open_at(root: impl Into<PathBuf>) -> Result<Self, SetupError> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(|source| SetupError::file(&root, source))?;
        let root = root
            .canonicalize()
            .map_err(|source| SetupError::file(&root, source))?;
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Waits until no other process makes entries, and keeps others out.
    ///
    /// # Errors
    /// The lock file cannot be made or locked.
    pub fn lock(&self) -> Result<CacheLock, SetupError> {
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(|source| SetupError::file(&path, source))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|errno| SetupError::file(&path, errno.into()))?;
        Ok(CacheLock { _file: file })
    }

    /// The entry `name` made by `recipe`: what is cached, or what `build` puts
    /// into the empty folder it is given. `checked` are the files, relative to the
    /// entry, whose digests are recorded now and compared at each use.
    ///
    /// # Errors
    /// What `build` returns, a file that cannot be written, a digest that changed.
    pub fn entry(
        &self,
        name: &str,
        recipe: &[u8],
        checked: &[&str],
        build: impl FnOnce(&Path) -> Result<(), SetupError>,
    ) -> Result<PathBuf, SetupError> {
        let entry = self.root.join(format!("{name}-{}", &hex_digest(recipe)[..12]));
        let record = entry.join("SHA256SUMS");
        if record.exists() {
            verify(&entry, &record)?;
            return Ok(entry);
        }
        let fresh = self.root.join(format!(".{name}.{}", std::process::id()));
        remove_tree(&fresh)?;
        remove_tree(&entry)?;
        fs::create_dir_all(&fresh).map_err(|source| SetupError::file(&fresh, source))?;
        build(&fresh)?;
        let mut sums = String::new();
        for file in checked {
            sums.push_str(&format!("{}  {file}\n", file_digest(&fresh.join(file))?));
        }
        let fresh_record = fresh.join("SHA256SUMS");
        fs::write(&fresh_record, sums).map_err(|source| SetupError::file(fresh_record, source))?;
        fs::rename(&fresh, &entry).map_err(|source| SetupError::file(&entry, source))?;
        Ok(entry)
    }

    /// Removes the whole cache and returns how many bytes it held.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn clear(&self) -> Result<u64, SetupError> {
        let bytes = tree_bytes(&self.root);
        remove_tree(&self.root)?;
        Ok(bytes)
    }
}

/// The SHA-256 of `bytes` in lower-case hexadecimal.
pub fn hex_digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of the file at `path` in lower-case hexadecimal.
///
/// # Errors
/// The file cannot be read.
pub fn file_digest(path: &Path) -> Result<String, SetupError> {
    let failed = |source: io::Error| SetupError::file(path, source);
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0_u8; 1 << 20];
    loop {
        let length = file.read(&mut chunk).map_err(failed)?;
        if length == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(&chunk[..length]);
    }
}

pub(crate) fn remove_tree(path: &Path) -> Result<(), SetupError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SetupError::file(path, source)),
        _ => Ok(()),
    }
}

fn default_root(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let absolute = |path: &PathBuf| path.is_absolute();
    if let Some(cache) = variable("XDG_CACHE_HOME").filter(absolute) {
        return cache.join("pellucid");
    }
    match variable("HOME").filter(absolute) {
        Some(home) => home.join(".cache/pellucid"),
        None => PathBuf::from("target/pellucid"),
    }
}

fn verify(entry: &Path, record: &Path) -> Result<(), SetupError> {
    let sums = fs::read_to_string(record).map_err(|source| SetupError::file(record, source))?;
    for (digest, file) in sums.lines().filter_map(|line| line.split_once("  ")) {
        let path = entry.join(file);
        if file_digest(&path)? != digest {
            return Err(SetupError::Corrupt { path });
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tree_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => tree_bytes(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_built_once_per_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path()).unwrap();
        let build = |text: &'static str| {
            move |fresh: &Path| {
                fs::write(fresh.join("f"), text).unwrap();
                Ok(())
            }
        };
        let first = cache.entry("thing", b"recipe", &["f"], build("one")).unwrap();
        let again = cache.entry("thing", b"recipe", &["f"], build("two")).unwrap();
        let other = cache
            .entry("thing", b"other recipe", &["f"], build("three"))
            .unwrap();
        assert_eq!(fs::read_to_string(again.join("f")).unwrap(), "one");
        assert_eq!(first, again);
        assert_eq!(fs::read_to_string(other.join("f")).unwrap(), "three");
    }

    #[test]
    fn a_changed_cached_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path()).unwrap();
        let build = |fresh: &Path| {
            fs::write(fresh.join("f"), "one").unwrap();
            Ok(())
        };
        let entry = cache.entry("thing", b"recipe", &["f"], build).unwrap();
        fs::write(entry.join("f"), "two").unwrap();
        let refusal = cache
            .entry("thing", b"recipe", &["f"], build)
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains("digest changed") && refusal.contains("/f"),
            "{refusal}"
        );
    }

    #[test]
    fn a_failed_build_leaves_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(folder.path()).unwrap();
        let fail = |_: &Path| {
            Err(SetupError::Corrupt {
                path: PathBuf::from("x"),
            })
        };
        assert!(cache.entry("thing", b"r", &[], fail).is_err());
        let entry = cache.entry("thing", b"r", &[], |_| Ok(())).unwrap();
        assert!(entry.join("SHA256SUMS").exists());
    }

    #[test]
    fn the_cache_follows_the_xdg_variable_then_home_then_target() {
        let root = |xdg: Option<&str>, home: Option<&str>| {
            default_root(|name| match name {
                "XDG_CACHE_HOME" => xdg.map(PathBuf::from),
                _ => home.map(PathBuf::from),
            })
        };
        assert_eq!(root(Some("/c"), Some("/h")), Path::new("/c/pellucid"));
        assert_eq!(
            root(Some("relative"), Some("/h")),
            Path::new("/h/.cache/pellucid")
        );
        assert_eq!(root(None, None), Path::new("target/pellucid"));
    }
}
