//! Partition tables of every kind, damaged ones among them, and qcow2 images made by qemu-img.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use gpt::disk::LogicalBlockSize;
use pellucid_image::{BootDisk, DiskImage};
use support::tools::run;
use support::{DiskRecipe, plan};

const MIB: usize = 1 << 20;

fn server() -> DiskRecipe {
    DiskRecipe::default().entry("debian.conf", "title Debian\noptions ro")
}

fn notes(disk: &[u8]) -> Vec<String> {
    BootDisk::new("disk.img", Cursor::new(disk))
        .unwrap()
        .notes()
        .to_vec()
}

/// Sets one of the four entries of the table in `sector`.
fn slot(sector: &mut [u8], index: usize, kind: u8, start: u32, count: u32) {
    let at = 446 + 16 * index;
    sector[at + 4] = kind;
    sector[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
    sector[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
}

/// The same ESP at 1 MiB, without a GUID table.
fn without_table(recipe: &DiskRecipe) -> Vec<u8> {
    let mut disk = recipe.build();
    disk[..MIB].fill(0);
    let end = disk.len() - 34 * 4096;
    disk[end..].fill(0);
    disk
}

#[test]
fn a_damaged_primary_table_is_said_and_its_backup_read() {
    for block in [LogicalBlockSize::Lb512, LogicalBlockSize::Lb4096] {
        let size: u64 = block.into();
        let esp_mebibytes = if size == 512 { 2 } else { 32 };
        let recipe = DiskRecipe {
            block,
            esp_mebibytes,
            ..server()
        };
        let good = recipe.build();
        assert!(notes(&good).is_empty());
        // The header's checksum, an entry's checksum, all of the first sectors.
        for damage in [
            size as usize + 20..size as usize + 24,
            2 * size as usize..2 * size as usize + 8,
            0..3 * size as usize,
        ] {
            let mut disk = good.clone();
            disk[damage.clone()].fill(0xa5);
            assert_eq!(plan(&disk).unwrap().title, "Debian", "{size}: {damage:?}");
            let notes = notes(&disk);
            assert!(
                notes.len() == 1 && notes[0].contains("backup") && notes[0].contains("sgdisk"),
                "{size}: {notes:?}"
            );
        }
    }
}

#[test]
fn with_both_copies_of_the_table_damaged_the_disk_is_refused() {
    let mut disk = server().build();
    slot(&mut disk[..512], 0, 0xee, 1, 0xffff_ffff);
    assert_eq!(plan(&disk).unwrap().title, "Debian");
    let end = disk.len();
    disk[512..1024].fill(0);
    disk[end - 512..].fill(0);
    let text = plan(&disk).unwrap_err().to_string();
    assert!(
        text.contains("neither its primary nor its backup header"),
        "{text}"
    );
}

#[test]
fn an_esp_in_an_mbr_table_is_found_with_sectors_of_either_size() {
    for (block, esp_mebibytes) in [(512, 2), (4096, 32)] {
        let lb = if block == 512 {
            LogicalBlockSize::Lb512
        } else {
            LogicalBlockSize::Lb4096
        };
        let mut disk = without_table(&DiskRecipe {
            block: lb,
            esp_mebibytes,
            ..server()
        });
        slot(
            &mut disk[..512],
            0,
            0xef,
            (MIB / block) as u32,
            ((esp_mebibytes << 20) / block as u64) as u32,
        );
        assert_eq!(plan(&disk).unwrap().title, "Debian", "{block}");
        assert!(notes(&disk).is_empty());
    }
}

#[test]
fn an_esp_that_is_a_logical_partition_is_found() {
    let mut disk = without_table(&server());
    let disk_sectors = (disk.len() / 512) as u32;
    // The extended partition from sector 1000 on: an empty link, one that is passed over, the ESP's.
    slot(&mut disk[..512], 2, 0x0f, 1000, disk_sectors - 1000);
    slot(&mut disk[1000 * 512..][..512], 0, 0x83, 10, 20);
    slot(&mut disk[1000 * 512..][..512], 1, 0x05, 500, 100);
    slot(&mut disk[1500 * 512..][..512], 0, 0xef, 2048 - 1500, 2 * 2048);
    assert_eq!(plan(&disk).unwrap().title, "Debian");
    assert!(notes(&disk).is_empty());
}

#[test]
fn a_chain_of_logical_partitions_that_loops_or_leaves_the_disk_ends() {
    for next in [0, 500, 0xffff_0000] {
        let mut disk = without_table(&server());
        slot(&mut disk[..512], 0, 0xef, 2048, 4096);
        slot(&mut disk[..512], 1, 0x05, 100, 0xffff_ffff);
        slot(&mut disk[100 * 512..][..512], 1, 0x05, 500, 1);
        slot(&mut disk[600 * 512..][..512], 1, 0x05, next, 1);
        assert_eq!(plan(&disk).unwrap().title, "Debian");
        let notes = notes(&disk);
        assert!(
            notes.len() == 1 && notes[0].contains("chain of its logical partitions"),
            "{next}: {notes:?}"
        );
    }
    // As long a chain as the disk has room for.
    let mut disk = without_table(&server());
    slot(&mut disk[..512], 0, 0xef, 2048, 4096);
    slot(&mut disk[..512], 1, 0x05, 1, 0xffff_ffff);
    for link in 1..1500u32 {
        slot(&mut disk[link as usize * 512..][..512], 1, 0x05, link, 1);
    }
    assert!(notes(&disk)[0].contains("more than 256 links"));
}

#[test]
fn a_partition_behind_the_end_of_the_disk_is_not_read() {
    let mut disk = without_table(&server());
    slot(&mut disk[..512], 0, 0xef, 2048, 4096);
    slot(&mut disk[..512], 1, 0x83, 0xffff_ffff, 0xffff_ffff);
    assert!(notes(&disk)[0].contains("partition 2 reaches behind the end"));
    slot(&mut disk[..512], 0, 0xef, 2048, 0xffff_ffff);
    assert!(plan(&disk).is_err());
}

#[test]
fn remains_of_a_guid_table_are_no_table_where_an_mbr_is() {
    let mut disk = server().build();
    slot(&mut disk[..512], 0, 0x83, 2048, 4096);
    let text = plan(&disk).unwrap_err().to_string();
    assert!(text.contains("EFI system partition"), "{text}");
}

/// `disk` as a qcow2 image made by qemu-img; `None` without the tool.
fn qcow2(directory: &Path, disk: &[u8], options: &[&str]) -> Option<PathBuf> {
    let (raw, image) = (directory.join("disk.raw"), directory.join("disk.qcow2"));
    std::fs::write(&raw, disk).unwrap();
    let (from, to) = (raw.to_str().unwrap(), image.to_str().unwrap());
    let arguments = [&["convert", "-f", "raw", "-O", "qcow2"], options, &[from, to]].concat();
    run("qemu-img", &arguments).then_some(image)
}

#[test]
fn a_qcow2_image_is_the_disk_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let noise: Vec<u8> = (0..700_001u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let disk = server().with("noise", &noise).build();
    for options in [
        &[][..],
        &["-c"],
        &["-o", "compat=0.10"],
        &["-o", "cluster_size=512"],
        &["-c", "-o", "cluster_size=512"],
        &["-c", "-o", "cluster_size=2M"],
        &["-o", "lazy_refcounts=on,preallocation=metadata"],
    ] {
        let Some(path) = qcow2(directory.path(), &disk, options) else {
            return;
        };
        let before = std::fs::read(&path).unwrap();
        let mut whole = Vec::new();
        DiskImage::open(&path).unwrap().read_to_end(&mut whole).unwrap();
        assert!(whole == disk, "{options:?}");
        let boot = BootDisk::open(&path).unwrap();
        assert_eq!(boot.plan().unwrap().title, "Debian");
        assert_eq!(support::read_all(boot.file("noise").unwrap().unwrap()), noise);
        assert!(
            std::fs::read(&path).unwrap() == before,
            "the image was written to"
        );
    }
}

#[test]
fn an_image_that_continues_in_another_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("overlay.qcow2");
    let (base, data) = (directory.path().join("base"), directory.path().join("data"));
    std::fs::write(&base, vec![0; MIB]).unwrap();
    let name = |path: &Path| path.to_str().unwrap().to_owned();
    let backing = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        &name(&base),
        &name(&image),
    ];
    if !run("qemu-img", &backing) {
        return;
    }
    let text = BootDisk::open(&image).unwrap_err().to_string();
    assert!(
        text.contains("backing file") && text.contains("qemu-img convert"),
        "{text}"
    );
    let option = format!("data_file={}", name(&data));
    run(
        "qemu-img",
        &["create", "-q", "-f", "qcow2", "-o", &option, &name(&image), "1M"],
    );
    let text = BootDisk::open(&image).unwrap_err().to_string();
    assert!(text.contains("external data file"), "{text}");
    run(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "extended_l2=on",
            &name(&image),
            "1M",
        ],
    );
    assert!(
        BootDisk::open(&image)
            .unwrap_err()
            .to_string()
            .contains("not known")
    );
    if run(
        "qemu-img",
        &[
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-c",
            "-o",
            "compression_type=zstd",
            &name(&base),
            &name(&image),
        ],
    ) {
        assert!(BootDisk::open(&image).unwrap_err().to_string().contains("zstd"));
    }
}

