//! The engine: copies between guest memory and its own when the doorbell rings, and says so by an interrupt.
//!
//! Registers in BAR 0: 0x00 source, 0x08 destination (64 bits each: an address of the guest, or an offset in the engine's memory),
//! 0x10 length, 0x14 direction (0 into the engine, 1 out of it), 0x18 doorbell, 0x1c status (1 done, 2 failed). Vector 0 says done,
//! vector 1 failed. 0x20 injects: 1 has a completion time out and an error of the receiver, and raises the error event, 2 asks for the
//! device back, as a host does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags};
use vfio_bindings::bindings::vfio::VFIO_IRQ_SET_DATA_NONE;
use vfio_user::{DmaMapFlags, DmaUnmapFlags, ServerBackend};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::function::{
    CONFIG, CONFIG_SIZE, CORRECTABLE, ERROR, MEMORY, MEMORY_SIZE, MSIX, REGISTERS, REQUEST, UNCORRECTABLE,
    config,
};

/// The device, and what its guest has given it.
pub(crate) struct Engine {
    config: [u8; CONFIG_SIZE],
    registers: [u8; REGISTERS_SIZE],
    memory: File,
    guest: GuestMemoryMmap,
    /// Eventfds by kind and vector.
    wired: BTreeMap<(u32, u32), File>,
}

impl Engine {
    pub(crate) fn new() -> Result<Engine> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = File::from(rustix::fs::memfd_create("engine", flags)?);
        memory.set_len(MEMORY_SIZE)?;
        // Only what cannot vanish is mapped into a guest.
        rustix::fs::fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW)?;
        Ok(Engine {
            config: config(),
            registers: [0; REGISTERS_SIZE],
            memory,
            guest: GuestMemoryMmap::new(),
            wired: BTreeMap::new(),
        })
    }

    /// The engine's own memory, BAR 2.
    pub(crate) fn memory(&self) -> &File {
        &self.memory
    }

    /// Forgets a guest that has gone.
    pub(crate) fn disconnect(&mut self) {
        self.guest = GuestMemoryMmap::new();
        self.wired.clear();
        (self.config, self.registers) = (config(), [0; REGISTERS_SIZE]);
    }

    fn word(&self, at: usize) -> u64 {
        let bytes = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| self.registers[at + byte]));
        u64::from(bytes(at)) | u64::from(bytes(at + 4)) << 32
    }

    fn ring(&mut self) {
        let done = self.copy();
        let (status, vector) = if done.is_ok() { (1, 0) } else { (2, 1) };
        if let Err(error) = done {
            eprintln!("the copy failed: {error}");
        }
        self.registers[STATUS] = status;
        self.raise(MSIX, vector);
    }

    fn copy(&self) -> Result<()> {
        if self.config[COMMAND] & BUS_MASTER == 0 {
            return Err(Error::other("bus master is off"));
        }
        let (source, destination) = (self.word(SOURCE), self.word(DESTINATION));
        let (length, direction) = (self.word(LENGTH) as u32, self.word(DIRECTION) as u32);
        if u64::from(length) > MEMORY_SIZE {
            return Err(Error::other("longer than the engine's memory"));
        }
        let mut bytes = vec![0; length as usize];
        let inside = |offset: u64| match offset.checked_add(u64::from(length)) {
            Some(end) if end <= MEMORY_SIZE => Ok(offset),
            _ => Err(Error::other("outside the engine's memory")),
        };
        match direction {
            0 => {
                let read = self.guest.read_slice(&mut bytes, GuestAddress(source));
                read.map_err(Error::other)?;
                self.memory.write_all_at(&bytes, inside(destination)?)
            }
            1 => {
                self.memory.read_exact_at(&mut bytes, inside(source)?)?;
                let written = self.guest.write_slice(&bytes, GuestAddress(destination));
                written.map_err(Error::other)
            }
            _ => Err(Error::other("no such direction")),
        }
    }

    /// As a broken device does.
    fn err(&mut self) {
        self.config[UNCORRECTABLE + 1] |= COMPLETION_TIMEOUT;
        self.config[CORRECTABLE] |= RECEIVER_ERROR;
        self.raise(ERROR, 0);
    }

    fn raise(&self, kind: u32, vector: u32) {
        if let Some(mut event) = self.wired.get(&(kind, vector)) {
            // Full only if nobody takes interrupts; one more would tell nothing new.
            let _ = event.write(&1_u64.to_ne_bytes());
        }
    }
}

