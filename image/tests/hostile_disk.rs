//! Damaged and malicious disks: every answer is a plan or a refusal, soon, and never a panic.

mod support;

use std::io::{Cursor, Read};
use std::sync::OnceLock;

use pellucid_image::{BootDisk, LoaderEntry, compare_versions};
use proptest::prelude::*;
use support::DiskRecipe;

/// Reads everything that a boot would read.
fn boot(disk: &[u8]) {
    let Ok(boot) = BootDisk::new("disk.img", Cursor::new(disk)) else {
        return;
    };
    let Ok(plan) = boot.plan() else { return };
    for path in [&plan.kernel].into_iter().chain(&plan.initrds) {
        if let Ok(Some(file)) = boot.open_file(path) {
            let _ = file.take(1 << 20).read_to_end(&mut Vec::new());
        }
    }
}

fn good_disk() -> &'static [u8] {
    static DISK: OnceLock<Vec<u8>> = OnceLock::new();
    let entry = "title A\nsort-key a\nversion 1\ninitrd /dir/initrd\noptions ro";
    let recipe = DiskRecipe::default()
        .entry("a long name.conf", entry)
        .with("dir/initrd", [7; 5000]);
    DISK.get_or_init(|| recipe.with("loader/loader.conf", "default a*\n").build())
}

/// Offset of the first allocation table: the ESP lies at 1 MiB.
fn table(disk: &[u8]) -> usize {
    (1 << 20) + usize::from(u16::from_le_bytes([disk[(1 << 20) + 14], disk[(1 << 20) + 15]])) * 512
}

#[test]
fn a_cluster_chain_that_loops_is_refused() {
    let mut disk = good_disk().to_vec();
    let table = table(&disk);
    // FAT12: clusters 2 and 3 point at each other, and so do all after them.
    for pair in disk[table + 3..table + 1500].chunks_exact_mut(3) {
        pair.copy_from_slice(&[0x03, 0x20, 0x00]);
    }
    let answer = BootDisk::new("disk.img", Cursor::new(&disk)).unwrap().plan();
    assert!(answer.is_err(), "{answer:?}");
}

#[test]
fn a_chain_that_leaves_the_volume_is_refused_by_the_files_name() {
    let mut disk = good_disk().to_vec();
    let table = table(&disk);
    disk[table + 3..table + 1500].fill(0xf0);
    let text = BootDisk::new("disk.img", Cursor::new(&disk))
        .unwrap()
        .plan()
        .unwrap_err()
        .to_string();
    assert!(text.contains("disk.img: ") && text.contains("cluster"), "{text}");
}

#[test]
fn a_partition_behind_the_end_of_a_truncated_disk_is_refused() {
    let text = BootDisk::new("disk.img", Cursor::new(&good_disk()[..2 << 20]))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("partition table cannot be read") && text.contains("end of the disk"),
        "{text}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damage_anywhere_near_the_structures_is_survived(
        damage in prop::collection::vec((0usize..3, 0usize..16_384, any::<u8>()), 1..24),
    ) {
        let mut disk = good_disk().to_vec();
        for (place, offset, value) in damage {
            // The GPT with its checksums, the boot sector and tables, the directories and files.
            let base = [512, 1 << 20, (1 << 20) + 16_384][place];
            disk[base + offset] = value;
        }
        boot(&disk);
    }

    #[test]
    fn a_table_with_any_header_and_a_right_checksum_is_survived(
        fields in any::<(u64, u64, u64, u64, u32, u32)>(), size in prop::sample::select(vec![0u32, 128, 256, u32::MAX]),
    ) {
        let mut disk = good_disk().to_vec();
        let header = &mut disk[512..604];
        for (at, value) in [(24, fields.0), (40, fields.1), (48, fields.2), (72, fields.3)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[80..84].copy_from_slice(&fields.4.to_le_bytes());
        header[84..88].copy_from_slice(&size.to_le_bytes());
        header[16..20].fill(0);
        let checksum = crc32(header);
        header[16..20].copy_from_slice(&checksum.to_le_bytes());
        let end = disk.len();
        disk[end - 512..].fill(0);
        boot(&disk);
    }

    #[test]
    fn any_boot_sector_is_survived(sector in prop::collection::vec(any::<u8>(), 62), size in 0usize..4) {
        let mut disk = good_disk().to_vec();
        disk[(1 << 20)..(1 << 20) + 62].copy_from_slice(&sector);
        disk[(1 << 20) + 11..(1 << 20) + 13].copy_from_slice(&(512u16 << size).to_le_bytes());
        disk[(1 << 20) + 13] = 1 << (sector[0] % 8);
        boot(&disk);
    }

    #[test]
    fn any_bytes_are_an_entry_or_none(content in prop::collection::vec(any::<u8>(), 0..400), name in ".{0,30}") {
        if let Some(entry) = LoaderEntry::parse(&format!("{name}.conf"), &content) {
            prop_assert!(!entry.command_line().contains(['\n', '\r', '\0']));
        }
    }

    #[test]
    fn comparing_versions_is_antisymmetric_and_reflexive(a in "[a-z0-9.~^ -]{0,16}", b in "[a-z0-9.~^ -]{0,16}") {
        prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
        prop_assert_eq!(compare_versions(&a, &a), std::cmp::Ordering::Equal);
    }
}

/// CRC-32 as the partition table uses it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |mut crc, &byte| {
        crc ^= u32::from(byte);
        (0..8).for_each(|_| {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        });
        crc
    })
}
