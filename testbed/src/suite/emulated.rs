//! Which tests run in which emulated server: a binary's name says what it wants.

use std::path::{Path, PathBuf};

use crate::disk::{Recipe, ServerDisk};
use crate::setup::{Needs, install_missing};
use crate::suite::Suite;
use crate::suite::build::{Binary, Built};
use crate::suite::session::Session;
use crate::suite::table::Table;
use crate::{Device, Disk, Machine, Place, Progress, Testbed};

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
    binaries.sort_by_key(|binary| wish(&binary.name));
    for binary in binaries {
        table.add(session.run(binary));
    }
}

/// What a binary's name says about the machine it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wish {
    wide_iommu: bool,
    igb: bool,
    disk: bool,
}

/// The server disk, if a binary wants it; built if it is not cached.
fn server_disk(
    testbed: &Testbed,
    built: &Built,
    progress: Progress,
) -> Result<Option<PathBuf>, Box<dyn std::error::Error>> {
    if !built.binaries.iter().any(|binary| wish(&binary.name).disk) {
        return Ok(None);
    }
    install_missing(Needs::Disk, progress)?;
    let step = progress.step("building the server disk");
    let disk = ServerDisk::open(&Recipe::debian12(), testbed.cache.root(), &|now| step.now(now))?;
    Ok(Some(disk.image))
}

/// `tier2_map_48` wants an IOMMU of 48 bits, `tier2_vf_igb` a network card with SR-IOV,
/// `tier2_boot_disk` the server disk in the first NVMe controller.
pub(crate) fn wish(name: &str) -> Wish {
    let has = |part: &str| name.split('_').any(|word| word == part);
    Wish {
        wide_iommu: has("48"),
        igb: has("igb"),
        disk: has("disk"),
    }
}

/// The machine for a wish.
pub(crate) fn machine(wish: Wish, disk: Option<&Path>) -> Machine {
    let mut machine = Machine::standard();
    if wish.wide_iommu {
        machine = machine.iommu_width(48);
    }
    if wish.igb {
        machine = machine.device(Device::Igb {
            place: Place::port(4),
        });
    }
    if let Some(disk) = disk.filter(|_| wish.disk) {
        machine = machine.disk("PELLUCID-BOOT", Disk::Discarded(disk.to_owned()));
    }
    machine
}

/// What that machine is called in the table.
pub(crate) fn title(wish: Wish) -> String {
    let width = if wish.wide_iommu { 48 } else { 39 };
    let igb = if wish.igb { " with igb" } else { "" };
    let disk = if wish.disk { " with the server disk" } else { "" };
    format!("the emulated server{igb}{disk}, IOMMU {width} bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_machine_it_wants() {
        let plain = Wish {
            wide_iommu: false,
            igb: false,
            disk: false,
        };
        assert_eq!(wish("tier2_assign"), plain);
        assert_eq!(machine(wish("tier2_map_48"), None).iommu_width, 48);
        assert_eq!(
            machine(wish("tier2_v48x"), None).iommu_width,
            39,
            "only a word of its own counts"
        );
        let devices = Machine::standard().devices.len();
        assert_eq!(machine(wish("tier2_igb"), None).devices.len(), devices + 1);
        assert!(title(wish("tier1_x_48_igb")).contains("igb, IOMMU 48"));
    }

    #[test]
    fn only_a_binary_that_wants_the_server_disk_gets_it() {
        let disk = Some(Path::new("/cache/disk"));
        assert_eq!(machine(wish("tier2_boot"), disk), Machine::standard());
        let given = machine(wish("tier2_boot_disk"), disk);
        assert_eq!(
            given,
            Machine::standard().disk("PELLUCID-BOOT", Disk::Discarded("/cache/disk".into()))
        );
        assert_ne!(given, Machine::standard());
    }
}
