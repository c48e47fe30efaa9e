//! The start info of the PVH boot protocol (Xen's `start_info.h`), which `ebx` points at when a kernel is entered.

use std::ops::Range;

use pellucid_partition::Layout;

use super::memory_map::memory_map;

/// Start info, module list and memory map as one block for [`Layout::BOOT_PARAMS`].
pub(crate) fn start_info(initrd: &Range<u64>, layout: &Layout) -> Vec<u8> {
    let (base, map) = (Layout::BOOT_PARAMS.0, memory_map(layout));
    let modules = u32::from(initrd.end > initrd.start);
    let mut block = Vec::with_capacity(0x200);
    for word in [MAGIC, VERSION, 0, modules] {
        block.extend_from_slice(&word.to_le_bytes());
    }
    for address in [
        base + MODULES,
        Layout::COMMAND_LINE.0,
        Layout::ACPI.start,
        base + MAP,
    ] {
        block.extend_from_slice(&address.to_le_bytes());
    }
    block.extend_from_slice(&(map.len() as u32).to_le_bytes());
    block.resize(MODULES as usize, 0);
    for value in [initrd.start, initrd.end - initrd.start, 0, 0] {
        block.extend_from_slice(&value.to_le_bytes());
    }
    block.resize(MAP as usize, 0);
    for entry in map {
        block.extend_from_slice(&entry.start.to_le_bytes());
        block.extend_from_slice(&entry.size.to_le_bytes());
        block.extend_from_slice(&entry.kind.to_le_bytes());
        block.extend_from_slice(&[0; 4]);
    }
    block
}

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
const MODULES: u64 = 0x40;
const MAP: u64 = 0x80;
