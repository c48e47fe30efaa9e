//! Tests that run in the emulated server. Binaries share a boot as long as they want
//! the same machine and pass; a fault of the emulator costs a new boot and a rerun.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::disk::{Recipe, ServerDisk};
use crate::l1::{Job, L1, Stream};
use crate::setup::{Needs, install_missing};
use crate::suite::Suite;
use crate::suite::build::{Binary, Built};
use crate::suite::libtest::Counter;
use crate::suite::table::{Row, Table};
use crate::{Device, Disk, L1Error, Machine, Place, Progress, Testbed};

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
    let mut session = Session {
        suite,
        testbed,
        variables,
        disk,
        progress,
        running: None,
    };
    let mut binaries: Vec<&Binary> = built.binaries.iter().collect();
    binaries.sort_by_key(|binary| wish(&binary.name));
    for binary in binaries {
        table.add(session.run(binary));
    }
}

/// What a binary's name says about the machine it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    wide_iommu: bool,
    igb: bool,
    disk: bool,
}

struct Session<'a> {
    suite: &'a Suite,
    testbed: &'a Testbed,
    variables: Vec<(&'static str, String)>,
    disk: Option<PathBuf>,
    progress: Progress,
    running: Option<(Wish, L1)>,
}

impl Session<'_> {
    /// Runs `binary`, again if the emulator was at fault, at most three times.
    fn run(&mut self, binary: &Binary) -> Row {
        let wish = wish(&binary.name);
        let mut row = Row::new(binary.tier, &binary.name, &title(wish));
        println!("\n== tier {}: {} in {}", binary.tier, binary.name, title(wish));
        loop {
            let mut counter = Counter::default();
            let error = match self.attempt(binary, wish, &mut counter) {
                Ok(status) => {
                    let tally = counter.finish(status == 0);
                    if tally.failed > 0 {
                        self.running = None;
                    }
                    return row.finish(tally, (status != 0).then(|| format!("exit status {status}")));
                }
                Err(error) => error,
            };
            self.running = None;
            self.progress.say(format!("{}: {error}", binary.name));
            match error.fault() {
                Some(fault) if row.reruns.len() < MOST_RERUNS => {
                    self.progress
                        .say(format!("running {} again: {fault}", binary.name));
                    row.reruns.push(fault);
                }
                fault => {
                    let kind = if fault.is_some() {
                        "the emulator failed three times"
                    } else {
                        "see above"
                    };
                    return row.finish(counter.finish(false), Some(kind.to_owned()));
                }
            }
        }
    }

    fn attempt(&mut self, binary: &Binary, wish: Wish, counter: &mut Counter) -> Result<i32, L1Error> {
        let l1 = self.server(wish)?;
        let words = std::iter::once(binary.path.to_string_lossy().into_owned()).chain(self.suite.words());
        let folder = binary.folder.to_string_lossy();
        let mut job = Job::new(words).folder(&binary.folder).guard(self.suite.guard);
        job = job
            .variable("CARGO_MANIFEST_DIR", folder)
            .variable("RUST_BACKTRACE", "1");
        for (name, value) in &self.variables {
            job = job.variable(*name, value);
        }
        let (_, l1) = self.running.insert((wish, l1));
        l1.run_with(&job, |stream, bytes| {
            let _reader_is_gone = match stream {
                Stream::Stdout => {
                    counter.take(bytes);
                    let mut out = std::io::stdout();
                    out.write_all(bytes).and_then(|()| out.flush())
                }
                Stream::Stderr => std::io::stderr().write_all(bytes),
            };
        })
    }

    /// The running server if it is the one wanted, else a new one.
    fn server(&mut self, wish: Wish) -> Result<L1, L1Error> {
        if let Some((found, l1)) = self.running.take()
            && found == wish
        {
            return Ok(l1);
        }
        let _step = self.progress.step(format!("booting {}", title(wish)));
        L1::boot(self.testbed, &machine(wish, self.disk.as_deref()))
    }
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
fn wish(name: &str) -> Wish {
    let has = |part: &str| name.split('_').any(|word| word == part);
    Wish {
        wide_iommu: has("48"),
        igb: has("igb"),
        disk: has("disk"),
    }
}

fn machine(wish: Wish, disk: Option<&Path>) -> Machine {
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

fn title(wish: Wish) -> String {
    let width = if wish.wide_iommu { 48 } else { 39 };
    let igb = if wish.igb { " with igb" } else { "" };
    let disk = if wish.disk { " with the server disk" } else { "" };
    format!("the emulated server{igb}{disk}, IOMMU {width} bits")
}

const MOST_RERUNS: usize = 2;

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
