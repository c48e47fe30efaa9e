//! The VFIO container: one I/O address space, in which memory is mapped for the devices of its groups.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::fd::AsFd;
use std::path::Path;

use pellucid_partition::{GuestAddress, HostAddress, Mapping, Region};

use crate::dma::Iommu;
use crate::peers::BarMapper;

use super::{Message, Plain, Request, exchange, exchange_growing, map_dma, plain};

/// An open container. Without a group it can do nothing.
#[derive(Debug)]
pub(crate) struct Container {
    pub(super) file: File,
}

/// What the IOMMU behind a container accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IovaLimits {
    /// Ranges in which I/O addresses may be mapped, inclusive. Empty: the kernel does not say.
    pub(crate) ranges: Vec<RangeInclusive<u64>>,
    /// How many more mappings are allowed; None: the kernel does not say.
    pub(crate) dma_avail: Option<u32>,
    /// One bit for each size of page that it maps; 0: the kernel does not say.
    pub(crate) page_sizes: u64,
}

impl Container {
    /// Opens the container node and checks that this kernel speaks the API that we do.
    pub(crate) fn open(node: &Path) -> io::Result<Container> {
        let file = OpenOptions::new().read(true).write(true).open(node)?;
        let version = plain(file.as_fd(), Plain::ApiVersion, 0)?;
        let type1v2 = plain(file.as_fd(), Plain::CheckExtension, TYPE1V2)?;
        if version != API_VERSION || type1v2 != 1 {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        Ok(Container { file })
    }

    /// Chooses the IOMMU backend; possible once a group is in.
    pub(crate) fn choose_iommu(&self) -> io::Result<()> {
        plain(self.file.as_fd(), Plain::SetIommu, TYPE1V2).map(|_| ())
    }

    /// What the IOMMU accepts, as the kernel reports it now.
    pub(crate) fn limits(&self) -> io::Result<IovaLimits> {
        let mut message = Message::new(24);
        exchange_growing(self.file.as_fd(), Request::IommuInfo, &mut message)?;
        let mut limits = IovaLimits {
            ranges: Vec::new(),
            dma_avail: None,
            page_sizes: 0,
        };
        if message.u32(4) & INFO_PGSIZES != 0 {
            limits.page_sizes = message.u64(8);
        }
        let first = if message.u32(4) & INFO_CAPS != 0 {
            message.u32(16)
        } else {
            0
        };
        for (id, at) in message.capabilities(first) {
            match id {
                CAP_IOVA_RANGE => {
                    let count = message.u32(at + 8).min(256) as usize;
                    limits.ranges.extend((0..count).map(|index| {
                        let entry = at + 16 + index * 16;
                        message.u64(entry)..=message.u64(entry + 8)
                    }));
                }
                CAP_DMA_AVAIL => limits.dma_avail = Some(message.u32(at + 8)),
                _ => {}
            }
        }
        Ok(limits)
    }

    fn map_at(&self, at: GuestAddress, host: HostAddress, size: u64) -> io::Result<()> {
        let mut message = Message::new(32);
        message.put_u32(4, MAP_READ | MAP_WRITE);
        message.put_u64(8, host.0);
        message.put_u64(16, at.0);
        message.put_u64(24, size);
        map_dma(self.file.as_fd(), &mut message)
    }

    fn unmap_at(&self, at: GuestAddress, size: u64) -> io::Result<()> {
        let mut message = Message::new(24);
        message.put_u64(8, at.0);
        message.put_u64(16, size);
        exchange(self.file.as_fd(), Request::UnmapDma, &mut message).map(|_| ())
    }
}

impl Iommu for Container {
    fn map_part(&self, region: &Region, part: Range<u64>) -> io::Result<()> {
        assert!(
            region.guest.0 <= part.start && part.end <= region.guest.0 + region.size && part.start < part.end,
            "a part of a region lies in it"
        );
        let host = HostAddress(region.host.0 + (part.start - region.guest.0));
        self.map_at(GuestAddress(part.start), host, part.end - part.start)
    }

    fn unmap(&self, region: &Region) -> io::Result<()> {
        self.unmap_at(region.guest, region.size)
    }
}

impl BarMapper for Container {
    fn map_bar(&self, at: GuestAddress, bar: &Mapping) -> io::Result<()> {
        self.map_at(at, bar.host(), bar.size() as u64)
    }

    fn unmap_bar(&self, at: GuestAddress, size: u64) -> io::Result<()> {
        self.unmap_at(at, size)
    }
}

const API_VERSION: i32 = vfio_bindings::bindings::vfio::VFIO_API_VERSION as i32;
const TYPE1V2: u64 = vfio_bindings::bindings::vfio::VFIO_TYPE1v2_IOMMU as u64;
const MAP_READ: u32 = vfio_bindings::bindings::vfio::VFIO_DMA_MAP_FLAG_READ;
const MAP_WRITE: u32 = vfio_bindings::bindings::vfio::VFIO_DMA_MAP_FLAG_WRITE;
const INFO_PGSIZES: u32 = vfio_bindings::bindings::vfio::VFIO_IOMMU_INFO_PGSIZES;
const INFO_CAPS: u32 = vfio_bindings::bindings::vfio::VFIO_IOMMU_INFO_CAPS;
const CAP_IOVA_RANGE: u16 = vfio_bindings::bindings::vfio::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE as u16;
/// `VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL` of linux/vfio.h.
const CAP_DMA_AVAIL: u16 = 3;
