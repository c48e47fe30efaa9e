//! A sound disk for fuzzers of what lies on it: an ESP of 1 MiB, and room for a second partition.

use std::io::{Cursor, Write};

use gpt::disk::LogicalBlockSize;
use gpt::{GptConfig, partition_types};

pub const ESP: usize = 64 << 10;
pub const SECOND: usize = ESP + (1 << 20);

/// A disk whose ESP has these files, with `room` bytes for the second partition.
pub fn disk(files: &[(&str, &[u8])], room: usize) -> Vec<u8> {
    let mut disk = vec![0; SECOND + room + (64 << 10)];
    let mut esp = Cursor::new(&mut disk[ESP..SECOND]);
    let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat12);
    fatfs::format_volume(&mut esp, options).expect("a volume fits");
    let system = fatfs::FileSystem::new(esp, fatfs::FsOptions::new()).expect("it was made just now");
    for (path, content) in files {
        let mut directory = system.root_dir();
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
            directory = directory.create_dir(folder).expect("there is room");
        }
        let mut file = directory.create_file(name).expect("there is room");
        file.write_all(content).expect("there is room");
    }
    drop(system);
    let config = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512);
    let mut table = config
        .create_from_device(Cursor::new(&mut disk[..]), None)
        .expect("a table fits");
    let kind = partition_types::EFI;
    table
        .add_partition_at("ESP", 1, ESP as u64 / 512, 2048, kind, 0)
        .expect("a partition fits");
    if room > 0 {
        let (start, kind) = (SECOND as u64 / 512, partition_types::LINUX_FS);
        table
            .add_partition_at("root", 2, start, room as u64 / 512, kind, 0)
            .expect("a partition fits");
    }
    table.write().expect("memory takes a write");
    disk
}
