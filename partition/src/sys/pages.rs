//! Pages of a mapping: bound to a node, advised, populated, collapsed into huge pages, locked.

use std::io;

use super::ram::RamMapping;

/// What is asked of the pages of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Prefer transparent huge pages, before anything is populated.
    HugePages,
    /// Make huge pages now, also where the host only allows them on request (Linux 6.1).
    Collapse,
    /// Fault everything in, writable (Linux 5.14).
    PopulateWrite,
}

/// Applies `advice` to the bytes from `offset` to `offset + size` of `region`; `EINVAL` if that is not inside.
pub(crate) fn advise(region: &RamMapping, offset: usize, size: usize, advice: Advice) -> io::Result<()> {
    let start = part(region, offset, size)?;
    let number = match advice {
        Advice::HugePages => libc::MADV_HUGEPAGE,
        Advice::Collapse => MADV_COLLAPSE,
        Advice::PopulateWrite => libc::MADV_POPULATE_WRITE,
    };
    // SAFETY: the range lies inside a live mapping; none of the three advices changes what the bytes are.
    let result = unsafe { libc::madvise(start.cast(), size, number) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets the pages of that part of `region` come from `node` only (`MPOL_BIND`), before anything is populated.
pub(crate) fn bind(region: &RamMapping, offset: usize, size: usize, node: u32) -> io::Result<()> {
    let start = part(region, offset, size)?;
    let mut mask = [0u64; 16];
    let word = mask
        .get_mut(node as usize / 64)
        .ok_or(io::ErrorKind::InvalidInput)?;
    *word = 1 << (node % 64);
    // The kernel reads one bit less than it is told.
    let bits = mask.len() * 64 + 1;
    let (bind, mask) = (libc::MPOL_BIND, mask.as_ptr());
    // SAFETY: the range lies inside a live mapping and one bit less than `bits` is in `mask`; what the pages hold stays as it is.
    let result = unsafe { libc::syscall(libc::SYS_mbind, start, size, bind, mask, bits, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Keeps all pages of `region` in memory until it is unmapped.
pub(crate) fn lock(region: &RamMapping) -> io::Result<()> {
    // SAFETY: the range is one live mapping; locking changes neither where it is nor what it holds.
    let locked = unsafe { rustix::mm::mlock(region.as_ptr().cast(), region.size()) };
    Ok(locked?)
}

/// Where the bytes from `offset` to `offset + size` of `region` begin; `EINVAL` if they are not inside.
fn part(region: &RamMapping, offset: usize, size: usize) -> io::Result<*mut u8> {
    let inside = offset.checked_add(size).is_some_and(|end| end <= region.size());
    match inside {
        true => Ok(region.as_ptr().wrapping_add(offset)),
        false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// include/uapi/asm-generic/mman-common.h, since Linux 6.1.
const MADV_COLLAPSE: libc::c_int = 25;
