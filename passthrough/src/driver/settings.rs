//! What a function loses when it changes drivers and gets back with its own: power settings, virtual functions, and the CPUs of
//! its interrupts.
//!
//! What belongs to the driver's own interfaces is not here: names and addresses of networks, queue settings, file systems.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use pellucid_partition::step;
use serde::{Deserialize, Serialize};

use super::{DriverSeat, write_once};
use crate::error::TakeError;

/// Settings as they were before the first change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Attributes of the function that had a value, by name.
    attributes: BTreeMap<String, String>,
    /// Its virtual functions: a driver that goes takes them with it.
    virtual_functions: Option<u16>,
    /// The CPUs of its message-signalled interrupts, in the order of their numbers; None: not requested by the driver.
    affinities: Vec<Option<String>>,
}

impl Settings {
    /// As they are now.
    pub(crate) fn of(seat: &DriverSeat) -> Settings {
        let value = |name: &&str| Some(((*name).to_owned(), text(&seat.path(name))?));
        Settings {
            attributes: ATTRIBUTES.iter().filter_map(value).collect(),
            virtual_functions: number_of_vfs(seat).filter(|number| *number > 0),
            affinities: interrupts(seat).iter().map(|path| text(path)).collect(),
        }
    }

    /// Puts back what has changed. The function is on its driver; what cannot be had is done without, and said.
    pub(crate) fn restore(&self, seat: &DriverSeat) -> Result<(), TakeError> {
        let mut outcome = Ok(());
        for name in self.attributes.keys() {
            outcome = outcome.and(self.restore_attribute(seat, name));
        }
        if let Some(number) = self.virtual_functions
            && number_of_vfs(seat) == Some(0)
        {
            let path = seat.path("sriov_numvfs");
            let driver = seat.bound().unwrap_or_default();
            let restored = step("restore the virtual functions", || {
                seat.write_limited(&path, &number.to_string(), &driver)
            });
            outcome = outcome.and(restored);
        }
        self.restore_affinities(seat);
        outcome
    }

    /// The kernel's reset methods alone; the function may be on any driver.
    pub(crate) fn restore_reset_methods(&self, seat: &DriverSeat) -> Result<(), TakeError> {
        self.restore_attribute(seat, RESET_METHODS)
    }

    fn restore_attribute(&self, seat: &DriverSeat, name: &str) -> Result<(), TakeError> {
        let path = seat.path(name);
        match self.attributes.get(name) {
            Some(before) if text(&path).is_some_and(|now| now != *before) => {
                step("restore a setting", || seat.write(path, before))
            }
            _ => Ok(()),
        }
    }

    /// The kernel places interrupts that it manages itself (most of an NVMe controller's) and refuses others' wishes for them.
    fn restore_affinities(&self, seat: &DriverSeat) {
        let requested = self.await_interrupts(seat);
        for (index, (path, before)) in requested.iter().zip(&self.affinities).enumerate() {
            let Some(before) = before
                .as_ref()
                .filter(|before| text(path).as_ref() != Some(*before))
            else {
                continue;
            };
            let restored = step("restore an affinity", || write_once(path, before));
            if let Err(error) = restored {
                let device = seat.device();
                tracing::info!(%device, index, cpus = before, %error, "the CPUs of an interrupt are left to the kernel");
            }
        }
    }

    /// Its interrupts, once as many are requested as were: a controller's driver does so after it is bound. A network card's requests them when
    /// it is brought up, which is not waited for.
    fn await_interrupts(&self, seat: &DriverSeat) -> Vec<PathBuf> {
        let wanted = self.affinities.iter().flatten().count();
        let begun = Instant::now();
        loop {
            let found = interrupts(seat);
            let requested = found.iter().filter(|path| path.exists()).count();
            let is_over = begun.elapsed() >= REQUESTED_WITHIN.min(seat.patience);
            if requested >= wanted || is_over || seat.path("net").exists() {
                return found;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// How many virtual functions it has; None: it can have none.
fn number_of_vfs(seat: &DriverSeat) -> Option<u16> {
    text(&seat.path("sriov_numvfs"))?.parse().ok()
}

/// Where the CPUs of its message-signalled interrupts stand, in the order of their numbers.
fn interrupts(seat: &DriverSeat) -> Vec<PathBuf> {
    let listing = fs::read_dir(seat.path("msi_irqs"))
        .into_iter()
        .flatten()
        .flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_string_lossy().parse::<u32>().ok();
    let mut numbers: Vec<u32> = listing.filter_map(number).collect();
    numbers.sort_unstable();
    let place = |number| seat.root().join(format!("proc/irq/{number}/smp_affinity_list"));
    numbers.into_iter().map(place).collect()
}

fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Controllers take up to a second to come up.
const REQUESTED_WITHIN: Duration = Duration::from_secs(5);
/// vfio-pci lets a function sleep and forbids it again, whatever was allowed before; the ladder may order the kernel's reset methods.
const ATTRIBUTES: [&str; 3] = ["power/control", "d3cold_allowed", RESET_METHODS];
/// In the order in which the kernel tries them (Documentation/ABI/testing/sysfs-bus-pci).
pub(super) const RESET_METHODS: &str = "reset_method";
