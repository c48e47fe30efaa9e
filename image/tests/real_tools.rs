//! Disks made by the tools that make real ones: sgdisk, mkfs.vfat and mtools. Without them these tests say so and pass.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use pellucid_image::{BootDisk, compare_versions};
use pellucid_partition::Layout;
use support::machine::Machine;
use support::tools::run;
use support::{read_all, read_file, small_kernel};
use tempfile::TempDir;

/// A server's disk: swap first, then an ESP with `files`, formatted as `format` says. `None` without the tools.
fn server_disk(directory: &TempDir, format: &[&str], files: &[(&str, &[u8])]) -> Option<PathBuf> {
    let (disk, esp) = (
        directory.path().join("disk.img"),
        directory.path().join("esp.img"),
    );
    std::fs::File::create(&disk).unwrap().set_len(100 << 20).unwrap();
    std::fs::File::create(&esp).unwrap().set_len(64 << 20).unwrap();
    let name = |path: &Path| path.to_str().unwrap().to_owned();
    let table = [
        "-n",
        "1:0:+8M",
        "-t",
        "1:8200",
        "-n",
        "2:0:+64M",
        "-t",
        "2:ef00",
        &name(&disk),
    ];
    if !run("sgdisk", &table) || !run("mkfs.vfat", &[format, &[&name(&esp)]].concat()) {
        return None;
    }
    let mut made = Vec::new();
    for (path, content) in files {
        let file = directory.path().join("content");
        std::fs::write(&file, content).unwrap();
        for parent in Path::new(path)
            .ancestors()
            .skip(1)
            .filter(|p| !p.as_os_str().is_empty())
            .collect::<Vec<_>>()
            .iter()
            .rev()
        {
            if !made.contains(&parent.to_path_buf()) {
                if !run("mmd", &["-i", &name(&esp), &format!("::{}", parent.display())]) {
                    return None;
                }
                made.push(parent.to_path_buf());
            }
        }
        run("mcopy", &["-i", &name(&esp), &name(&file), &format!("::{path}")]);
    }
    let mut target = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
    target.seek(SeekFrom::Start(9 << 20)).unwrap();
    target.write_all(&std::fs::read(&esp).unwrap()).unwrap();
    Some(disk)
}

const ENTRY: &str = "title Debian\nversion 6.1.0-50-amd64\nlinux /Debian/linux\ninitrd /debian/initrd.img-6.1.0-50-amd64\noptions ro";

fn files(initrd: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "loader/entries/0123456789abcdef0123456789abcdef-6.1.0-50-amd64.conf",
            ENTRY.as_bytes().to_vec(),
        ),
        ("loader/loader.conf", b"default 0123*\n".to_vec()),
        ("debian/linux", small_kernel()),
        ("debian/initrd.img-6.1.0-50-amd64", initrd.to_vec()),
    ]
}

#[test]
fn a_disk_made_by_the_real_tools_boots_in_every_fat_width() {
    let initrd: Vec<u8> = (0..3_000_001u32).map(|i| (i * 7 % 253) as u8).collect();
    let files = files(&initrd);
    let borrowed: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, content)| (*path, &content[..]))
        .collect();
    for format in [
        &["-F", "12", "-s", "64"][..],
        &["-F", "16"],
        &["-F", "32", "-s", "1"],
        &["-F", "16", "-S", "4096"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let Some(path) = server_disk(&directory, format, &borrowed) else {
            return;
        };
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        let disk = BootDisk::open(&path).unwrap();
        let plan = disk.plan().unwrap();
        assert_eq!(
            plan.command_line, "initrd=\\debian\\initrd.img-6.1.0-50-amd64 ro",
            "{format:?}"
        );
        assert_eq!(read_file(&disk, &plan.initrds[0]), initrd, "{format:?}");
        let machine = Machine::of(64);
        disk.linux(&plan)
            .unwrap()
            .load(&machine.memory, &machine.layout)
            .unwrap();
        assert_eq!(machine.bytes(Layout::COMMAND_LINE.0, 8), b"initrd=\\");
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
    }
}

#[test]
fn fragmented_files_are_read_as_fatfs_reads_them() {
    let directory = tempfile::tempdir().unwrap();
    let filler: Vec<(String, Vec<u8>)> = (0..60).map(|i| (format!("f{i}"), vec![i as u8; 3000])).collect();
    let borrowed: Vec<(&str, &[u8])> = filler
        .iter()
        .map(|(path, content)| (path.as_str(), &content[..]))
        .collect();
    let Some(path) = server_disk(&directory, &["-F", "32", "-s", "1"], &borrowed) else {
        return;
    };
    // Every second file goes, then one file fills the holes.
    let esp = directory.path().join("esp.img").to_str().unwrap().to_owned();
    for i in (0..60).step_by(2) {
        run("mdel", &["-i", &esp, &format!("::f{i}")]);
    }
    let content: Vec<u8> = (0..900_000u32).map(|i| (i * 13 % 251) as u8).collect();
    let file = directory.path().join("content");
    std::fs::write(&file, &content).unwrap();
    run(
        "mcopy",
        &["-i", &esp, file.to_str().unwrap(), "::large name with blanks.bin"],
    );
    let mut target = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    target.seek(SeekFrom::Start(9 << 20)).unwrap();
    target.write_all(&std::fs::read(&esp).unwrap()).unwrap();

    let disk = BootDisk::open(&path).unwrap();
    let opened = disk.file("\\LARGE name with blanks.bin").unwrap().unwrap();
    assert!(!format!("{opened:?}").contains("fragments: 1 "), "{opened:?}");
    assert_eq!(read_all(opened), content);
    let image = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&esp)
        .unwrap();
    let oracle = fatfs::FileSystem::new(image, fatfs::FsOptions::new()).unwrap();
    let mut expected = Vec::new();
    oracle
        .root_dir()
        .open_file("large name with blanks.bin")
        .unwrap()
        .read_to_end(&mut expected)
        .unwrap();
    assert_eq!(expected, content);
}

