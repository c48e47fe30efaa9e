//! A disk's partition table. Checksums are made right first, so that the fuzzer gets behind them.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use pellucid_image::BootDisk;

fuzz_target!(|bytes: &[u8]| {
    let mut disk = bytes.to_vec();
    for block in [512, 4096] {
        repair(&mut disk, block);
    }
    if let Ok(disk) = BootDisk::new("fuzz", Cursor::new(disk)) {
        let _ = disk.plan();
    }
});

/// Writes the checksums of the header in block 1 and of the entries that it points at.
fn repair(disk: &mut [u8], block: usize) {
    let Some(header) = disk.get(block..block + 92) else {
        return;
    };
    let long =
        |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let (start, size) = (long(72).saturating_mul(block), long(80).saturating_mul(128));
    if let Some(entries) = disk.get(start..start.saturating_add(size)) {
        let sum = crc32(entries).to_le_bytes();
        disk[block + 88..block + 92].copy_from_slice(&sum);
    }
    disk[block + 16..block + 20].fill(0);
    let sum = crc32(&disk[block..block + 92]).to_le_bytes();
    disk[block + 16..block + 20].copy_from_slice(&sum);
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}
