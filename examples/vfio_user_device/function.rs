//! What kind of PCI function the engine is: its configuration space, BARs and interrupts.

use std::fs::File;
use std::os::fd::AsRawFd;

use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_EVENTFD, VFIO_REGION_INFO_FLAG_MMAP, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info, vfio_region_sparse_mmap_area,
};
use vfio_user::{IrqInfo, ServerRegion, SparseArea};

/// Regions by number: BAR 0 to 5, ROM, configuration space, VGA.
pub(crate) const REGISTERS: u32 = 0;
pub(crate) const MEMORY: u32 = 2;
pub(crate) const VECTORS: u32 = 4;
pub(crate) const CONFIG: u32 = 7;
/// Bytes of the engine's own memory, BAR 2.
pub(crate) const MEMORY_SIZE: u64 = 64 << 10;
/// Bytes of configuration space.
pub(crate) const CONFIG_SIZE: usize = 0x1000;
/// Where the status of its uncorrectable and of its correctable errors is (PCI Express 6.0, 7.8.4).
pub(crate) const UNCORRECTABLE: usize = 0x104;
pub(crate) const CORRECTABLE: usize = 0x110;
/// Interrupts by kind: line, MSI, MSI-X, error, request.
pub(crate) const MSIX: u32 = 2;
pub(crate) const ERROR: u32 = 3;
pub(crate) const REQUEST: u32 = 4;

/// Configuration space as after a reset (PCI 3.0, 6.1 and 6.8.2).
pub(crate) fn config() -> [u8; CONFIG_SIZE] {
    let mut config = [0; CONFIG_SIZE];
    let mut put = |at: usize, bytes: &[u8]| config[at..at + bytes.len()].copy_from_slice(bytes);
    // Vendor and device, capabilities present, revision and class: a DMA controller.
    put(0x00, &[0x36, 0x1b, 0xe0, 0xd0]);
    put(0x06, &[0x10]);
    put(0x08, &[0x01, 0x00, 0x01, 0x08]);
    // BAR 2 is 64-bit and prefetchable.
    put(0x18, &[0x0c]);
    put(0x2c, &[0x36, 0x1b, 0x01, 0x00]);
    put(0x34, &[0x40]);
    // MSI-X: two vectors, table at 0 of BAR 4, pending bits at 0x800 of it.
    put(
        0x40,
        &[
            0x11, 0x00, 0x01, 0x00, 0x04, 0x00, 0x00, 0x00, 0x04, 0x08, 0x00, 0x00,
        ],
    );
    // Advanced error reporting, the only extended capability.
    put(0x100, &[0x01, 0x00, 0x01, 0x00]);
    config
}

pub(crate) fn regions(memory: &File) -> Vec<ServerRegion> {
    let region = |index: u32| {
        let size = match index {
            REGISTERS | VECTORS => 0x1000,
            MEMORY => MEMORY_SIZE,
            CONFIG => CONFIG_SIZE as u64,
            _ => 0,
        };
        let mut flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
        let (mut sparse_areas, mut mmap_fd) = (Vec::new(), None);
        if index == MEMORY {
            flags |= VFIO_REGION_INFO_FLAG_MMAP;
            let area = vfio_region_sparse_mmap_area { offset: 0, size };
            sparse_areas.push(SparseArea { area });
            mmap_fd = Some(memory.as_raw_fd());
        }
        let region_info = vfio_region_info {
            argsz: size_of::<vfio_region_info>() as u32,
            flags,
            index,
            size,
            ..Default::default()
        };
        ServerRegion {
            region_info,
            sparse_areas,
            mmap_fd,
        }
    };
    (0..9).map(region).collect()
}

pub(crate) fn interrupts() -> Vec<IrqInfo> {
    let kind = |index| IrqInfo {
        index,
        flags: VFIO_IRQ_INFO_EVENTFD,
        count: match index {
            MSIX => 2,
            ERROR | REQUEST => 1,
            _ => 0,
        },
    };
    (0..5).map(kind).collect()
}
