//! What a disk would boot: chosen as its own boot loader chooses, or refused with the disk, the cause and a remedy.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::Cursor;

use fatfs::FatType;
use gpt::disk::LogicalBlockSize;
use gpt::partition_types;
use pellucid_image::BootDisk;
use support::{DiskRecipe, KERNEL, partition, plan, read_file};

fn refusal(disk: &[u8]) -> String {
    let text = plan(disk).unwrap_err().to_string();
    assert!(text.starts_with("disk.img: ") && !text.contains('\n'), "{text}");
    text
}

const DEBIAN: &str = "title Debian GNU/Linux 12 (bookworm)
version 6.1.0-50-amd64
machine-id 0123456789abcdef0123456789abcdef
sort-key debian
options root=UUID=a3c1 ro
options console=ttyS0
linux /debian/6.1.0-50-amd64/linux
initrd /debian/6.1.0-50-amd64/ucode.img
initrd /debian//6.1.0-50-amd64/initrd.img
";

fn debian() -> DiskRecipe {
    DiskRecipe::default()
        .with("loader/loader.conf", "timeout 3\n")
        .with("loader/entries/debian-6.1.0-50-amd64.conf", DEBIAN)
        .with("debian/6.1.0-50-amd64/linux", KERNEL)
        .with("debian/6.1.0-50-amd64/ucode.img", [1; 513])
        .with("debian/6.1.0-50-amd64/initrd.img", [2; 70_000])
}

#[test]
fn a_debian_disk_yields_kernel_initrds_and_the_command_line_its_loader_gives() {
    let disk = debian().build();
    let boot = BootDisk::new("disk.img", Cursor::new(&disk)).unwrap();
    let plan = boot.plan().unwrap();
    assert_eq!(plan.title, "Debian GNU/Linux 12 (bookworm)");
    assert_eq!(plan.kernel.to_string(), "esp:\\debian\\6.1.0-50-amd64\\linux");
    assert_eq!(
        plan.command_line,
        "initrd=\\debian\\6.1.0-50-amd64\\ucode.img initrd=\\debian\\6.1.0-50-amd64\\initrd.img root=UUID=a3c1 ro console=ttyS0"
    );
    assert_eq!(read_file(&boot, &plan.kernel), KERNEL);
    let contents: Vec<_> = plan
        .initrds
        .iter()
        .map(|initrd| read_file(&boot, initrd))
        .collect();
    assert_eq!(contents, [vec![1; 513], vec![2; 70_000]]);
}

#[test]
fn every_fat_width_and_sector_size_is_read() {
    for (fat, esp_mebibytes, block) in [
        (FatType::Fat12, 1, LogicalBlockSize::Lb512),
        (FatType::Fat16, 16, LogicalBlockSize::Lb512),
        (FatType::Fat32, 40, LogicalBlockSize::Lb512),
        (FatType::Fat16, 32, LogicalBlockSize::Lb4096),
    ] {
        let disk = DiskRecipe {
            fat,
            esp_mebibytes,
            block,
            ..debian()
        }
        .build();
        let boot = BootDisk::new("disk.img", Cursor::new(&disk)).unwrap();
        let initrd = boot.plan().unwrap().initrds.pop().unwrap();
        assert_eq!(read_file(&boot, &initrd), vec![2; 70_000], "{fat:?} {block:?}");
    }
}

#[test]
fn a_disk_whose_first_sectors_are_lost_is_read_by_its_backup_table() {
    let mut disk = debian().build();
    disk[..17 * 1024].fill(0);
    assert_eq!(plan(&disk).unwrap().entry_id, "debian-6.1.0-50-amd64.conf");
}

#[test]
fn an_entry_naming_a_missing_kernel_is_refused_by_name() {
    let disk = DiskRecipe::default()
        .with("loader/entries/a.conf", "linux /gone\n")
        .build();
    let text = refusal(&disk);
    assert!(
        text.contains("a.conf (it names \\gone, which is missing)") && text.contains("passes over all"),
        "{text}"
    );
}

#[test]
fn an_entry_naming_a_missing_initrd_is_refused_by_name() {
    let text = refusal(&DiskRecipe::default().entry("a.conf", "initrd /lost.img").build());
    assert!(
        text.contains("would start esp:a.conf, but it names the initrd \\lost.img, which is missing"),
        "{text}"
    );
}

