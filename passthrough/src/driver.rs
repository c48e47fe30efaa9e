//! Moving a function between host drivers through sysfs, and the record by which it can be moved back.
//! Every step can be repeated; none waits without a limit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use pellucid_partition::Bdf;
use serde::{Deserialize, Serialize};

use crate::error::TakeError;
use crate::inventory::DriverState;

/// How to give a function back: written and synced before the first change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// The driver and the override that it had.
    pub(crate) original: DriverState,
    /// Why it is kept away from its driver, if it failed its health proof.
    pub(crate) quarantined: Option<String>,
}

/// A function's directory in sysfs.
#[derive(Debug, Clone)]
pub(crate) struct DriverSeat {
    root: PathBuf,
    device: Bdf,
}

impl DriverSeat {
    pub(crate) fn new(root: &Path, device: Bdf) -> DriverSeat {
        DriverSeat {
            root: root.to_owned(),
            device,
        }
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

    /// From whatever driver to vfio-pci.
    pub(crate) fn to_vfio(&self) -> Result<(), TakeError> {
        if self.bound().as_deref() == Some(VFIO) {
            return Ok(());
        }
        self.write(self.path("driver_override"), VFIO)?;
        self.unbind()?;
        self.probe(VFIO)
    }

    /// Back to where `way` says it came from.
    pub(crate) fn restore(&self, way: &Way) -> Result<(), TakeError> {
        let now = self.state()?;
        if now.only != way.original.only {
            // The kernel drops the override on an empty line.
            self.write(
                self.path("driver_override"),
                way.original.only.as_deref().unwrap_or("\n"),
            )?;
        }
        if now.bound == way.original.bound {
            return Ok(());
        }
        // A driver that somebody else has put there meanwhile is not ours to remove.
        if now.bound.as_deref().is_some_and(|bound| bound != VFIO) {
            tracing::warn!(device = %self.device, driver = ?now.bound, "another driver took the function; left to it");
            return Ok(());
        }
        self.unbind()?;
        match &way.original.bound {
            Some(driver) => self.probe(driver),
            None => Ok(()),
        }
    }

    /// Asks the kernel to reset the function that no driver of ours holds, and says whether it then answers as a device.
    pub(crate) fn reset_and_prove(&self) -> Result<bool, TakeError> {
        if self.path("reset").exists() {
            self.write(self.path("reset"), "1")?;
        }
        let path = self.path("config");
        let header = fs::read(&path).map_err(|source| self.sysfs(path, source))?;
        let ids = fs::read_to_string(self.path("vendor")).unwrap_or_default();
        let wanted = u16::from_str_radix(ids.trim().trim_start_matches("0x"), 16).unwrap_or(0);
        Ok(header.len() >= 4 && u16::from_le_bytes([header[0], header[1]]) == wanted)
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

    fn bound(&self) -> Option<String> {
        let target = fs::read_link(self.path("driver")).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    fn unbind(&self) -> Result<(), TakeError> {
        let Some(driver) = self.bound() else { return Ok(()) };
        let unbound = self.write_limited(self.path("driver/unbind"), &driver);
        match unbound {
            // It let go between the look and the write.
            Err(TakeError::Sysfs { .. }) if self.bound().is_none() => Ok(()),
            other => other,
        }
    }

    /// Lets the kernel look for a driver; if it finds none, names the wanted one.
    fn probe(&self, wanted: &str) -> Result<(), TakeError> {
        let bus = self.root.join("sys/bus/pci");
        let probed = self.write_limited(bus.join("drivers_probe"), wanted);
        if self.bound().as_deref() != Some(wanted) && self.bound().is_none() {
            let bound = self.write_limited(bus.join("drivers").join(wanted).join("bind"), wanted);
            if let (Err(error), Ok(())) = (bound, probed) {
                tracing::warn!(device = %self.device, %error, "bind refused");
            }
        }
        let end = Instant::now() + SETTLE_LIMIT;
        loop {
            let found = self.bound();
            if found.as_deref() == Some(wanted) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(TakeError::NotBound {
                    device: self.device,
                    wanted: wanted.to_owned(),
                    found,
                });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes the function's address, in a thread of its own: a driver's remove or probe can hang in the kernel.
    fn write_limited(&self, path: PathBuf, driver: &str) -> Result<(), TakeError> {
        let (sender, receiver) = mpsc::channel();
        let (target, text) = (path.clone(), self.device.to_string());
        let spawned = thread::Builder::new()
            .name(format!("driver-{text}"))
            .spawn(move || {
                // The receiver is gone if the time was up; then nobody wants the answer.
                let _ = sender.send(write_once(&target, &text));
            });
        spawned.map_err(|source| self.sysfs(path.clone(), source))?;
        match receiver.recv_timeout(DRIVER_LIMIT) {
            Ok(written) => written.map_err(|source| self.sysfs(path, source)),
            Err(_) => Err(TakeError::Stuck {
                device: self.device,
                driver: driver.to_owned(),
                seconds: DRIVER_LIMIT.as_secs(),
            }),
        }
    }

    fn write(&self, path: PathBuf, text: &str) -> Result<(), TakeError> {
        write_once(&path, text).map_err(|source| self.sysfs(path, source))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root
            .join("sys/bus/pci/devices")
            .join(self.device.to_string())
            .join(name)
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
fn write_once(path: &Path, text: &str) -> io::Result<()> {
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
const DRIVER_LIMIT: Duration = Duration::from_secs(30);
const SETTLE_LIMIT: Duration = Duration::from_secs(3);
const NODE_LIMIT: Duration = Duration::from_secs(5);
