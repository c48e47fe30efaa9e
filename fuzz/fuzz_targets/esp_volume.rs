//! A FAT volume as the EFI system partition of a sound disk: everything that a boot reads is read.
#![no_main]

use std::io::{Cursor, Read};
use std::sync::LazyLock;

use gpt::disk::LogicalBlockSize;
use gpt::{GptConfig, partition_types};
use libfuzzer_sys::fuzz_target;
use pellucid_image::BootDisk;

/// A disk with an ESP of 64 KiB, 64 KiB from its start.
static DISK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut disk = vec![0; 192 << 10];
    let config = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512);
    let mut table = config
        .create_from_device(Cursor::new(&mut disk[..]), None)
        .expect("a table fits");
    table
        .add_partition_at("ESP", 1, 128, 128, partition_types::EFI, 0)
        .expect("a partition fits");
    table.write().expect("memory takes a write");
    disk
});

fuzz_target!(|bytes: &[u8]| {
    let mut disk = DISK.clone();
    let size = bytes.len().min(64 << 10);
    disk[64 << 10..][..size].copy_from_slice(&bytes[..size]);
    let Ok(disk) = BootDisk::new("fuzz", Cursor::new(disk)) else {
        return;
    };
    let Ok(plan) = disk.plan() else { return };
    for path in [&plan.kernel].into_iter().chain(&plan.initrds) {
        if let Ok(Some(mut file)) = disk.open_file(path) {
            let size = file.size();
            let read = file
                .read_to_end(&mut Vec::new())
                .expect("an opened file lies on the disk");
            assert_eq!(read as u64, size);
        }
    }
});