/// systemd's stub with sections added by objcopy, as its documentation makes a unified kernel image.
#[test]
fn an_image_made_from_systemds_stub_boots_what_was_put_in() {
    let stub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
    if !Path::new(stub).exists() {
        eprintln!("{stub} is missing: nothing was shown here (package systemd-boot-efi)");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let initrd: Vec<u8> = (0..300_001u32).map(|i| (i * 7 % 253) as u8).collect();
    let parts: [(&str, &[u8], u64); 4] = [
        ("osrel", b"ID=debian\nPRETTY_NAME=\"Debian 12\"\n", 0x2_0000),
        ("cmdline", b"root=/dev/nvme0n1p2 ro\n", 0x3_0000),
        ("linux", &small_kernel(), 0x200_0000),
        ("initrd", &initrd, 0x300_0000),
    ];
    let mut arguments = Vec::new();
    for (name, content, address) in parts {
        std::fs::write(path(name), content).unwrap();
        arguments.extend(["--add-section".to_owned(), format!(".{name}={}", path(name))]);
        arguments.extend(["--change-section-vma".to_owned(), format!(".{name}={address:#x}")]);
    }
    arguments.extend([stub.to_owned(), path("debian.efi")]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if !run("objcopy", &arguments) {
        return;
    }
    let image = std::fs::read(path("debian.efi")).unwrap();
    let files: [(&str, &[u8]); 1] = [("EFI/Linux/debian.efi", &image)];
    let Some(disk) = server_disk(&directory, &["-F", "32", "-s", "1"], &files) else {
        return;
    };
    let disk = BootDisk::open(&disk).unwrap();
    let plan = disk.plan().unwrap();
    assert_eq!(
        (plan.title.as_str(), plan.command_line.as_str()),
        ("Debian 12", "root=/dev/nvme0n1p2 ro")
    );
    assert_eq!(read_file(&disk, &plan.kernel), small_kernel());
    assert_eq!(read_file(&disk, &plan.initrds[0]), initrd);
    let machine = Machine::of(64);
    let linux = disk.linux(&plan).unwrap();
    linux.load(&machine.memory, &machine.layout).unwrap();

    // The boot loader beside it says its name in the same way.
    let loader = std::fs::read("/usr/lib/systemd/boot/efi/systemd-bootx64.efi").unwrap();
    let files: [(&str, &[u8]); 1] = [("EFI/BOOT/BOOTX64.EFI", &loader)];
    let other = tempfile::tempdir().unwrap();
    let Some(disk) = server_disk(&other, &["-F", "16"], &files) else {
        return;
    };
    let text = BootDisk::open(&disk).unwrap().plan().unwrap_err().to_string();
    assert!(text.contains("it is systemd-boot 25"), "{text}");
}

/// systemd's own comparison, where this machine has it.
#[test]
fn versions_compare_as_systemd_compares_them() {
    let versions = [
        "",
        "~1",
        "0",
        "1~rc1",
        "1",
        "1.0",
        "1.1",
        "1^1",
        "1-2",
        "01.2",
        "6.1.0-9",
        "6.1.0-10",
        "6.1.0-10-amd64",
        "6.1.0_x",
        "a",
        "aa",
        "A",
        "z",
        "12_y",
        "debian-6.1.conf",
        "debian-6.10.conf",
        "5.10.0-8-amd64",
        "5.9.1+3-1.conf",
        "1.",
        "1..2",
        "1-.2",
    ];
    let pairs = versions
        .iter()
        .enumerate()
        .flat_map(|(i, a)| versions[i..].iter().map(move |b| (a, b)));
    for (a, b) in pairs {
        let Ok(output) = Command::new("systemd-analyze")
            .args(["compare-versions", a, b])
            .output()
        else {
            eprintln!("systemd-analyze is not installed: nothing was compared with it");
            return;
        };
        let expected = match output.status.code() {
            Some(0) => std::cmp::Ordering::Equal,
            Some(11) => std::cmp::Ordering::Greater,
            Some(12) => std::cmp::Ordering::Less,
            code => panic!("systemd-analyze compare-versions {a:?} {b:?} ended with {code:?}: {output:?}"),
        };
        assert_eq!(
            (compare_versions(a, b), compare_versions(b, a)),
            (expected, expected.reverse()),
            "{a:?} and {b:?}"
        );
    }
}