#[test]
fn an_efi_program_as_the_default_is_left_to_firmware() {
    let disk = DiskRecipe::default()
        .with("loader/entries/a.conf", "efi /memtest.efi\n")
        .with("memtest.efi", "MZ");
    let text = refusal(&disk.build());
    assert!(
        text.contains("\\memtest.efi") && text.contains("--firmware"),
        "{text}"
    );
}

#[test]
fn a_disk_without_a_table_is_refused_by_name() {
    let text = refusal(&vec![0; 1 << 20]);
    assert!(
        text.contains("no partition table;") && text.contains("--kernel"),
        "{text}"
    );
    assert!(refusal(&[]).contains("no partition table"));
    let mut mbr = vec![0; 1 << 20];
    mbr[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert!(refusal(&mbr).contains("only boot code"));
}

#[test]
fn a_disk_without_an_esp_is_refused_by_name() {
    let mut disk = vec![0; 4 << 20];
    partition(
        &mut disk,
        LogicalBlockSize::Lb512,
        partition_types::LINUX_FS,
        1 << 20,
    );
    let text = refusal(&disk);
    assert!(
        text.contains("none of its 1 partitions is an EFI system partition"),
        "{text}"
    );
}

#[test]
fn an_esp_that_is_not_fat_is_refused_by_name() {
    let mut disk = vec![0; 4 << 20];
    partition(&mut disk, LogicalBlockSize::Lb512, partition_types::EFI, 1 << 20);
    let text = refusal(&disk);
    assert!(
        text.contains("EFI system partition cannot be read: no FAT boot sector"),
        "{text}"
    );
}

#[test]
fn an_esp_without_an_entry_is_refused_and_says_what_is_there_instead() {
    assert!(
        refusal(&DiskRecipe::default().with("EFI/x", "").build())
            .contains("no entry that a boot loader would show;")
    );
    let windows = DiskRecipe::default().with("EFI/Microsoft/Boot/bootmgfw.efi", "MZ");
    assert!(refusal(&windows.build()).contains("its EFI folder has Microsoft"));
    let grub = DiskRecipe::default().with("EFI/debian/grub.cfg", "set x=1");
    assert!(refusal(&grub.build()).contains("(hd0,gpt1)/EFI/debian/grub.cfg leads to no menu"));
}

#[test]
fn an_extended_partition_that_cannot_be_read_is_named_since_it_may_hold_the_entries() {
    let mut disk = DiskRecipe::default().build();
    let config = gpt::GptConfig::new().writable(true);
    let mut table = config.open_from_device(Cursor::new(&mut disk[..])).unwrap();
    table
        .add_partition_at("XBOOTLDR", 2, 6200, 8, partition_types::FREEDESK_BOOT, 0)
        .unwrap();
    table.write().unwrap();
    let text = refusal(&disk);
    assert!(
        text.contains("(XBOOTLDR) cannot be read: no FAT boot sector"),
        "{text}"
    );
}

#[test]
fn a_path_or_an_initrd_list_without_end_is_refused() {
    let deep = format!("linux {}x\n", "/loader/..".repeat(40));
    assert!(
        refusal(&DiskRecipe::default().with("loader/entries/a.conf", deep).build())
            .contains("32 directories")
    );
    let many = DiskRecipe::default().entry("a.conf", &"initrd /vmlinuz\n".repeat(65));
    assert!(refusal(&many.build()).contains("more than 64 initrds"));
}

#[test]
fn too_many_entries_and_too_large_files_are_refused() {
    let large = DiskRecipe::default().entry("a.conf", &"options x\n".repeat(7000));
    assert!(refusal(&large.build()).contains("more than 64 KiB"));
    let files = (0..513)
        .map(|i| (format!("loader/entries/{i}.conf"), b"linux /x".to_vec()))
        .collect();
    assert!(
        refusal(
            &DiskRecipe {
                files,
                ..DiskRecipe::default()
            }
            .build()
        )
        .contains("more than 512")
    );
}

#[test]
fn a_path_that_is_no_disk_is_refused_by_name() {
    let missing = BootDisk::open(std::path::Path::new("/nonexistent/disk.img"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("/nonexistent/disk.img: cannot be opened"),
        "{missing}"
    );
    for path in ["/", "/dev/null"] {
        let other = BootDisk::open(std::path::Path::new(path))
            .unwrap_err()
            .to_string();
        assert!(other.contains("neither a file nor a block device"), "{other}");
    }
}
