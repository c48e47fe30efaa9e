//! Accesses: from an address to the handler that answers there. The path of a hit takes no lock and allocates nothing.

use crate::bus::table::Range;
use crate::bus::{Bus, LastHit, MmioBus, PioBus};
use crate::handler::{MmioHandler, PioHandler};

impl MmioBus {
    /// Answers a read of 1 to 8 bytes. False, and all ones, if no range holds all of it.
    #[inline]
    pub fn read(&self, hit: &mut LastHit<dyn MmioHandler>, address: u64, data: &mut [u8]) -> bool {
        self.read_by(hit, address, data, |handler, offset, data| {
            handler.read(offset, data)
        })
    }

    /// Delivers a write of 1 to 8 bytes. False if no range holds all of it.
    #[inline]
    pub fn write(&self, hit: &mut LastHit<dyn MmioHandler>, address: u64, data: &[u8]) -> bool {
        self.write_by(hit, address, data, |handler, offset, data| {
            handler.write(offset, data)
        })
    }
}

// The last port is 0xffff, and so is the last offset.
impl PioBus {
    /// Answers a read of 1, 2 or 4 bytes. False, and all ones, if no range holds all of it.
    #[inline]
    pub fn read(&self, hit: &mut LastHit<dyn PioHandler>, port: u16, data: &mut [u8]) -> bool {
        self.read_by(hit, port.into(), data, |handler, offset, data| {
            handler.read(offset as u16, data);
        })
    }

    /// Delivers a write of 1, 2 or 4 bytes. False if no range holds all of it.
    #[inline]
    pub fn write(&self, hit: &mut LastHit<dyn PioHandler>, port: u16, data: &[u8]) -> bool {
        self.write_by(hit, port.into(), data, |handler, offset, data| {
            handler.write(offset as u16, data);
        })
    }
}

impl<H: ?Sized> Bus<H> {
    #[inline]
    fn read_by(
        &self,
        hit: &mut LastHit<H>,
        address: u64,
        data: &mut [u8],
        ask: impl Fn(&H, u64, &mut [u8]),
    ) -> bool {
        let Some(range) = self.remembered(hit, address, data.len()) else {
            return self.read_cold(hit, address, data, ask);
        };
        range.tally.count_read(&hit.line);
        ask(&range.handler, address - range.base, data);
        true
    }

    #[inline]
    fn write_by(
        &self,
        hit: &mut LastHit<H>,
        address: u64,
        data: &[u8],
        tell: impl Fn(&H, u64, &[u8]),
    ) -> bool {
        let Some(range) = self.remembered(hit, address, data.len()) else {
            return self.write_cold(hit, address, data, tell);
        };
        range.tally.count_write(&hit.line);
        tell(&range.handler, address - range.base, data);
        true
    }

    /// The range that holds the whole access, if the vCPU remembers it.
    #[inline]
    fn remembered<'h>(&self, hit: &'h LastHit<H>, address: u64, length: usize) -> Option<&'h Range<H>> {
        let table = self.table.if_latest(&hit.seen)?;
        table.remembered(&hit.ways, address, length)
    }

    /// A read by a vCPU that does not remember who answers, if anybody does.
    #[cold]
    #[inline(never)]
    fn read_cold(
        &self,
        hit: &mut LastHit<H>,
        address: u64,
        data: &mut [u8],
        ask: impl Fn(&H, u64, &mut [u8]),
    ) -> bool {
        let table = self.table.latest(&mut hit.seen);
        if let Some(range) = table.find(&mut hit.ways, address, data.len()) {
            range.tally.count_read(&hit.line);
            ask(&range.handler, address - range.base, data);
            return true;
        }
        data.fill(0xff);
        false
    }

    /// A write by a vCPU that does not remember who takes it, if anybody does.
    #[cold]
    #[inline(never)]
    fn write_cold(
        &self,
        hit: &mut LastHit<H>,
        address: u64,
        data: &[u8],
        tell: impl Fn(&H, u64, &[u8]),
    ) -> bool {
        let table = self.table.latest(&mut hit.seen);
        if let Some(range) = table.find(&mut hit.ways, address, data.len()) {
            range.tally.count_write(&hit.line);
            tell(&range.handler, address - range.base, data);
            return true;
        }
        false
    }
}
