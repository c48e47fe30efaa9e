//! The boot parameters ("zero page", Documentation/arch/x86/zero-page.rst) of the 64-bit Linux boot protocol.

use std::ops::Range;

use pellucid_partition::{GuestAddress, Layout};

use super::memory_map::memory_map;

/// The 4,096 bytes that `rsi` points at when a kernel is entered; `setup` are the bytes of its setup header, from 0x1f1 on.
pub(crate) fn zero_page(setup: &[u8], load: GuestAddress, initrd: &Range<u64>, layout: &Layout) -> Vec<u8> {
    let mut page = vec![0; 4096];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, setup);
    put(TYPE_OF_LOADER, &[UNDEFINED_LOADER]);
    put(CODE32_START, &(load.0 as u32).to_le_bytes());
    put(COMMAND_LINE, &(Layout::COMMAND_LINE.0 as u32).to_le_bytes());
    let initrd_size = initrd.end - initrd.start;
    let initrd_start = if initrd_size == 0 { 0 } else { initrd.start };
    put(RAMDISK_IMAGE, &(initrd_start as u32).to_le_bytes());
    put(RAMDISK_SIZE, &(initrd_size as u32).to_le_bytes());
    put(EXT_RAMDISK_IMAGE, &((initrd_start >> 32) as u32).to_le_bytes());
    put(EXT_RAMDISK_SIZE, &((initrd_size >> 32) as u32).to_le_bytes());
    put(ACPI_RSDP, &Layout::ACPI.start.to_le_bytes());
    let map = memory_map(layout);
    put(E820_COUNT, &[map.len() as u8]);
    for (index, entry) in map.iter().enumerate() {
        let at = E820_TABLE + index * 20;
        put(at, &entry.start.to_le_bytes());
        put(at + 8, &entry.size.to_le_bytes());
        put(at + 16, &entry.kind.to_le_bytes());
    }
    page
}

/// The setup header of a kernel that has none in its file, an ELF vmlinux: what kernels look at for having been loaded properly.
pub(crate) fn setup_of_elf() -> Vec<u8> {
    let mut setup = vec![0; 0x268 - 0x1f1];
    let mut put = |at: usize, bytes: &[u8]| setup[at - 0x1f1..][..bytes.len()].copy_from_slice(bytes);
    put(0x1fe, &0xaa55u16.to_le_bytes());
    put(0x202, b"HdrS");
    put(0x206, &0x020cu16.to_le_bytes());
    put(0x211, &[LOADED_HIGH]);
    setup
}

const LOADED_HIGH: u8 = 1;
const ACPI_RSDP: usize = 0x70;
const EXT_RAMDISK_IMAGE: usize = 0xc0;
const EXT_RAMDISK_SIZE: usize = 0xc4;
const E820_COUNT: usize = 0x1e8;
const TYPE_OF_LOADER: usize = 0x210;
const CODE32_START: usize = 0x214;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const COMMAND_LINE: usize = 0x228;
const E820_TABLE: usize = 0x2d0;
/// A boot loader without an assigned number.
const UNDEFINED_LOADER: u8 = 0xff;
