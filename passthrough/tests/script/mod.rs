//! A device that is a script: a configuration space, one BAR of memory, and a log of what was asked of it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part; a script that cannot run ends its test"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use pellucid_partition::{Mapping, MmioBus};
use pellucid_passthrough::{IrqInfo, IrqKind, RegionIndex, RegionInfo, Transport};

/// What was asked, in order. Writes of the command register say whether a BAR was open to the guest at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    Command {
        value: u8,
        open: bool,
    },
    Power {
        value: u8,
        open: bool,
    },
    Reset {
        open: bool,
    },
    Wire {
        kind: IrqKind,
        start: u32,
        live: Vec<bool>,
    },
    Unwire(IrqKind),
}

/// The device.
pub(crate) struct Script {
    space: Mutex<Vec<u8>>,
    memory: File,
    bus: Arc<MmioBus>,
    fixed: bool,
    refuse_power: bool,
    log: Mutex<Vec<Asked>>,
    wired: Mutex<BTreeMap<IrqKind, Vec<Option<File>>>>,
}

pub(crate) const BAR_SIZE: u64 = 0x4000;
pub(crate) const POWER: u16 = 0x44;
pub(crate) const MSI: u16 = 0x52;
pub(crate) const MSIX: u16 = 0x72;
pub(crate) const DEVICE_CONTROL: u16 = 0x88;
pub(crate) const TABLE: u64 = 0x2000;

impl Script {
    /// A function with power management, MSI-X with 16 vectors and PCI Express. `fixed`: its host cannot add vectors.
    pub(crate) fn new(bus: &Arc<MmioBus>, fixed: bool) -> Script {
        let mut space = vec![0; 4096];
        let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &[0x36, 0x1b, 0x10, 0x00, 0x00, 0x00, 0x10, 0x00]);
        put(0x34, &[0x40]);
        put(0x3d, &[0x01]);
        put(0x40, &[0x01, 0x50, 0x03, 0x00]);
        // MSI with up to 4 vectors, 64-bit, maskable.
        put(0x50, &[0x05, 0x70, 0x84, 0x01]);
        put(
            0x70,
            &[0x11, 0x80, 0x0f, 0x00, 0x00, 0x20, 0, 0, 0x00, 0x30, 0, 0],
        );
        put(0x80, &[0x10, 0x00, 0x02, 0x00]);
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(BAR_SIZE).unwrap();
        Script {
            space: Mutex::new(space),
            memory,
            bus: Arc::clone(bus),
            fixed,
            refuse_power: false,
            log: Mutex::default(),
            wired: Mutex::default(),
        }
    }

    /// The same, but it stays in D0.
    pub(crate) fn sleepless(bus: &Arc<MmioBus>) -> Script {
        Script {
            refuse_power: true,
            ..Script::new(bus, true)
        }
    }

    /// What was asked since the last look.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// Signals an interrupt, if it is connected.
    pub(crate) fn signal(&self, kind: IrqKind, vector: usize) -> bool {
        let wired = self.wired.lock().unwrap();
        let connected = wired.get(&kind).and_then(|wired| wired.get(vector)?.as_ref());
        connected.is_some_and(|mut event| event.write_all(&1_u64.to_ne_bytes()).is_ok())
    }

    fn open(&self) -> bool {
        !self.bus.counts().is_empty()
    }

    fn ask(&self, what: Asked) {
        self.log.lock().unwrap().push(what);
    }
}

impl Transport for Script {
    fn region(&self, index: RegionIndex) -> Option<RegionInfo> {
        match index {
            RegionIndex::Config => Some(RegionInfo {
                size: 4096,
                ..RegionInfo::default()
            }),
            RegionIndex::Bar(0) => {
                let whole = std::iter::once(0..BAR_SIZE).collect();
                Some(RegionInfo {
                    size: BAR_SIZE,
                    mappable: whole,
                    msix_mappable: true,
                })
            }
            _ => None,
        }
    }

    fn read(&self, region: RegionIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
        if region != RegionIndex::Config {
            return self.memory.read_exact_at(data, offset);
        }
        let at = offset as usize;
        data.copy_from_slice(&self.space.lock().unwrap()[at..at + data.len()]);
        Ok(())
    }

    fn write(&self, region: RegionIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        if region != RegionIndex::Config {
            return self.memory.write_all_at(data, offset);
        }
        let open = self.open();
        match offset as u16 {
            0x04 => self.ask(Asked::Command { value: data[0], open }),
            POWER => self.ask(Asked::Power { value: data[0], open }),
            _ => {}
        }
        if offset as u16 == POWER && self.refuse_power {
            return Ok(());
        }
        let at = offset as usize;
        self.space.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn map(&self, _: RegionIndex, offset: u64, size: usize) -> io::Result<Mapping> {
        Mapping::shared(self.memory.as_fd(), offset, size)
    }

    fn resettable(&self) -> bool {
        true
    }

    fn reset(&self) -> io::Result<()> {
        self.ask(Asked::Reset { open: self.open() });
        Ok(())
    }

    fn irq(&self, kind: IrqKind) -> IrqInfo {
        let count = match kind {
            IrqKind::Msix => 16,
            IrqKind::Msi => 4,
            IrqKind::Intx | IrqKind::Error | IrqKind::Request => 1,
        };
        IrqInfo {
            count,
            fixed: self.fixed,
        }
    }

    fn wire(&self, kind: IrqKind, start: u32, eventfds: &[Option<BorrowedFd<'_>>]) -> io::Result<()> {
        let live = eventfds.iter().map(Option::is_some).collect();
        if !matches!(kind, IrqKind::Error | IrqKind::Request) {
            self.ask(Asked::Wire { kind, start, live });
        }
        let mut all = self.wired.lock().unwrap();
        let messages = [IrqKind::Msi, IrqKind::Msix];
        if messages.contains(&kind) && all.contains_key(&IrqKind::Intx) {
            // As VFIO: one of line, MSI and MSI-X at a time.
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let wired = all.entry(kind).or_default();
        let end = start as usize + eventfds.len();
        if self.fixed && !wired.is_empty() && end > wired.len() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let longer = wired.len().max(end);
        wired.resize_with(longer, || None);
        for (index, fd) in eventfds.iter().enumerate() {
            wired[start as usize + index] = fd.map(|fd| File::from(fd.try_clone_to_owned().unwrap()));
        }
        Ok(())
    }

    fn unmask_by(&self, _: IrqKind, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn unwire(&self, kind: IrqKind) -> io::Result<()> {
        if !matches!(kind, IrqKind::Error | IrqKind::Request) {
            self.ask(Asked::Unwire(kind));
        }
        self.wired.lock().unwrap().remove(&kind);
        Ok(())
    }
}
