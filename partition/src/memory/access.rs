//! Reads and writes of guest memory: bounded, volatile copies that take no lock, across borders of adjacent regions too.

use std::sync::Arc;

use vm_memory::{ByteValued, Bytes, GuestAddress, GuestAddressSpace, GuestMemoryBackend};

use super::{GuestMemory, VmMemory};
use crate::error::MemoryError;

impl GuestMemory {
    /// What is RAM now, as other rust-vmm crates take it. A snapshot: it keeps its mappings, and regions that come later are not in it.
    #[must_use]
    pub fn as_vm_memory(&self) -> Arc<VmMemory> {
        self.inner.table.load_full()
    }

    /// Copies from the guest; refuses a range that is not all RAM.
    pub fn read(&self, address: GuestAddress, data: &mut [u8]) -> Result<(), MemoryError> {
        let table = self.all_ram(address, data.len())?;
        let copied = table.read_slice(data, address);
        copied.map_err(|_| outside(address, data.len()))
    }

    /// Copies to the guest; refuses a range that is not all RAM, and then has written nothing.
    pub fn write(&self, address: GuestAddress, data: &[u8]) -> Result<(), MemoryError> {
        let table = self.all_ram(address, data.len())?;
        let copied = table.write_slice(data, address);
        copied.map_err(|_| outside(address, data.len()))
    }

    /// Copies a value of plain bytes from the guest; [`Le16`](super::Le16) and its like are little-endian numbers.
    pub fn read_value<T: ByteValued>(&self, address: GuestAddress) -> Result<T, MemoryError> {
        let table = self.all_ram(address, size_of::<T>())?;
        let copied = table.read_obj(address);
        copied.map_err(|_| outside(address, size_of::<T>()))
    }

    /// Copies a value of plain bytes to the guest; refuses as [`GuestMemory::write`] does.
    pub fn write_value<T: ByteValued>(&self, address: GuestAddress, value: T) -> Result<(), MemoryError> {
        let table = self.all_ram(address, size_of::<T>())?;
        let copied = table.write_obj(value, address);
        copied.map_err(|_| outside(address, size_of::<T>()))
    }

    /// Whether the bytes from `address` on are all RAM, in one region or in adjacent ones. No bytes are.
    #[must_use]
    pub fn contains(&self, address: GuestAddress, size: u64) -> bool {
        let table = self.inner.table.load();
        usize::try_from(size).is_ok_and(|size| table.check_range(address, size))
    }

    /// The table in which that range is all RAM: what is then done in the same table cannot stop halfway.
    fn all_ram(&self, address: GuestAddress, size: usize) -> Result<Table, MemoryError> {
        let table = self.inner.table.load();
        match table.check_range(address, size) {
            true => Ok(table),
            false => Err(outside(address, size)),
        }
    }
}

/// Devices of other rust-vmm crates ask for the memory as it is at that moment.
impl GuestAddressSpace for GuestMemory {
    type M = VmMemory;
    type T = Arc<VmMemory>;

    fn memory(&self) -> Arc<VmMemory> {
        self.as_vm_memory()
    }
}

type Table = arc_swap::Guard<Arc<VmMemory>>;

fn outside(address: GuestAddress, size: usize) -> MemoryError {
    MemoryError::Outside {
        address: address.0,
        size,
    }
}
