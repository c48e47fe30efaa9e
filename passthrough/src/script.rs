//! A function that is a script: error registers that do as they are told, and two event interrupts. For tests.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pellucid_partition::Mapping;

use crate::transport::{IrqInfo, IrqKind, RegionIndex, RegionInfo, Transport};

pub(crate) struct Script {
    space: Mutex<Vec<u8>>,
    /// Bits of both status registers that do not clear.
    stuck: AtomicU32,
    /// All ones is read, and nothing is written.
    gone: AtomicBool,
    refused: Option<IrqKind>,
    end: Option<UnixStream>,
    wired: Mutex<Vec<(IrqKind, File)>>,
}

impl Script {
    pub(crate) const DEVICE_CONTROL: usize = 0x48;
    const AER: usize = 0x140;
    pub(crate) const UNCORRECTABLE: usize = Self::AER + 0x04;
    pub(crate) const MASK: usize = Self::AER + 0x08;
    pub(crate) const SEVERITY: usize = Self::AER + 0x0c;
    pub(crate) const CORRECTABLE: usize = Self::AER + 0x10;
    pub(crate) const CORRECTABLE_MASK: usize = Self::AER + 0x14;
    pub(crate) const CONTROL: usize = Self::AER + 0x18;
    pub(crate) const HEADER_LOG: usize = Self::AER + 0x1c;
    pub(crate) const ROOT_STATUS: usize = Self::AER + 0x30;
    pub(crate) const SOURCE: usize = Self::AER + 0x34;

    /// A function with PCI Express and, behind another extended capability, AER.
    pub(crate) fn new() -> Script {
        let script = Script {
            space: Mutex::new(vec![0; 0x200]),
            stuck: AtomicU32::new(0),
            gone: AtomicBool::new(false),
            refused: None,
            end: None,
            wired: Mutex::default(),
        };
        script.set(0x04, 0x10 << 16);
        script.set(0x34, 0x40);
        script.set(0x40, 0x10);
        script.set(Self::DEVICE_CONTROL, 0x10);
        script.set(0x100, 0x1401_0003);
        script.set(Self::AER, 0x0001_0001);
        script
    }

    /// Another process serves it, which has the other end.
    pub(crate) fn served(self) -> (UnixStream, Script) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let end = Some(ours);
        (theirs, Script { end, ..self })
    }

    pub(crate) fn refusing(self, kind: IrqKind) -> Script {
        let refused = Some(kind);
        Script { refused, ..self }
    }

    /// A function with these bytes for its configuration space.
    pub(crate) fn of(space: Vec<u8>) -> Script {
        let space = Mutex::new(space);
        let script = Script::new();
        Script { space, ..script }
    }

    /// Becomes these.
    pub(crate) fn turn(&self, space: Vec<u8>) {
        *self.space.lock().unwrap() = space;
    }

    /// As hardware does: also what software cannot write.
    pub(crate) fn set(&self, at: usize, value: u32) {
        self.space.lock().unwrap()[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn register(&self, at: usize) -> u32 {
        let bytes = self.space.lock().unwrap()[at..at + 4].try_into().unwrap();
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn space(&self) -> Vec<u8> {
        self.space.lock().unwrap().clone()
    }

    pub(crate) fn stick(&self, bits: u32) {
        self.stuck.store(bits, Ordering::Relaxed);
    }

    pub(crate) fn vanish(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    pub(crate) fn signal(&self, wanted: IrqKind) {
        let wired = self.wired.lock().unwrap();
        let (_, event) = wired.iter().find(|(kind, _)| *kind == wanted).unwrap();
        let mut event: &File = event;
        event.write_all(&1_u64.to_ne_bytes()).unwrap();
    }

    pub(crate) fn is_wired(&self) -> bool {
        !self.wired.lock().unwrap().is_empty()
    }
}

impl Transport for Script {
    fn region(&self, index: RegionIndex) -> Option<RegionInfo> {
        let size = self.space.lock().unwrap().len() as u64;
        (index == RegionIndex::Config).then(|| RegionInfo {
            size,
            ..RegionInfo::default()
        })
    }

    fn read(&self, _: RegionIndex, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        match self.gone.load(Ordering::Relaxed) {
            true => data.fill(0xff),
            false => {
                let space = self.space.lock().unwrap();
                let found = space.get(at..at + data.len());
                data.copy_from_slice(found.ok_or(io::ErrorKind::InvalidInput)?);
            }
        }
        Ok(())
    }

    fn write(&self, _: RegionIndex, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        if self.gone.load(Ordering::Relaxed) {
            return Ok(());
        }
        if at + data.len() > self.space.lock().unwrap().len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if at != Self::UNCORRECTABLE && at != Self::CORRECTABLE {
            self.space.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
            return Ok(());
        }
        let ones = u32::from_le_bytes(data.try_into().unwrap());
        let stuck = self.stuck.load(Ordering::Relaxed);
        self.set(at, self.register(at) & (!ones | stuck));
        Ok(())
    }

    fn map(&self, _: RegionIndex, _: u64, _: usize) -> io::Result<Mapping> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn resettable(&self) -> bool {
        false
    }

    fn reset(&self) -> io::Result<()> {
        Ok(())
    }

    fn irq(&self, kind: IrqKind) -> IrqInfo {
        let count = u32::from(matches!(kind, IrqKind::Error | IrqKind::Request));
        IrqInfo { count, fixed: false }
    }

    fn wire(&self, kind: IrqKind, _: u32, fds: &[Option<BorrowedFd<'_>>]) -> io::Result<()> {
        if self.refused == Some(kind) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let event = fds[0].unwrap().try_clone_to_owned().unwrap();
        self.wired.lock().unwrap().push((kind, File::from(event)));
        Ok(())
    }

    fn unmask_by(&self, _: IrqKind, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn unwire(&self, kind: IrqKind) -> io::Result<()> {
        self.wired.lock().unwrap().retain(|(wired, _)| *wired != kind);
        Ok(())
    }

    fn loss(&self) -> Option<io::Result<OwnedFd>> {
        Some(self.end.as_ref()?.try_clone().map(OwnedFd::from))
    }
}
