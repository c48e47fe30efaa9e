//! The mapping behind one piece of guest RAM: aligned so that huge pages fit, unmapped when the last user lets go.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags};
use vm_memory::guest_memory::Error as GuestMemoryError;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryRegion, GuestMemoryRegionBytes, GuestUsize, MemoryRegionAddress,
    VolatileSlice,
};

use super::mapping::{Backing, keep_from_children, sealed};
use crate::address::HostAddress;
use crate::memory::RegionSpec;
use crate::spec::PageSize;
use crate::step::step;

/// A part of a memory file, mapped shared at a multiple of 2 MiB, or of its page size if that is larger.
///
/// A processor can map 2 MiB at once only where guest, host and file address agree modulo 2 MiB, and the kernel does not
/// align shared memory by itself.
#[derive(Debug)]
pub(crate) struct RamMapping {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to no thread; it is only reached by volatile copies.
unsafe impl Send for RamMapping {}
// SAFETY: shared access is volatile copies too, beside which the guest writes anyway.
unsafe impl Sync for RamMapping {}

impl RamMapping {
    /// Maps `size` bytes of `part`, both whole `pages`, where those can lie: hugetlb takes no other place for its own.
    ///
    /// Without `MAP_NORESERVE`, so that huge pages which are not there are refused here and are no SIGBUS later.
    pub(crate) fn of(part: &FileOffset, size: usize, pages: PageSize) -> io::Result<Self> {
        let alignment = usize::try_from(pages.bytes().max(HUGE_PAGE)).unwrap_or(usize::MAX);
        let span = size.checked_add(alignment).ok_or(io::ErrorKind::InvalidInput)?;
        let (none, anywhere) = (ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a null hint replaces nothing, and a reservation without access gives none.
        let reserved = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), span, none, anywhere) }?;
        let lead = reserved.align_offset(alignment);
        let aligned = reserved.wrapping_byte_add(lead);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let fixed = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the fixed range lies inside the reservation made above, so only that is replaced.
        let mapped =
            unsafe { rustix::mm::mmap(aligned, size, access, fixed, part.file().as_fd(), part.start()) };
        // Around the range the reservation is surely ours still. Inside it, a refused mapping may have left a hole that
        // another thread has used since, so then that part stays as it is: address space only.
        give_up(reserved, lead);
        give_up(aligned.wrapping_byte_add(size), alignment - lead);
        let start = NonNull::new(mapped?.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mapping = Self { start, size };
        keep_from_children(start, size)?;
        Ok(mapping)
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

impl Drop for RamMapping {
    fn drop(&mut self) {
        step("unmap guest memory", || {
            give_up(self.start.as_ptr().cast(), self.size)
        });
    }
}

impl sealed::Sealed for RamMapping {}

impl Backing for RamMapping {
    fn host(&self) -> HostAddress {
        HostAddress(self.start.as_ptr() as u64)
    }

    fn size(&self) -> u64 {
        self.size as u64
    }
}

/// Guest RAM at its guest-physical address, as vm-memory's traits want it.
///
/// Made by [`RamRegion::map`], nothing of it populated; [`GuestMemory::add`](crate::GuestMemory::add) makes it RAM of a guest.
#[derive(Debug)]
pub struct RamRegion {
    spec: RegionSpec,
    file: FileOffset,
    mapping: Arc<RamMapping>,
}

impl RamRegion {
    /// `mapping` is all of `file` and as large as `spec` says.
    pub(crate) fn new(spec: RegionSpec, file: FileOffset, mapping: Arc<RamMapping>) -> Self {
        Self { spec, file, mapping }
    }

    /// What it was to be.
    #[must_use]
    pub fn spec(&self) -> &RegionSpec {
        &self.spec
    }

    pub(crate) fn mapping(&self) -> &Arc<RamMapping> {
        &self.mapping
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        self.file.arc()
    }
}

impl GuestMemoryRegion for RamRegion {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.mapping.size as GuestUsize
    }

    fn start_addr(&self) -> GuestAddress {
        self.spec.guest
    }

    fn bitmap(&self) {}

    fn get_host_address(&self, address: MemoryRegionAddress) -> Result<*mut u8, GuestMemoryError> {
        let address = self
            .check_address(address)
            .ok_or(GuestMemoryError::InvalidBackendAddress)?;
        Ok(self.mapping.as_ptr().wrapping_add(address.0 as usize))
    }

    fn file_offset(&self) -> Option<&FileOffset> {
        Some(&self.file)
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_, ()>, GuestMemoryError> {
        let offset = usize::try_from(offset.0).unwrap_or(usize::MAX);
        if offset
            .checked_add(count)
            .is_none_or(|end| end > self.mapping.size)
        {
            return Err(GuestMemoryError::InvalidBackendAddress);
        }
        let start = self.mapping.as_ptr().wrapping_add(offset);
        // SAFETY: the range was just checked to lie in a live mapping, which `self` owns for the slice's lifetime.
        Ok(unsafe { VolatileSlice::new(start, count) })
    }
}

impl GuestMemoryRegionBytes for RamRegion {}

/// Unmaps what this module has mapped and nobody uses any more.
fn give_up(start: *mut std::ffi::c_void, size: usize) {
    if size == 0 {
        return;
    }
    // SAFETY: all callers name a range that they mapped themselves and that nothing borrows from.
    let unmapped = unsafe { rustix::mm::munmap(start, size) };
    if let Err(error) = unmapped {
        tracing::error!(%error, size, "guest memory could not be unmapped");
    }
}

/// What one entry of a page directory maps.
const HUGE_PAGE: u64 = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mapping_begins_where_its_pages_can() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(6 << 20).unwrap();
        let part = FileOffset::new(file, 2 << 20);
        for (pages, alignment) in [
            (PageSize::Size4K, 2 << 20),
            (PageSize::Size2M, 2 << 20),
            (PageSize::Size1G, 1 << 30),
        ] {
            let mappings: Vec<_> = (0..8)
                .map(|_| RamMapping::of(&part, 4 << 20, pages).unwrap())
                .collect();
            let begins = |mapping: &RamMapping| mapping.as_ptr() as usize;
            assert!(
                mappings
                    .iter()
                    .all(|mapping| begins(mapping).is_multiple_of(alignment))
            );
        }
    }

    #[test]
    fn a_size_that_wraps_is_refused() {
        let part = FileOffset::new(tempfile::tempfile().unwrap(), 0);
        assert!(RamMapping::of(&part, usize::MAX - 4095, PageSize::Size4K).is_err());
    }
}
