//! Pages of a mapping: advised, populated, collapsed into huge pages.

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
    let inside = offset.checked_add(size).is_some_and(|end| end <= region.size());
    if !inside {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let number = match advice {
        Advice::HugePages => libc::MADV_HUGEPAGE,
        Advice::Collapse => MADV_COLLAPSE,
        Advice::PopulateWrite => libc::MADV_POPULATE_WRITE,
    };
    let start = region.as_ptr().wrapping_add(offset);
    // SAFETY: the range lies inside a live mapping; none of the three advices changes what the bytes are.
    let result = unsafe { libc::madvise(start.cast(), size, number) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets the pages of `region` come from `node` only (`MPOL_BIND`), before anything is populated.
pub(crate) fn bind(region: &RamMapping, node: u32) -> io::Result<()> {
    let mut mask = [0u64; 16];
    let word = mask
        .get_mut(node as usize / 64)
        .ok_or(io::ErrorKind::InvalidInput)?;
    *word = 1 << (node % 64);
    let bits = mask.len() * 64;
    // SAFETY: the range is a live mapping and `mask` has `bits` bits; the call changes where pages come from, not what they hold.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            region.as_ptr(),
            region.size(),
            libc::MPOL_BIND,
            mask.as_ptr(),
            bits,
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// include/uapi/asm-generic/mman-common.h, since Linux 6.1.
const MADV_COLLAPSE: libc::c_int = 25;
