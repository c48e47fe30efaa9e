//! An ELF kernel (vmlinux). Segments go where they ask to be, if that is free RAM.
//!
//! It is entered by its PVH note; without one at its ELF entry, which Linux means for the 64-bit boot protocol.

use pellucid_partition::{GuestAddress, GuestMemory};

use super::SourceFile;
use crate::bytes::{half, long, quad};
use crate::error::LoadError;

/// The first bytes of every ELF file.
pub(crate) const MAGIC: &[u8] = b"\x7fELF";

/// The loadable segments and the entry of a kernel; there is at least one segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ElfImage {
    segments: Vec<Segment>,
    entry: ElfEntry,
}

/// Physical address of the first instruction, and what state it expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElfEntry {
    /// 32-bit, as PVH wants it.
    Pvh(u64),
    /// 64-bit, as the Linux boot protocol wants it.
    Linux64(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    /// The virtual address that its code expects to be at.
    linked_at: u64,
    file_size: u64,
    end: u64,
}

impl ElfImage {
    /// Reads headers and notes of a 64-bit little-endian x86-64 executable.
    pub(crate) fn parse(file: &mut SourceFile<'_>) -> Result<Self, LoadError> {
        let mut header = [0; 64];
        let count = file.read_at(0, &mut header)?;
        if count < header.len() {
            return Err(truncated(file, 64));
        }
        if header[4..6] != [2, 1] || half(&header, 18) != X86_64 {
            return Err(not_bootable(file, "an ELF file, but not for x86-64"));
        }
        let (table, entry_size, entries) = (quad(&header, 32), half(&header, 54), half(&header, 56));
        if entry_size != 56 || entries == 0 || entries > MAX_SEGMENTS {
            return Err(not_bootable(
                file,
                "an ELF file without a usable program header table",
            ));
        }
        let mut raw = vec![0; usize::from(entries) * 56];
        let end = table.saturating_add(raw.len() as u64);
        if end > file.size() || file.read_at(table, &mut raw)? < raw.len() {
            return Err(truncated(file, end));
        }
        let mut segments = Vec::new();
        for raw in raw.chunks_exact(56) {
            let segment =
                Segment::parse(raw).ok_or_else(|| not_bootable(file, "an ELF segment wraps around"))?;
            match segment.kind {
                LOAD | NOTE if segment.offset.saturating_add(segment.file_size) > file.size() => {
                    return Err(truncated(file, segment.offset.saturating_add(segment.file_size)));
                }
                LOAD | NOTE => segments.push(segment),
                _ => {}
            }
        }
        let noted = find_entry(file, &segments)?;
        segments.retain(|segment| segment.kind == LOAD && segment.end > segment.address);
        let own = quad(&header, 24);
        let at = |entry: u64| {
            let mut holding = segments.iter();
            holding.find(|segment| (segment.address..segment.end).contains(&entry))
        };
        let entry = match (noted, at(noted.unwrap_or(own))) {
            (Some(_), None) => return Err(not_bootable(file, "its PVH entry lies outside its segments")),
            (Some(entry), Some(_)) => ElfEntry::Pvh(entry),
            // A program has the entry of a program; a kernel is linked to the upper half and entered at a physical address.
            (None, Some(segment)) if segment.linked_at >= UPPER_HALF => ElfEntry::Linux64(own),
            (None, _) => {
                let reason = "an ELF file without a PVH entry note or Linux's 64-bit entry";
                return Err(not_bootable(file, reason));
            }
        };
        Ok(Self { segments, entry })
    }

    /// Where and how it is entered.
    pub(crate) fn entry(&self) -> ElfEntry {
        self.entry
    }

    /// The lowest address that it takes.
    pub(crate) fn start(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.address)
            .min()
            .unwrap_or(0)
    }

    /// The address behind the last byte that it takes.
    pub(crate) fn end(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).max().unwrap_or(0)
    }

    /// Copies the segments; what a segment has in memory but not in the file stays as it is, zero in fresh memory.
    pub(crate) fn copy_to(&self, file: &mut SourceFile<'_>, memory: &GuestMemory) -> Result<(), LoadError> {
        for segment in &self.segments {
            file.copy_to(
                segment.offset,
                segment.file_size,
                memory,
                GuestAddress(segment.address),
            )?;
        }
        Ok(())
    }
}

impl Segment {
    fn parse(raw: &[u8]) -> Option<Self> {
        let (address, file_size, memory_size) = (quad(raw, 24), quad(raw, 32), quad(raw, 40));
        let end = address.checked_add(memory_size.max(file_size))?;
        Some(Self {
            kind: long(raw, 0),
            offset: quad(raw, 8),
            address,
            linked_at: quad(raw, 16),
            file_size,
            end,
        })
    }
}

/// The 32-bit physical entry in the first Xen note of type 18.
fn find_entry(file: &mut SourceFile<'_>, segments: &[Segment]) -> Result<Option<u64>, LoadError> {
    for segment in segments.iter().filter(|segment| segment.kind == NOTE) {
        let mut notes = vec![0; segment.file_size.min(MAX_NOTES) as usize];
        let count = file.read_at(segment.offset, &mut notes)?;
        let mut rest = &notes[..count];
        while rest.len() >= 12 {
            let (name_size, size, kind) = (long(rest, 0) as usize, long(rest, 4) as usize, long(rest, 8));
            let name = rest.get(12..12 + name_size.min(MAX_NOTES as usize));
            let at = 12 + name_size.min(MAX_NOTES as usize).next_multiple_of(4);
            if kind == XEN_PHYS32_ENTRY && name == Some(b"Xen\0") && size >= 4 && rest.len() >= at + 4 {
                return Ok(Some(u64::from(long(rest, at))));
            }
            rest = rest
                .get(at + size.min(MAX_NOTES as usize).next_multiple_of(4)..)
                .unwrap_or_default();
        }
    }
    Ok(None)
}

fn not_bootable(file: &SourceFile<'_>, reason: &str) -> LoadError {
    LoadError::NotBootable {
        name: file.name().to_owned(),
        reason: reason.to_owned(),
    }
}

fn truncated(file: &SourceFile<'_>, needed: u64) -> LoadError {
    LoadError::Truncated {
        name: file.name().to_owned(),
        size: file.size(),
        needed,
    }
}

const X86_64: u16 = 62;
const LOAD: u32 = 1;
const NOTE: u32 = 4;
const XEN_PHYS32_ENTRY: u32 = 18;
/// Kernel addresses on x86-64.
const UPPER_HALF: u64 = 1 << 63;
const MAX_SEGMENTS: u16 = 128;
const MAX_NOTES: u64 = 64 << 10;
