//! Disks and kernels made in memory: no tool, no mount, no privilege. fatfs and gpt write what the product reads.
#![allow(dead_code, reason = "each test target uses its part of it")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

pub(crate) mod firmware;
pub(crate) mod initrd;
pub(crate) mod machine;
pub(crate) mod tools;

use std::io::{Cursor, Read, Seek, SeekFrom, Write};

use fatfs::{FatType, FormatVolumeOptions, FsOptions};
use gpt::disk::LogicalBlockSize;
use gpt::{GptConfig, partition_types};
use linux_loader::loader::bootparam::setup_header;
use pellucid_image::{BootDisk, BootFile, BootPlan, DiscoverError};
use vm_memory::ByteValued;

/// What a disk is made of.
pub(crate) struct DiskRecipe {
    pub(crate) block: LogicalBlockSize,
    pub(crate) fat: FatType,
    pub(crate) esp_mebibytes: u64,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Files of an extended boot loader partition; without any there is none.
    pub(crate) extended: Vec<(String, Vec<u8>)>,
}

impl Default for DiskRecipe {
    fn default() -> Self {
        Self {
            block: LogicalBlockSize::Lb512,
            fat: FatType::Fat12,
            esp_mebibytes: 2,
            files: Vec::new(),
            extended: Vec::new(),
        }
    }
}

impl DiskRecipe {
    pub(crate) fn with(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.push((path.to_owned(), content.as_ref().to_vec()));
        self
    }

    /// An entry `name` for a kernel that is there.
    pub(crate) fn entry(self, name: &str, lines: &str) -> Self {
        self.with(
            &format!("loader/entries/{name}"),
            format!("{lines}\nlinux /vmlinuz\n"),
        )
        .with("vmlinuz", KERNEL)
    }

    /// The file `path` on XBOOTLDR.
    pub(crate) fn on_extended(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.extended.push((path.to_owned(), content.as_ref().to_vec()));
        self
    }

    /// The bytes of the disk: a table with one ESP, 1 MiB from its start, and XBOOTLDR behind it if it has files.
    pub(crate) fn build(&self) -> Vec<u8> {
        let esp = self.volume(&self.files);
        let mut disk = vec![0; 2 * esp.len() + (2 << 20)];
        disk[MIB..MIB + esp.len()].copy_from_slice(&esp);
        let kind = partition_types::EFI;
        partition(&mut disk, self.block, kind, esp.len() as u64);
        if !self.extended.is_empty() {
            let start = MIB + esp.len();
            disk[start..start + esp.len()].copy_from_slice(&self.volume(&self.extended));
            let config = GptConfig::new().writable(true).logical_block_size(self.block);
            let mut table = config.open_from_device(Cursor::new(&mut disk[..])).unwrap();
            let (lba, length) = (
                start as u64 / u64::from(self.block),
                esp.len() as u64 / u64::from(self.block),
            );
            let kind = partition_types::FREEDESK_BOOT;
            table
                .add_partition_at("XBOOTLDR", 2, lba, length, kind, 0)
                .unwrap();
            table.write().unwrap();
        }
        disk
    }

    fn volume(&self, files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut volume = vec![0; (self.esp_mebibytes as usize) << 20];
        let sector = if self.block == LogicalBlockSize::Lb512 {
            512
        } else {
            4096
        };
        let options = FormatVolumeOptions::new()
            .fat_type(self.fat)
            .bytes_per_cluster(sector)
            .bytes_per_sector(sector as u16);
        fatfs::format_volume(Cursor::new(&mut volume[..]), options).unwrap();
        let system = fatfs::FileSystem::new(Cursor::new(&mut volume[..]), FsOptions::new()).unwrap();
        for (path, content) in files {
            let mut directory = system.root_dir();
            let mut parts: Vec<&str> = path.split('/').collect();
            let name = parts.pop().unwrap();
            for part in parts {
                directory = directory.create_dir(part).unwrap();
            }
            directory.create_file(name).unwrap().write_all(content).unwrap();
        }
        drop(system);
        volume
    }
}

/// Writes a table with one partition of `size` bytes at 1 MiB.
pub(crate) fn partition(disk: &mut [u8], block: LogicalBlockSize, kind: partition_types::Type, size: u64) {
    let lba = MIB as u64 / u64::from(block);
    let config = GptConfig::new().writable(true).logical_block_size(block);
    let mut table = config.create_from_device(Cursor::new(disk), None).unwrap();
    table
        .add_partition_at("ESP", 1, lba, size / u64::from(block), kind, 0)
        .unwrap();
    table.write().unwrap();
}

