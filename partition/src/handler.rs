//! What answers a guest's access: the three traits that devices implement.
//!
//! Handlers take `&self`: several vCPUs call them at once. They never fail; a bad access by a guest has a
//! defined result (reads of nothing are all ones), since a guest's mistake is not an error of ours.

/// A range of guest-physical addresses without memory behind it.
pub trait MmioHandler: Send + Sync {
    /// Fills `data` (1 to 8 bytes) from `offset` in the range.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Takes `data` (1 to 8 bytes) at `offset` in the range.
    fn write(&self, offset: u64, data: &[u8]);
}

/// A range of I/O ports.
pub trait PioHandler: Send + Sync {
    /// Fills `data` (1, 2 or 4 bytes) from `offset` in the range.
    fn read(&self, offset: u16, data: &mut [u8]);
    /// Takes `data` (1, 2 or 4 bytes) at `offset` in the range.
    fn write(&self, offset: u16, data: &[u8]);
}

/// The configuration space of one PCI function: 4,096 bytes.
///
/// `offset` is below 4,096, `data` is 1, 2 or 4 bytes long and never crosses a 4-byte boundary.
pub trait ConfigHandler: Send + Sync {
    /// Fills `data` from `offset`.
    fn read(&self, offset: u16, data: &mut [u8]);
    /// Takes `data` at `offset`.
    fn write(&self, offset: u16, data: &[u8]);
}
