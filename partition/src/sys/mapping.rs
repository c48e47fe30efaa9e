//! A mapping owns what it maps, and unmap is `drop`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

use crate::address::HostAddress;

/// Host memory that KVM may be given: it stays mapped, at one place, as long as the value lives.
///
/// Sealed: implemented in `sys` only, by the types that own their mapping.
pub trait Backing: sealed::Sealed + Send + Sync {
    /// Where it starts in this process.
    fn host(&self) -> HostAddress;
    /// Bytes.
    fn size(&self) -> u64;
}

pub(super) mod sealed {
    pub trait Sealed {}
}

/// A shared mapping of a part of a file (a device region, or memory), unmapped when dropped.
///
/// Device memory is read and written by volatile accesses of the natural size; no reference into it exists.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping is not tied to a thread; all access goes through volatile reads and writes of raw memory.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` only allows volatile accesses, for which the device or the guest is a concurrent party anyway.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `size` bytes of `file` from `offset`, shared, readable and writable. Both must be page-aligned.
    pub fn shared(file: BorrowedFd<'_>, offset: u64, size: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a null hint lets the kernel choose a free range, so no existing mapping is replaced.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                size,
                protection,
                MapFlags::SHARED,
                file,
                offset,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mapping = Self { start, size };
        keep_from_children(start, size)?;
        Ok(mapping)
    }

    /// Memory of its own that begins as `bytes`, whole pages, named `name` in `/proc/PID/maps`.
    pub fn of_bytes(name: &str, bytes: &[u8]) -> io::Result<Self> {
        let mut file = File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        Self::shared(file.as_fd(), 0, bytes.len())
    }

    /// Where it starts in this process.
    #[must_use]
    pub fn host(&self) -> HostAddress {
        HostAddress(self.start.as_ptr() as u64)
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Reads `data.len()` bytes (1, 2, 4 or 8, naturally aligned) in one access. False if that is not inside.
    #[must_use]
    pub fn read(&self, offset: usize, data: &mut [u8]) -> bool {
        let Some(place) = self.place(offset, data.len()) else {
            return false;
        };
        match data.len() {
            1 => data.copy_from_slice(&load::<u8>(place).to_ne_bytes()),
            2 => data.copy_from_slice(&load::<u16>(place).to_ne_bytes()),
            4 => data.copy_from_slice(&load::<u32>(place).to_ne_bytes()),
            _ => data.copy_from_slice(&load::<u64>(place).to_ne_bytes()),
        }
        true
    }

    /// Writes `data` (1, 2, 4 or 8 bytes, naturally aligned) in one access. False if that is not inside.
    #[must_use]
    pub fn write(&self, offset: usize, data: &[u8]) -> bool {
        let Some(place) = self.place(offset, data.len()) else {
            return false;
        };
        match *data {
            [a] => store(place, a),
            [a, b] => store(place, u16::from_ne_bytes([a, b])),
            [a, b, c, d] => store(place, u32::from_ne_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => store(place, u64::from_ne_bytes([a, b, c, d, e, f, g, h])),
            _ => return false,
        }
        true
    }

    /// The place of an access that lies inside, has a natural size and is aligned to it.
    fn place(&self, offset: usize, length: usize) -> Option<Place> {
        let natural = matches!(length, 1 | 2 | 4 | 8) && offset.is_multiple_of(length);
        let inside = offset.checked_add(length)? <= self.size;
        (natural && inside).then(|| Place(self.start.as_ptr().wrapping_add(offset)))
    }
}

impl sealed::Sealed for Mapping {}

impl Backing for Mapping {
    fn host(&self) -> HostAddress {
        Mapping::host(self)
    }

    fn size(&self) -> u64 {
        self.size as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and size are those of the mmap in `shared`, and nothing borrows from the mapping.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.size) };
        if let Err(error) = unmapped {
            tracing::error!(%error, size = self.size, "a mapping could not be undone");
        }
    }
}

/// Leaves `size` bytes that the caller has mapped at `start`, both in whole pages, out of the memory of later children: one that outlives
/// this process (stuck in a driver) would keep the guest's memory, or a device or a virtual machine open, for as long.
///
/// # Errors
/// The kernel refuses the advice: the range is not mapped, or not in whole pages.
pub fn keep_from_children(start: NonNull<u8>, size: usize) -> io::Result<()> {
    // SAFETY: this advice changes what a later fork copies, nothing in this process.
    unsafe { rustix::mm::madvise(start.as_ptr().cast(), size, rustix::mm::Advice::LinuxDontFork) }?;
    Ok(())
}

/// A checked place inside a live mapping; made by [`Mapping::place`] only.
struct Place(*mut u8);

fn load<T: Copy>(place: Place) -> T {
    // SAFETY: `place` checked bounds and alignment for this size, and any bit pattern is a value of the integers used.
    unsafe { place.0.cast::<T>().read_volatile() }
}

fn store<T: Copy>(place: Place, value: T) {
    // SAFETY: `place` checked bounds and alignment for this size, and the mapping was made writable.
    unsafe { place.0.cast::<T>().write_volatile(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn mapping() -> Mapping {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        Mapping::shared(file.as_fd(), 0, 4096).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back_at_every_size() {
        let mapping = mapping();
        for size in [1, 2, 4, 8] {
            let bytes: Vec<u8> = (1..=size as u8).collect();
            assert!(mapping.write(4096 - size, &bytes));
            let mut back = vec![0; size];
            assert!(mapping.read(4096 - size, &mut back));
            assert_eq!(back, bytes);
        }
    }

    #[test]
    fn memory_of_its_own_begins_as_it_is_told() {
        let bytes: Vec<u8> = (0..8192u32).map(|n| n as u8).collect();
        let mapping = Mapping::of_bytes("rom", &bytes).unwrap();
        let mut read = [0; 8];
        assert!(mapping.size() == 8192 && mapping.read(4104, &mut read));
        assert_eq!(read, bytes[4104..4112]);
        assert!(Mapping::of_bytes("nothing", &[]).is_err());
    }

    #[test]
    fn nothing_outside_or_misaligned_is_touched() {
        let mapping = mapping();
        assert!(!mapping.read(4095, &mut [0; 2]));
        assert!(!mapping.read(usize::MAX, &mut [0; 1]));
        assert!(!mapping.write(1, &[0; 4]));
        assert!(!mapping.write(0, &[0; 3]));
        assert!(!mapping.write(4096, &[0]));
    }
}
