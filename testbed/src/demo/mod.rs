//! The demo: one disk, booted by the physical server's firmware, then as a logical server, then by the firmware
//! again; the same questions each time, and proof of what the boots wrote on the disk.

mod error;
mod logical;
mod phases;
mod questions;
mod report;
mod table;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::console::Shown;
use crate::disk::{Fingerprint, Layout, Recipe, ServerDisk, digest};
use crate::setup::{Needs, install_missing};
use crate::{Progress, Testbed};

pub use error::DemoError;
use phases::{NIC, NVME};
pub use questions::Findings;
pub use report::Report;

/// Everything a demo needs, made ready.
#[derive(Debug)]
pub struct Demo {
    testbed: Testbed,
    vmm: PathBuf,
    recipe: Recipe,
    /// The disk between two boots. Each boot has a copy, which takes its place if the boot goes well.
    image: PathBuf,
    show: bool,
    progress: Progress,
    report: Report,
}

impl Demo {
    /// Installs what is missing, builds the disk and the reference VMM if they are not there yet.
    ///
    /// # Errors
    /// One of them cannot be had.
    pub fn ready(show: bool, progress: Progress) -> Result<Demo, DemoError> {
        let began = Instant::now();
        install_missing(Needs::Disk, progress)?;
        let testbed = Testbed::ready(progress)?;
        let vmm = crate::product::vmm(progress)?;
        let recipe = Recipe::debian12();
        let step = progress.step("building the demo disk, a Debian 12 server (once)");
        let disk = ServerDisk::open(&recipe, testbed.cache.root(), &|now| {
            step.now(format!("demo disk: {now}"))
        })?;
        drop(step);
        forget_killed_runs(testbed.cache.root());
        let folder = testbed
            .cache
            .root()
            .join(format!("{FOLDER}{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|source| crate::SetupError::File {
            path: folder.clone(),
            source,
        })?;
        let image = folder.join("disk.img");
        disk.copy_to(&image)?;
        let mut report = Report::default();
        report.took("getting ready", began.elapsed());
        Ok(Demo {
            testbed,
            vmm,
            recipe,
            image,
            show,
            progress,
            report,
        })
    }

    /// Boots the disk on the physical server, as a logical server, on the physical server, and once more as a
    /// logical server with its root read-only.
    ///
    /// # Errors
    /// A boot failed. A difference between the boots is no error here but in the report.
    pub fn run(mut self) -> Result<Report, DemoError> {
        let layout = self.recipe.layout.clone();
        self.report
            .fingerprints
            .push(Fingerprint::survey(&self.image, &layout)?);
        self.boot("physical server", |demo, disk| demo.physical(disk, None), &layout)?;
        self.boot(
            "logical server",
            |demo, disk| demo.logical(disk, &[NVME, NIC]),
            &layout,
        )?;
        self.boot(
            "physical server again",
            |demo, disk| demo.physical(disk, Some(ROOT_READ_ONLY)),
            &layout,
        )?;
        let whole = 0..layout.total;
        let whole = std::slice::from_ref(&whole);
        let before = digest(&self.image, whole)?;
        let proof = self.attempt("logical server, root read-only", |demo, disk| {
            demo.logical(disk, &[NVME])
        })?;
        let after = digest(&self.image, whole)?;
        self.report.proof = Some((proof.findings.root_mode, before, after));
        Ok(std::mem::take(&mut self.report))
    }

    /// Boots once and adds what was found to the report.
    fn boot(
        &mut self,
        title: &'static str,
        phase: impl FnMut(&Demo, &Path) -> Result<phases::Boot, DemoError>,
        layout: &Layout,
    ) -> Result<(), DemoError> {
        let boot = self.attempt(title, phase)?;
        self.report.boots.push(boot.findings);
        self.report.exits.extend(boot.exits);
        self.report
            .fingerprints
            .push(Fingerprint::survey(&self.image, layout)?);
        Ok(())
    }

    /// Runs a phase on a copy of the disk, which then takes the disk's place. A phase that the emulator spoiled is
    /// run again, from the same disk, twice at most; one that failed for any other reason is not.
    fn attempt<T>(
        &mut self,
        title: &'static str,
        mut phase: impl FnMut(&Demo, &Path) -> Result<T, DemoError>,
    ) -> Result<T, DemoError> {
        let began = Instant::now();
        let trial = self.image.with_extension("trial");
        let mut reruns_left = RERUNS;
        loop {
            crate::disk::copy_sparse(&self.image, &trial)?;
            let step = self.progress.step(title);
            let result = phase(self, &trial);
            drop(step);
            match result {
                Ok(value) => {
                    std::fs::rename(&trial, &self.image)
                        .map_err(|source| crate::SetupError::File { path: trial, source })?;
                    self.report.took(title, began.elapsed());
                    return Ok(value);
                }
                Err(error) => match error.fault() {
                    Some(fault) if reruns_left > 0 => {
                        reruns_left -= 1;
                        self.progress.say(format!("{title}: {fault}; running it again"));
                        self.report.reruns += 1;
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    /// Where a console is shown to, if it is.
    fn copies(&self, name: &'static str) -> Vec<Box<dyn std::io::Write + Send>> {
        if self.show {
            vec![Box::new(Shown::new(name, std::io::stdout()))]
        } else {
            Vec::new()
        }
    }
}

impl Drop for Demo {
    /// The disk was a copy.
    fn drop(&mut self) {
        if let Some(folder) = self.image.parent() {
            // Left behind, it is removed by `cargo testbed clean`.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Removes the disks of runs whose process is gone: nobody will.
fn forget_killed_runs(cache: &Path) {
    let Ok(entries) = std::fs::read_dir(cache) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix(FOLDER))
            .and_then(|id| id.parse::<u32>().ok());
        if process.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            // If it cannot be removed it is in nobody's way.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// What the folder of a run is called, with the number of its process behind.
const FOLDER: &str = "demo.";

/// How often a phase that the emulator spoiled is run again.
const RERUNS: u32 = 2;

/// What an administrator types who wants the root read-only from the next boot on.
const ROOT_READ_ONLY: &str = "sed -i '/ ext4 /s/errors=remount-ro/ro,errors=remount-ro/' /etc/fstab";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_runs_that_are_gone_are_removed() {
        let cache = tempfile::tempdir().expect("cache");
        // No process has the largest number.
        let gone = cache.path().join("demo.4294967295");
        let kept = [
            format!("demo.{}", std::process::id()),
            "demo.notes".into(),
            "disk-0123".into(),
        ];
        std::fs::create_dir(&gone).expect("gone");
        for name in &kept {
            std::fs::create_dir(cache.path().join(name)).expect("kept");
        }
        forget_killed_runs(cache.path());
        assert!(!gone.exists());
        assert!(kept.iter().all(|name| cache.path().join(name).exists()));
    }
}
