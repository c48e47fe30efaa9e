//! Builds a server disk from its recipe: bootstrap, boot loader, image; and keeps it by the recipe's digest.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::error::{DiskError, Subject};
use super::layout::Layout;
use super::proof::Fingerprint;
use super::recipe::Recipe;
use super::tool::{Tool, copy_sparse};
use super::{image, sources};

/// A finished disk in the cache. Never booted itself: every use works on a [copy](ServerDisk::copy_to).
#[derive(Debug, Clone)]
pub struct ServerDisk {
    /// The image, raw and sparse.
    pub image: PathBuf,
    /// Where its partitions lie.
    pub layout: Layout,
    /// Its digests, as recorded when it was built.
    pub fingerprint: Fingerprint,
}

impl ServerDisk {
    /// The disk that `recipe` describes: from the directory `cache` if it is there, else built now.
    /// `progress` hears what is being done, in a few words at a time.
    pub fn open(recipe: &Recipe, cache: &Path, progress: &dyn Fn(&str)) -> Result<ServerDisk, DiskError> {
        fs::create_dir_all(cache).of(cache)?;
        let home = cache.join(format!("disk-{}", &recipe.digest()[..16]));
        let lock = cache.join("disk.lock");
        // Held until the end of this function: two builders of one disk wait for each other.
        let held = File::create(&lock).of(&lock)?;
        flock(&held, FlockOperation::LockExclusive)
            .map_err(std::io::Error::from)
            .of(&lock)?;
        if !home.exists() {
            let scratch = cache.join("disk-unfinished");
            remove_tree(&scratch)?;
            fs::create_dir(&scratch).of(&scratch)?;
            let built = build(recipe, &scratch, progress);
            if let Err(error) = built {
                remove_tree(&scratch)?;
                return Err(error);
            }
            fs::rename(&scratch, &home).of(&home)?;
        }
        let recorded = home.join(RECORD);
        let text = fs::read_to_string(&recorded).of(&recorded)?;
        let mut lines = text.lines().map(str::to_owned);
        let mut next = || {
            lines.next().ok_or(DiskError::Incomplete {
                part: recorded.display().to_string(),
            })
        };
        let fingerprint = Fingerprint {
            root: next()?,
            outside_root: next()?,
        };
        Ok(ServerDisk {
            image: home.join(IMAGE),
            layout: recipe.layout.clone(),
            fingerprint,
        })
    }

    /// Copies the image to a file that may be booted and written.
    pub fn copy_to(&self, path: &Path) -> Result<(), DiskError> {
        copy_sparse(&self.image, path)
    }
}

/// Builds image and record in `dir`, and leaves nothing else there.
fn build(recipe: &Recipe, dir: &Path, progress: &dyn Fn(&str)) -> Result<(), DiskError> {
    let (tar, tree) = (dir.join("root.tar"), dir.join("tree"));
    progress("asking apt for the package sources");
    bootstrap(recipe, dir, &tar, progress)?;

    progress("unpacking the system");
    fs::create_dir(&tree).of(&tree)?;
    Tool::as_root("tar", "tar")
        .args([
            "--extract",
            "--same-permissions",
            "--numeric-owner",
            "--exclude=./dev/*",
            "--directory",
        ])
        .args([&tree, Path::new("--file"), &tar])
        .run_quietly()?;
    fs::remove_file(&tar).of(&tar)?;

    let disk = dir.join(IMAGE);
    image::blank(&disk, recipe.layout.total)?;
    image::write_table(&disk, &recipe.layout, &recipe.identity)?;
    progress("writing the EFI system partition");
    let esp = tree.join("boot/efi");
    image::write_esp(&disk, &recipe.layout, &recipe.identity.esp_id, &esp)?;
    // The partition is mounted there; underneath it is an empty directory.
    Tool::as_root("find", "findutils")
        .args([&esp])
        .args(["-mindepth", "1", "-delete"])
        .run_quietly()?;
    progress("writing the root file system");
    image::write_root(&disk, &recipe.layout, &recipe.identity, &tree)?;
    remove_tree(&tree)?;

    progress("recording the digests");
    let print = Fingerprint::survey(&disk, &recipe.layout)?;
    let record = dir.join(RECORD);
    fs::write(&record, format!("{}\n{}\n", print.root, print.outside_root)).of(record)
}

/// Installs the recipe's packages into the archive `tar` and runs the installer's script on them.
fn bootstrap(recipe: &Recipe, dir: &Path, tar: &Path, progress: &dyn Fn(&str)) -> Result<(), DiskError> {
    let list = dir.join("sources.list");
    fs::write(&list, sources::survey(&recipe.suite)?).of(&list)?;
    Tool::new("mmdebstrap", "mmdebstrap")
        // mmdebstrap's own clean-up would take the machine's identity away; the installer's script does the rest.
        .args(["--variant=minbase", "--format=tar", "--skip=cleanup/reproducible"])
        .args([format!("--include={}", recipe.packages.join(","))])
        .args(APT_OPTIONS)
        // Text and not a file: as root of a user namespace it may not be allowed to read this folder.
        .args([format!("--customize-hook={}", recipe.installer())])
        .args([&recipe.suite])
        .args([tar, &list])
        .env("SOURCE_DATE_EPOCH", recipe.epoch.to_string())
        .run(&|line| {
            if let Some(step) = line.strip_prefix("I: ") {
                progress(step);
            }
        })?;
    fs::remove_file(&list).of(list)
}

/// Removes a directory whose files may belong to other users of a user namespace.
fn remove_tree(path: &Path) -> Result<(), DiskError> {
    Tool::as_root("rm", "coreutils")
        .args(["-rf", "--"])
        .args([path])
        .run_quietly()
        .map(drop)
}

/// No translations, no manual pages: a server's disk is kept small.
const APT_OPTIONS: [&str; 6] = [
    "--aptopt=APT::Install-Recommends \"false\"",
    "--aptopt=Acquire::Languages \"none\"",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
];

const IMAGE: &str = "disk.img";
const RECORD: &str = "digests";