/// An image without data: header, one table.
fn header(cluster_bits: u32, size: u64, tables: u32) -> Vec<u8> {
    let mut image = vec![0; 4 << 16];
    image[..4].copy_from_slice(b"QFI\xfb");
    image[4..8].copy_from_slice(&3u32.to_be_bytes());
    image[20..24].copy_from_slice(&cluster_bits.to_be_bytes());
    image[24..32].copy_from_slice(&size.to_be_bytes());
    image[36..40].copy_from_slice(&tables.to_be_bytes());
    image[40..48].copy_from_slice(&(1u64 << 16).to_be_bytes());
    image[100..104].copy_from_slice(&104u32.to_be_bytes());
    image
}

#[test]
fn giant_tables_and_entries_that_lead_astray_cost_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hostile.qcow2");
    let refusal = |image: &[u8]| {
        std::fs::write(&path, image).unwrap();
        BootDisk::open(&path).unwrap_err().to_string()
    };
    for (bits, size, tables, word) in [
        (16, 1 << 30, u32::MAX, "first level table"),
        (16, u64::MAX, 1 << 22, "first level table"),
        (9, 1 << 40, 1 << 20, "first level table"),
        (8, 1 << 20, 1, "cluster size"),
        (31, 1 << 20, 1, "cluster size"),
    ] {
        let text = refusal(&header(bits, size, tables));
        assert!(text.contains(word), "{bits} {size} {tables}: {text}");
    }
    assert!(refusal(&header(16, 1 << 30, 2)[..60]).contains("cut off"));
    // 2^61 bytes, all zero, in a file of 256 KiB.
    assert!(refusal(&header(21, 1 << 61, 1 << 22)).contains("no partition table"));
    // A table that is its own second level, one behind the end of the file, a cluster compressed from nothing.
    let entries = [1u64 << 16, 0x00ff_ffff_ffff_fe00, 1 << 62 | 0x3_ffff, u64::MAX];
    for entry in entries {
        let mut image = header(16, 1 << 29, 1);
        image[1 << 16..(1 << 16) + 8].copy_from_slice(&(2u64 << 16).to_be_bytes());
        for at in (2 << 16..3 << 16).step_by(8) {
            image[at..at + 8].copy_from_slice(&entry.to_be_bytes());
        }
        std::fs::write(&path, &image).unwrap();
        assert!(BootDisk::open(&path).is_err(), "{entry:#x}");
        let mut disk = DiskImage::open(&path).unwrap();
        disk.seek(SeekFrom::Start((1 << 29) - 5)).unwrap();
        let _ = disk.read(&mut [0; 10]);
    }
}
