//! Moving a function between host drivers through sysfs. Every step can be repeated; none waits without a limit.

mod resettable;
mod settings;
mod vf_link;
mod way;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pellucid_partition::{Bdf, step};

use crate::error::TakeError;
use crate::inventory::DriverState;
use crate::sys::Errand;

pub(crate) use settings::Settings;
pub(crate) use vf_link::VfBefore;
pub(crate) use way::Way;

/// A function's directory in sysfs.
#[derive(Debug)]
pub(crate) struct DriverSeat {
    root: PathBuf,
    device: Bdf,
    patience: Duration,
    /// The lock of its claim, which a child at work keeps held: nobody heals a function that is being moved.
    lock: Option<OwnedFd>,
    /// A child that hangs in the kernel.
    stuck: Mutex<Option<Errand>>,
}

impl DriverSeat {
    pub(crate) fn new(root: &Path, device: Bdf, patience: Duration) -> DriverSeat {
        DriverSeat {
            root: root.to_owned(),
            device,
            patience,
            lock: None,
            stuck: Mutex::default(),
        }
    }

    /// The same, with the lock of the function's claim.
    pub(crate) fn held_by(self, lock: Option<BorrowedFd<'_>>) -> DriverSeat {
        // Without a copy it works as well; only a death in mid-write is then not waited for.
        let lock = lock.and_then(|lock| lock.try_clone_to_owned().ok());
        DriverSeat { lock, ..self }
    }

    /// Who drives it now.
    pub(crate) fn state(&self) -> Result<DriverState, TakeError> {
        let path = self.path("driver_override");
        let only = fs::read_to_string(&path).map_err(|source| self.sysfs(path, source))?;
        let only = only.trim();
        let only = (!only.is_empty() && only != "(null)").then(|| only.to_owned());
        Ok(DriverState {
            bound: self.bound(),
            only,
        })
    }

    /// Whether the function is there at all.
    pub(crate) fn exists(&self) -> bool {
        self.path("").exists()
    }

    /// Whether it is there and no driver of the host's has it.
    pub(crate) fn is_away(&self) -> bool {
        self.exists() && self.bound().is_none_or(|bound| bound == VFIO)
    }

    /// From whatever driver to vfio-pci.
    pub(crate) fn to_vfio(&self) -> Result<(), TakeError> {
        if self.bound().as_deref() == Some(VFIO) {
            return Ok(());
        }
        step("override the driver", || {
            self.write(self.path("driver_override"), VFIO)
        })?;
        self.unbind()?;
        self.bind(VFIO)
    }

    /// Back to where `way` says it came from. What others have done to it meanwhile is theirs.
    pub(crate) fn restore(&self, way: &Way) -> Result<(), TakeError> {
        if !self.exists() {
            tracing::warn!(device = %self.device, "the function is no longer in this machine; nothing to give back");
            return Ok(());
        }
        let now = self.state()?;
        if now.only != way.original.only && now.only.as_deref() == Some(VFIO) {
            // The kernel drops the override on an empty line.
            let only = way.original.only.as_deref().unwrap_or("\n");
            step("restore the override", || {
                self.write(self.path("driver_override"), only)
            })?;
        }
        // Only while nothing drives it, or what drives it would not know.
        let put_back = || {
            if let Some(before) = &way.vf
                && let Err(error) = self.restore_vf_link(before)
            {
                tracing::warn!(device = %self.device, %error, "a virtual function keeps the address or VLAN that it had in the guest");
            }
        };
        if now.bound != way.original.bound {
            if now.bound.as_deref().is_some_and(|bound| bound != VFIO) {
                tracing::warn!(device = %self.device, driver = ?now.bound, "another driver took the function; left to it");
                return Ok(());
            }
            self.unbind()?;
            put_back();
            if let Some(driver) = &way.original.bound {
                self.bind(driver)?;
            }
        } else {
            put_back();
        }
        way.settings.restore(self)
    }

