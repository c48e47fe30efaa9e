//! One region of guest RAM: a memory file of its own, mapped, advised and bound to its nodes, and not yet populated.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};
use vm_memory::{FileOffset, GuestAddress};

use crate::address::HostAddress;
use crate::error::MemoryError;
use crate::layout::Layout;
use crate::spec::PageSize;
use crate::step::step;
use crate::sys::pages::{Advice, advise, bind};
use crate::sys::ram::{RamMapping, RamRegion};

/// What a region of RAM is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionSpec {
    /// Where the guest sees it.
    pub guest: GuestAddress,
    /// Bytes, whole pages.
    pub size: u64,
    /// The pages that back it.
    pub pages: PageSize,
    /// The node from which the pages of a range of guest addresses must come. What no range names comes from any node.
    pub nodes: Vec<(Range<u64>, u32)>,
}

/// One contiguous piece of guest RAM, as subscribers see it. The memory stays mapped while this lives.
#[derive(Debug, Clone)]
pub struct Region {
    /// Where the guest sees it.
    pub guest: GuestAddress,
    /// Bytes.
    pub size: u64,
    /// Where it is mapped in this process; valid while the region is attached.
    pub host: HostAddress,
    pub(crate) mapping: Arc<RamMapping>,
    file: Arc<File>,
}

impl RegionSpec {
    /// `size` bytes at `guest` in ordinary pages of any node.
    #[must_use]
    pub fn new(guest: GuestAddress, size: u64) -> Self {
        Self {
            guest,
            size,
            pages: PageSize::Size4K,
            nodes: Vec::new(),
        }
    }

    /// All RAM of `layout`, in pages of the given size; a range of `nodes` is bound in every region that it reaches into.
    #[must_use]
    pub fn of_layout(layout: &Layout, pages: PageSize, nodes: &[(Range<u64>, u32)]) -> Vec<Self> {
        let of = |ram: Range<u64>| Self {
            guest: GuestAddress(ram.start),
            size: ram.end - ram.start,
            pages,
            nodes: nodes
                .iter()
                .filter_map(|(part, node)| Some((overlap(&ram, part)?, *node)))
                .collect(),
        };
        let ranges = layout.ram().iter().map(|ram| ram.start..ram.end);
        ranges.map(of).collect()
    }

    fn check(&self) -> Result<(), MemoryError> {
        let (guest, size, page) = (self.guest.0, self.size, self.pages.bytes());
        let whole = |address: u64| address.is_multiple_of(page);
        let end = guest.checked_add(size).filter(|end| *end <= 1 << 63);
        let inside = |part: &Range<u64>| {
            guest <= part.start && part.start < part.end && end.is_some_and(|end| part.end <= end)
        };
        let parts = self.nodes.iter().map(|(part, _)| part);
        let good = size > 0
            && whole(size)
            && guest.is_multiple_of(PageSize::Size4K.bytes())
            && end.is_some()
            && parts
                .clone()
                .all(|part| inside(part) && whole(part.start - guest) && whole(part.end - guest));
        match good {
            true => Ok(()),
            false => Err(MemoryError::Shape {
                guest,
                size,
                pages: self.pages,
            }),
        }
    }
}

impl RamRegion {
    /// Maps a memory file named `name` (in `/proc/PID/maps`), bound to its nodes and advised to be in huge pages. Nothing is populated.
    pub fn map(name: &str, spec: &RegionSpec) -> Result<Self, MemoryError> {
        spec.check()?;
        let size = spec.size;
        let file = Arc::new(memfd(name, size, spec.pages)?);
        let whole = FileOffset::from_arc(file, 0);
        // Here pages of the hugetlb pool become spoken for.
        let mapped = step("map guest memory", || {
            RamMapping::of(&whole, size as usize, spec.pages)
        });
        let mapping = mapped.map_err(|error| MemoryError::Map {
            size,
            source: error.into(),
        })?;
        for (part, node) in &spec.nodes {
            let (offset, size) = (part.start - spec.guest.0, part.end - part.start);
            let bound = bind(&mapping, offset as usize, size as usize, *node);
            bound.map_err(|source| MemoryError::Bind { node: *node, source })?;
        }
        if spec.pages == PageSize::Size4K {
            // Advice before the first touch; a kernel without transparent huge pages refuses it, which costs speed only.
            if let Err(error) = advise(&mapping, 0, size as usize, Advice::HugePages) {
                tracing::debug!(%error, "no transparent huge pages");
            }
        }
        Ok(Self::new(spec.clone(), whole, Arc::new(mapping)))
    }
}

impl Region {
    pub(super) fn of(ram: &RamRegion) -> Self {
        let spec = ram.spec();
        Self {
            guest: spec.guest,
            size: spec.size,
            host: HostAddress(ram.mapping().as_ptr() as u64),
            mapping: Arc::clone(ram.mapping()),
            file: Arc::clone(ram.file()),
        }
    }

    /// The memory file, for a device in another process: it holds this region and nothing else, and is sealed at its size.
    #[must_use]
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }
}

/// What two ranges have in common, if anything.
fn overlap(one: &Range<u64>, other: &Range<u64>) -> Option<Range<u64>> {
    let both = one.start.max(other.start)..one.end.min(other.end);
    (!both.is_empty()).then_some(both)
}

fn memfd(name: &str, size: u64, pages: PageSize) -> Result<File, MemoryError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let flags = match pages {
        PageSize::Size4K => flags,
        PageSize::Size2M => flags | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        PageSize::Size1G => flags | MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
    };
    let failed = |source: std::io::Error| MemoryError::Memfd { size, pages, source };
    let file = File::from(rustix::fs::memfd_create(name, flags).map_err(|e| failed(e.into()))?);
    file.set_len(size).map_err(failed)?;
    // Another process may be given the file: a shorter one would be SIGBUS here, whoever reads guest memory.
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(|error| failed(error.into()))?;
    Ok(file)
}
