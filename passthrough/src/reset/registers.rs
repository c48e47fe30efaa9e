//! The registers that a proof reads: those that the kernel shows in sysfs where it does, else what the transport answers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::transport::{RegionIndex, Transport};

/// A function's configuration space, as near to the hardware as it can be seen.
pub(super) struct Registers {
    transport: Arc<dyn Transport>,
    raw: Option<File>,
    /// The registers of a virtual function that SR-IOV does not have (ids, BARs) read as constants on the hardware.
    is_virtual: bool,
}

impl Registers {
    pub(super) fn new(transport: Arc<dyn Transport>, sysfs: Option<PathBuf>) -> Registers {
        Registers {
            transport,
            is_virtual: sysfs.as_ref().is_some_and(|sysfs| sysfs.join("physfn").exists()),
            raw: sysfs.and_then(|sysfs| File::open(sysfs.join("config")).ok()),
        }
    }

    pub(super) fn transport(&self) -> &dyn Transport {
        self.transport.as_ref()
    }

    pub(super) fn is_virtual(&self) -> bool {
        self.is_virtual
    }

    pub(super) fn word(&self, offset: u16) -> io::Result<u16> {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    pub(super) fn dword(&self, offset: u16) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The first 256 bytes.
    pub(super) fn header(&self) -> io::Result<Vec<u8>> {
        header(&|offset, bytes| self.read(offset, bytes))
    }

    fn read(&self, offset: u16, bytes: &mut [u8]) -> io::Result<()> {
        match &self.raw {
            Some(raw) => raw.read_exact_at(bytes, offset.into()),
            None => self.transport.read(RegionIndex::Config, offset.into(), bytes),
        }
    }
}

/// The first 256 bytes of what `read` reads, dword by dword as hardware has them.
pub(super) fn header(read: &dyn Fn(u16, &mut [u8]) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let mut space = vec![0; 256];
    for (index, bytes) in space.chunks_mut(4).enumerate() {
        read(index as u16 * 4, bytes)?;
    }
    Ok(space)
}

/// Memory, I/O and bus master off; the line too, which a driver turns on again when it enables the function.
pub(crate) fn stop(transport: &dyn Transport) -> io::Result<()> {
    let mut command = [0; 2];
    transport.read(RegionIndex::Config, COMMAND.into(), &mut command)?;
    let stopped = u16::from_le_bytes(command) & !DECODING_AND_MASTER | LINE_OFF;
    transport.write(RegionIndex::Config, COMMAND.into(), &stopped.to_le_bytes())
}

/// Offsets and bits of the header (PCI 3.0, 6.2).
pub(super) const COMMAND: u16 = 0x04;
pub(super) const STATUS: u16 = 0x06;
pub(super) const REVISION_AND_CLASS: u16 = 0x08;
pub(super) const FIRST_BAR: u16 = 0x10;
pub(super) const DECODING_AND_MASTER: u16 = 0x7;
pub(super) const LINE_OFF: u16 = 0x400;
pub(super) const LINE_ASSERTED: u16 = 0x8;