/// A disk with the ESP of `recipe` (2 MiB, sectors of 512 bytes), and this file system as its second partition.
pub(crate) fn with_second(recipe: &DiskRecipe, system: &[u8]) -> Vec<u8> {
    let esp = recipe.volume(&recipe.files);
    let second = MIB + esp.len();
    let mut disk = vec![0; second + system.len() + MIB];
    disk[MIB..second].copy_from_slice(&esp);
    disk[second..second + system.len()].copy_from_slice(system);
    let config = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512);
    let mut table = config
        .create_from_device(Cursor::new(&mut disk[..]), None)
        .unwrap();
    let mut add = |name, id, start: usize, size: usize, kind| {
        let (start, size) = (start as u64 / 512, size as u64 / 512);
        table.add_partition_at(name, id, start, size, kind, 0).unwrap();
    };
    add("ESP", 1, MIB, esp.len(), partition_types::EFI);
    add("root", 2, second, system.len(), partition_types::LINUX_FS);
    table.write().unwrap();
    disk
}

/// What a disk in memory would boot.
pub(crate) fn plan(disk: &[u8]) -> Result<BootPlan, DiscoverError> {
    BootDisk::new("disk.img", Cursor::new(disk))?.plan()
}

/// A reader that fails the test when anything lies about its position.
pub(crate) fn read_all(mut file: impl Read + Seek) -> Vec<u8> {
    let size = file.seek(SeekFrom::End(0)).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    assert_eq!(content.len() as u64, size);
    content
}

/// The bytes of a boot file, through the loader of files.
pub(crate) fn read_file<R: Read + Seek>(disk: &BootDisk<R>, file: &BootFile) -> Vec<u8> {
    let mut opened = disk.open_file(file).unwrap().unwrap();
    let mut content = Vec::new();
    opened.read_to_end(&mut content).unwrap();
    assert_eq!(content.len() as u64, opened.size());
    content
}

/// An EFI program with these sections, as a linker lays it out: 512-byte file alignment, real sizes in the headers.
pub(crate) fn efi_program(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; 0x80];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x80;
    image.extend(b"PE\0\0\x64\x86");
    image.extend((sections.len() as u16).to_le_bytes());
    image.extend([0; 12]);
    image.extend([0xf0, 0, 0x22, 0, 0x0b, 0x02]);
    image.resize(0x80 + 24 + 0xf0, 0);
    let mut offset = (image.len() + sections.len() * 40).next_multiple_of(512);
    for (name, content) in sections {
        let mut header = [0; 40];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[8..12].copy_from_slice(&(content.len() as u32).to_le_bytes());
        let padded = content.len().next_multiple_of(512);
        header[16..20].copy_from_slice(&(padded as u32).to_le_bytes());
        header[20..24].copy_from_slice(&(offset as u32).to_le_bytes());
        image.extend(header);
        offset += padded;
    }
    for (_, content) in sections {
        image.resize(image.len().next_multiple_of(512), 0);
        image.extend(*content);
    }
    image.resize(image.len().next_multiple_of(512), 0);
    image
}

pub(crate) const KERNEL: &[u8] = b"a kernel";
const MIB: usize = 1 << 20;

/// A bzImage as small as one can be: one setup sector, 64 KiB of kernel that wants to be at 16 MiB and needs 8 MiB there.
pub(crate) fn small_kernel() -> Vec<u8> {
    let mut header = setup_header {
        setup_sects: 1,
        syssize: 0x1000,
        boot_flag: 0xaa55,
        jump: 0x6aeb,
        header: 0x5372_6448,
        version: 0x020f,
        loadflags: 1,
        initrd_addr_max: 0x7fff_ffff,
        kernel_alignment: 2 << 20,
        relocatable_kernel: 1,
        xloadflags: 1,
        cmdline_size: 2047,
        pref_address: 16 << 20,
        init_size: 8 << 20,
        ..setup_header::default()
    };
    let mut image = vec![0; 0x1f1];
    image.extend_from_slice(header.as_mut_slice());
    image.resize(1024, 0);
    image.extend((0..0x1_0000u32).map(|i| (i % 251) as u8));
    image
}
