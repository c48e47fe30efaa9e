//! One region of a served device: its size, and what of it may be mapped, from an answer that may say anything.

use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, SealFlags};

use super::message::{u16_at, u32_at, u64_at};
use crate::transport::RegionInfo;

/// A region, with the file that its mappable areas are in.
#[derive(Debug, Default)]
pub(crate) struct ServedRegion {
    pub(crate) info: RegionInfo,
    /// The file, and where the region begins in it.
    pub(crate) file: Option<(OwnedFd, u64)>,
}

impl ServedRegion {
    /// From the answer's payload, which has at least [`INFO`] bytes, and the descriptor that came with it.
    pub(crate) fn of(index: u32, payload: &[u8], fd: Option<OwnedFd>) -> Result<ServedRegion, String> {
        let (flags, its, size) = (u32_at(payload, 4), u32_at(payload, 8), u64_at(payload, 16));
        if its != index {
            return Err(format!("the answer is about region {its}"));
        }
        if size > MOST_BYTES {
            return Err(format!(
                "{size:#x} bytes are more than any address space has room for"
            ));
        }
        let mappable = areas(payload, flags, size)?;
        let offset = u64_at(payload, 24);
        let mut info = RegionInfo {
            size,
            mappable,
            msix_mappable: false,
        };
        let file = match fd {
            Some(fd) if info.mappable.is_empty() => {
                drop(fd);
                None
            }
            Some(fd) => match lasting(&fd, offset, &info.mappable) {
                Ok(()) => Some((fd, offset)),
                Err(why) => {
                    tracing::info!(
                        region = index,
                        why,
                        "trapped, although its server offers to map it"
                    );
                    None
                }
            },
            None => None,
        };
        if file.is_none() {
            info.mappable.clear();
        }
        Ok(ServedRegion { info, file })
    }
}

/// The areas that may be mapped: all of the region, or those that a capability lists.
fn areas(payload: &[u8], flags: u32, size: u64) -> Result<Vec<Range<u64>>, String> {
    if flags & REGION_MMAP == 0 || size == 0 {
        return Ok(Vec::new());
    }
    let whole = Range { start: 0, end: size };
    let mut areas = vec![whole];
    let mut at = if flags & REGION_CAPS != 0 {
        u32_at(payload, 12) as usize
    } else {
        0
    };
    let mut before = INFO - 1;
    while at != 0 {
        // Only forward: a list that turns back could go round for ever.
        if at <= before || at.saturating_add(CAP_HEADER) > payload.len() {
            return Err(format!(
                "the capability list leads to {at}, after {before} and in {} bytes",
                payload.len()
            ));
        }
        if u16_at(payload, at) == CAP_SPARSE {
            areas = sparse(payload, at, size)?;
        }
        (before, at) = (at, u32_at(payload, at + 4) as usize);
    }
    Ok(areas)
}

fn sparse(payload: &[u8], at: usize, size: u64) -> Result<Vec<Range<u64>>, String> {
    let list = at + CAP_HEADER + 8;
    let count = u32_at(payload, at + CAP_HEADER) as usize;
    if payload.len().saturating_sub(list) / AREA < count {
        return Err(format!("{count} mappable areas do not fit the answer"));
    }
    let area = |number: usize| {
        let (start, length) = (
            u64_at(payload, list + number * AREA),
            u64_at(payload, list + number * AREA + 8),
        );
        match start.checked_add(length) {
            Some(end) if end <= size && length > 0 => Ok(start..end),
            _ => Err(format!(
                "the mappable area of {length:#x} bytes at {start:#x} is not inside its {size:#x} bytes"
            )),
        }
    };
    let mut areas: Vec<_> = (0..count).map(area).collect::<Result<_, _>>()?;
    areas.sort_by_key(|area| area.start);
    match areas.windows(2).find(|pair| pair[1].start < pair[0].end) {
        Some(pair) => Err(format!(
            "the mappable areas {:#x?} and {:#x?} overlap",
            pair[0], pair[1]
        )),
        None => Ok(areas),
    }
}

/// Whether the server cannot take these areas of the file from under a guest that has them mapped.
fn lasting(fd: &OwnedFd, offset: u64, areas: &[Range<u64>]) -> Result<(), &'static str> {
    let mode = rustix::fs::fcntl_getfl(fd).map_err(|_| "the file cannot be asked for its mode")?;
    if mode & OFlags::RWMODE != OFlags::RDWR {
        return Err("the file is not open for reading and writing");
    }
    if !rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK)) {
        return Err("the file is not sealed against shrinking");
    }
    let size = rustix::fs::fstat(fd).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
    let inside = |area: &Range<u64>| area.end.checked_add(offset).is_some_and(|end| end <= size);
    if !offset.is_multiple_of(PAGE) || !areas.iter().all(inside) {
        return Err("the file is shorter than what is to be mapped, or not aligned");
    }
    Ok(())
}

/// Bytes of `struct vfio_region_info`; capabilities follow.
pub(crate) const INFO: usize = 32;
const CAP_HEADER: usize = 8;
const AREA: usize = 16;
const PAGE: u64 = 4096;
/// 128 TiB; what follows from a size stays far from overflow.
const MOST_BYTES: u64 = 1 << 47;
const REGION_MMAP: u32 = vfio_bindings::bindings::vfio::VFIO_REGION_INFO_FLAG_MMAP;
const REGION_CAPS: u32 = vfio_bindings::bindings::vfio::VFIO_REGION_INFO_FLAG_CAPS;
const CAP_SPARSE: u16 = vfio_bindings::bindings::vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP as u16;