    /// Waits until the node of group `group` is there.
    pub(crate) fn await_node(&self, group: u32) -> Result<PathBuf, TakeError> {
        let node = self.root.join("dev/vfio").join(group.to_string());
        let end = Instant::now() + NODE_LIMIT;
        while !node.exists() {
            if Instant::now() > end {
                return Err(TakeError::NoNode {
                    device: self.device,
                    node,
                });
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(node)
    }

    /// The child that hangs in the kernel, if one does: for whoever waits for its end.
    pub(crate) fn stuck(&self) -> Option<Errand> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The virtual functions that it has now.
    pub(crate) fn virtual_functions(&self) -> Vec<Bdf> {
        let links = (0_u16..).map_while(|index| fs::read_link(self.path(&format!("virtfn{index}"))).ok());
        links
            .filter_map(|link| link.file_name()?.to_str()?.parse().ok())
            .collect()
    }

    pub(crate) fn bound(&self) -> Option<String> {
        let target = fs::read_link(self.path("driver")).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    fn unbind(&self) -> Result<(), TakeError> {
        let Some(driver) = self.bound() else { return Ok(()) };
        let unbound = step("unbind", || {
            self.write_limited(&self.path("driver/unbind"), &self.device.to_string(), &driver)
        });
        match unbound {
            // It let go between the look and the write.
            Err(TakeError::Sysfs { .. }) if self.bound().is_none() => {}
            other => other?,
        }
        self.settle(|found| found.is_none());
        Ok(())
    }

    /// The driver bound once `wanted` is content with it, or after a while.
    fn settle(&self, wanted: impl Fn(Option<&str>) -> bool) -> Option<String> {
        let end = Instant::now() + SETTLE_LIMIT;
        loop {
            let found = self.bound();
            if wanted(found.as_deref()) || Instant::now() > end {
                return found;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Binds that very driver, whatever others would take the function too; if it will not, lets the kernel look for one.
    fn bind(&self, wanted: &str) -> Result<(), TakeError> {
        let bus = self.root.join("sys/bus/pci");
        let ways = [
            ("bind", bus.join("drivers").join(wanted).join("bind")),
            ("probe", bus.join("drivers_probe")),
        ];
        for (name, path) in ways {
            if self.bound().is_some() {
                break;
            }
            let text = self.device.to_string();
            match step(name, || self.write_limited(&path, &text, wanted)) {
                Err(error @ TakeError::Sysfs { .. }) => {
                    tracing::debug!(device = %self.device, %error, "a way to bind the driver was refused");
                }
                other => other?,
            }
        }
        match self.settle(|found| found == Some(wanted)) {
            Some(found) if found == wanted => Ok(()),
            found => Err(TakeError::NotBound {
                device: self.device,
                wanted: wanted.to_owned(),
                found,
            }),
        }
    }

    /// Writes in a child process, because what `driver` does about it can hang in the kernel.
    pub(crate) fn write_limited(&self, path: &Path, text: &str, driver: &str) -> Result<(), TakeError> {
        let refused = |source| self.sysfs(path.to_owned(), source);
        let errand = Errand::begin(path, text, self.lock.as_ref().map(AsFd::as_fd)).map_err(refused)?;
        if let Some(written) = errand.wait(self.patience) {
            return written.map_err(refused);
        }
        // A wait that can be broken off ends by this; one that cannot goes on in the child alone.
        if !errand.kill(KILL_LIMIT) {
            *self.stuck.lock().unwrap_or_else(PoisonError::into_inner) = Some(errand);
        }
        Err(TakeError::Stuck {
            device: self.device,
            driver: driver.to_owned(),
            seconds: self.patience.as_secs(),
        })
    }

    pub(crate) fn write(&self, path: PathBuf, text: &str) -> Result<(), TakeError> {
        write_once(&path, text).map_err(|source| self.sysfs(path, source))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root
            .join("sys/bus/pci/devices")
            .join(self.device.to_string())
            .join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn device(&self) -> Bdf {
        self.device
    }

    fn sysfs(&self, path: PathBuf, source: io::Error) -> TakeError {
        TakeError::Sysfs {
            device: self.device,
            path,
            source,
        }
    }
}

/// One write, as sysfs attributes want it; never creates a file.
pub(crate) fn write_once(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// The driver that lends functions.
pub(crate) const VFIO: &str = "vfio-pci";
/// Removing a driver may flush disks; longer than this is a hang.
pub(crate) const DRIVER_LIMIT: Duration = Duration::from_secs(30);
/// A process that can be killed is gone by then.
const KILL_LIMIT: Duration = Duration::from_secs(2);
const SETTLE_LIMIT: Duration = Duration::from_secs(3);
const NODE_LIMIT: Duration = Duration::from_secs(5);