impl ServerBackend for Engine {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        let bytes: &[u8] = match region {
            REGISTERS => &self.registers,
            CONFIG => &self.config,
            MEMORY => return self.memory.read_exact_at(data, offset),
            _ => return Ok(()),
        };
        data.copy_from_slice(part(bytes, offset, data.len())?);
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        match (region, offset as usize) {
            (MEMORY, _) => return self.memory.write_all_at(data, offset),
            // Of the rest of configuration space, only the command register is the guest's to write.
            (CONFIG, COMMAND) => {
                let command = &data[..data.len().min(2)];
                self.config[COMMAND..COMMAND + command.len()].copy_from_slice(command);
            }
            (REGISTERS, DOORBELL) => self.ring(),
            // Status is cleared by ones.
            (CONFIG, UNCORRECTABLE | CORRECTABLE) => {
                for (status, ones) in self.config[offset as usize..].iter_mut().zip(data.iter().take(4)) {
                    *status &= !ones;
                }
            }
            (REGISTERS, INJECT) if data.first() == Some(&1) => self.err(),
            (REGISTERS, INJECT) => self.raise(REQUEST, 0),
            (REGISTERS, at) if at + data.len() <= DOORBELL => {
                self.registers[at..at + data.len()].copy_from_slice(data)
            }
            _ => {}
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        _: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        file: Option<File>,
    ) -> Result<()> {
        let file = file.ok_or(ErrorKind::Unsupported)?;
        let mapping =
            MmapRegion::from_file(FileOffset::new(file, offset), size as usize).map_err(Error::other)?;
        let region = GuestRegionMmap::new(mapping, GuestAddress(address)).ok_or(ErrorKind::InvalidInput)?;
        self.guest = self.guest.insert_region(region.into()).map_err(Error::other)?;
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, address: u64, size: u64) -> Result<()> {
        let removed = self.guest.remove_region(GuestAddress(address), size);
        self.guest = removed.map_err(Error::other)?.0;
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        (self.config, self.registers) = (config(), [0; REGISTERS_SIZE]);
        Ok(())
    }

    fn set_irqs(&mut self, kind: u32, flags: u32, start: u32, count: u32, files: Vec<File>) -> Result<()> {
        if flags & VFIO_IRQ_SET_DATA_NONE != 0 {
            self.wired.retain(|(wired, _), _| *wired != kind);
        }
        let mut files = files.into_iter();
        for vector in start..start.saturating_add(count) {
            match files.next() {
                Some(file) => self.wired.insert((kind, vector), file),
                None => self.wired.remove(&(kind, vector)),
            };
        }
        Ok(())
    }
}

fn part(bytes: &[u8], offset: u64, length: usize) -> Result<&[u8]> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = start.saturating_add(length);
    bytes
        .get(start..end)
        .ok_or_else(|| ErrorKind::InvalidInput.into())
}

const REGISTERS_SIZE: usize = 0x1000;
const SOURCE: usize = 0x00;
const DESTINATION: usize = 0x08;
const LENGTH: usize = 0x10;
const DIRECTION: usize = 0x14;
const DOORBELL: usize = 0x18;
const STATUS: usize = 0x1c;
const INJECT: usize = 0x20;
/// PCI 3.0, 6.2.2.
const COMMAND: usize = 0x04;
const BUS_MASTER: u8 = 4;
/// In the second byte of the status of uncorrectable errors, and in the first of that of correctable ones.
const COMPLETION_TIMEOUT: u8 = 1 << 6;
const RECEIVER_ERROR: u8 = 1;
