//! A device for tests of the bus, which fails the test when it is asked for what it does not have.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a test; each target takes what it needs"
)]

use std::sync::{Arc, Mutex};

use pellucid_partition::{MmioHandler, PioHandler};

/// Answers reads with its number and the offset of each byte, remembers writes, and is never asked for what it does not have.
pub(crate) struct Device {
    pub(crate) number: u8,
    pub(crate) size: u64,
    pub(crate) written: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Device {
    pub(crate) fn new(number: u8, size: u64) -> Arc<Self> {
        Arc::new(Self {
            number,
            size,
            written: Mutex::default(),
        })
    }

    pub(crate) fn byte(&self, offset: u64) -> u8 {
        byte_of(self.number, offset)
    }

    fn check(&self, offset: u64, length: usize) {
        let fits = length > 0 && offset < self.size && length as u64 <= self.size - offset;
        assert!(fits, "{length} bytes at {offset} of {}", self.size);
    }
}

/// Never all ones, so that it is told from nothing.
pub(crate) fn byte_of(number: u8, offset: u64) -> u8 {
    number.wrapping_mul(16).wrapping_add(offset as u8) & 0x7f
}

impl MmioHandler for Device {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.check(offset, data.len());
        for (byte, offset) in data.iter_mut().zip(offset..) {
            *byte = self.byte(offset);
        }
    }
    fn write(&self, offset: u64, data: &[u8]) {
        self.check(offset, data.len());
        self.written.lock().unwrap().push((offset, data.to_vec()));
    }
}

impl PioHandler for Device {
    fn read(&self, offset: u16, data: &mut [u8]) {
        MmioHandler::read(self, offset.into(), data);
    }
    fn write(&self, offset: u16, data: &[u8]) {
        MmioHandler::write(self, offset.into(), data);
    }
}
