//! All tests that run in emulated servers, those that want the same machine one after another.

use std::path::PathBuf;

use crate::disk::{Recipe, ServerDisk};
use crate::setup::{Needs, install_missing};
use crate::suite::Suite;
use crate::suite::build::{Binary, Built};
use crate::suite::session::Session;
use crate::suite::table::Table;
use crate::suite::words::Wish;
use crate::{Progress, Testbed};

/// Runs all of `built` in emulated servers.
pub(crate) fn run_all(
    suite: &Suite,
    testbed: &Testbed,
    built: &Built,
    table: &mut Table,
    progress: Progress,
) {
    let mut variables = match testbed.variables() {
        Ok(variables) => variables,
        Err(error) => return table.refuse("tiers 1 and 2 did not run", &error.to_string(), suite.strict),
    };
    if let Some(vmm) = &built.vmm {
        variables.push(("PELLUCID_VMM", vmm.to_string_lossy().into_owned()));
    }
    let disk = match server_disk(testbed, built, progress) {
        Ok(disk) => disk,
        Err(error) => {
            table.refuse("the server disk was not built", &error.to_string(), suite.strict);
            None
        }
    };
    if let Some(disk) = &disk {
        variables.push(("PELLUCID_DISK", disk.to_string_lossy().into_owned()));
    }
    let mut session = Session::new(suite, testbed, progress).variables(variables);
    if let Some(disk) = disk {
        session = session.disk(disk);
    }
    let mut binaries: Vec<&Binary> = built.binaries.iter().collect();
    binaries.sort_by_key(|binary| Wish::of(&binary.name));
    for binary in binaries {
        table.add(session.run(binary));
    }
}

/// The server disk, if a binary wants it; built if it is not cached.
fn server_disk(
    testbed: &Testbed,
    built: &Built,
    progress: Progress,
) -> Result<Option<PathBuf>, Box<dyn std::error::Error>> {
    if !built
        .binaries
        .iter()
        .any(|binary| Wish::of(&binary.name).wants_disk())
    {
        return Ok(None);
    }
    install_missing(Needs::Disk, progress)?;
    let step = progress.step("building the server disk");
    let disk = ServerDisk::open(&Recipe::debian12(), testbed.cache.root(), &|now| step.now(now))?;
    Ok(Some(disk.image))
}
