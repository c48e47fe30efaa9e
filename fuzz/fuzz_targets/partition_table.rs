//! A disk's partition table. Checksums are made right first, so that the fuzzer gets behind them.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use pellucid_image::BootDisk;

fuzz_target!(|bytes: &[u8]| {
    let mut disk = bytes.to_vec();
    let primary = bytes.last().is_some_and(|byte| byte & 1 == 0);
    for block in [512, 4096] {
        let backup = disk.len() / block * block;
        repair(&mut disk, backup.saturating_sub(block), block);
        if primary {
            repair(&mut disk, block, block);
        }
    }
    if let Ok(disk) = BootDisk::new("fuzz", Cursor::new(disk)) {
        let _ = disk.plan();
    }
});

/// Writes the checksums of the header at `place` and of the entries that it points at.
fn repair(disk: &mut [u8], place: usize, block: usize) {
    let Some(header) = disk.get(place..place + 92) else {
        return;
    };
    let long =
        |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let (start, size) = (long(72).saturating_mul(block), long(80).saturating_mul(128));
    if let Some(entries) = disk.get(start..start.saturating_add(size)) {
        let sum = crc32(entries).to_le_bytes();
        disk[place + 88..place + 92].copy_from_slice(&sum);
    }
    disk[place + 16..place + 20].fill(0);
    let sum = crc32(&disk[place..place + 92]).to_le_bytes();
    disk[place + 16..place + 20].copy_from_slice(&sum);
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
