//! File systems made by mkfs.ext4 and changed by debugfs, read as a boot reads them; and damaged ones.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use pellucid_image::{BootDisk, BootFile, Volume};
use proptest::prelude::*;
use support::DiskRecipe;
use support::tools::run;
use tempfile::TempDir;

/// A disk whose GRUB reads its configuration on the second partition, which has this file system.
fn disk(system: &[u8]) -> Vec<u8> {
    let stub = "set root=hd0,gpt2\nconfigfile ($root)/boot/grub/grub.cfg";
    let esp = DiskRecipe::default().with("EFI/debian/grub.cfg", stub);
    support::with_second(&esp, system)
}

fn open(disk: &[u8]) -> BootDisk<Cursor<&[u8]>> {
    BootDisk::new("disk.img", Cursor::new(disk)).unwrap()
}

/// The content of a file on the second partition.
fn content(disk: &BootDisk<Cursor<&[u8]>>, path: &str) -> Option<Vec<u8>> {
    let file = BootFile::new(Volume::Partition(2), path);
    disk.open_file(&file).unwrap()?;
    Some(support::read_file(disk, &file))
}

fn bytes(size: usize, seed: usize) -> Vec<u8> {
    (0..size).map(|i| (i.wrapping_mul(i + seed) >> 5) as u8).collect()
}

const CONFIGURATION: &str =
    "menuentry Debian { linux /boot/vmlinuz root=/dev/sda2; initrd /boot/initrd.img }";

/// A root directory as a server has it, in a folder of the host.
fn tree(directory: &TempDir) -> PathBuf {
    let root = directory.path().join("root");
    for folder in ["boot/grub", "many", "usr/lib/deep/er"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::write(root.join("boot/grub/grub.cfg"), CONFIGURATION).unwrap();
    std::fs::write(root.join("boot/vmlinuz-6.1"), bytes(3_000_001, 1)).unwrap();
    std::fs::write(root.join("boot/initrd.img-6.1"), bytes(5_000_003, 2)).unwrap();
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, root.join(name)).unwrap();
    link("vmlinuz-6.1", "boot/vmlinuz");
    link(
        "/usr/lib/deep/er/../../../../boot/./initrd.img-6.1",
        "boot/initrd.img",
    );
    link("loop", "loop");
    link(&format!("/usr/{}lib/deep", "./".repeat(40)), "long");
    for i in 0..700 {
        std::fs::write(
            root.join(format!("many/a file with a name that is not short {i}")),
            format!("{i}"),
        )
        .unwrap();
    }
    let mut sparse = bytes(2_000_000, 3);
    sparse[100_000..1_500_000].fill(0);
    std::fs::write(root.join("sparse"), &sparse).unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    root
}

/// The tree as a file system of 48 MiB; `None` without the tool.
fn system(directory: &TempDir, options: &[&str]) -> Option<PathBuf> {
    let root = tree(directory);
    let image = directory.path().join("system.img");
    std::fs::File::create(&image).unwrap().set_len(48 << 20).unwrap();
    let arguments = [
        options,
        &["-q", "-F", "-d", root.to_str().unwrap(), image.to_str().unwrap()],
    ]
    .concat();
    run("mkfs.ext4", &arguments).then_some(image)
}

/// Runs one command of debugfs on the image, which it may change.
fn debugfs(image: &Path, command: &str) -> String {
    let output = Command::new("debugfs")
        .args(["-w", "-R", command])
        .arg(image)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn files_are_read_from_every_kind_of_file_system() {
    for options in [
        &["-b", "4096"][..],
        &["-b", "1024"],
        &["-t", "ext3", "-b", "1024"],
        &["-t", "ext2", "-b", "4096"],
        &["-O", "^metadata_csum,64bit", "-b", "2048"],
        &["-O", "^64bit,^flex_bg,^dir_index", "-I", "128"],
        &["-b", "4096", "-G", "1", "-O", "large_dir"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let Some(image) = system(&directory, options) else {
            return;
        };
        let disk = disk(&std::fs::read(&image).unwrap());
        let boot = open(&disk);
        let plan = boot.plan().unwrap();
        assert_eq!(
            plan.command_line, "BOOT_IMAGE=/boot/vmlinuz root=/dev/sda2",
            "{options:?}"
        );
        assert_eq!(plan.menu.warnings, Vec::<String>::new(), "{options:?}");
        assert!(
            support::read_file(&boot, &plan.kernel) == bytes(3_000_001, 1),
            "{options:?}"
        );
        assert!(
            support::read_file(&boot, &plan.initrds[0]) == bytes(5_000_003, 2),
            "{options:?}"
        );
        let root = directory.path().join("root");
        for path in [
            "/sparse",
            "/empty",
            "/many/a file with a name that is not short 699",
            "//boot//../boot/grub/grub.cfg",
        ] {
            let expected = std::fs::read(root.join(path.trim_start_matches('/'))).unwrap();
            assert!(content(&boot, path).unwrap() == expected, "{options:?} {path}");
        }
        for path in ["/nothing", "/boot", "/boot/vmlinuz/x", "/BOOT/vmlinuz", ""] {
            assert!(content(&boot, path).is_none(), "{options:?} {path}");
        }
        let circle = boot
            .open_file(&BootFile::new(Volume::Partition(2), "/loop"))
            .unwrap_err()
            .to_string();
        assert!(circle.contains("more than 8 symbolic links"), "{circle}");
    }
}

#[test]
fn a_file_in_many_pieces_is_read_whole() {
    for kind in ["ext4", "ext2"] {
        let directory = tempfile::tempdir().unwrap();
        let Some(image) = system(&directory, &["-t", kind, "-b", "1024"]) else {
            return;
        };
        // Every second small file goes, then one takes all of their blocks.
        for i in (0..700).step_by(2) {
            debugfs(
                &image,
                &format!("rm \"/many/a file with a name that is not short {i}\""),
            );
            if i > 120 {
                break;
            }
        }
        let large = directory.path().join("large");
        std::fs::write(&large, bytes(9_000_000, 4)).unwrap();
        debugfs(&image, &format!("write {} /boot/large", large.display()));
        let disk = disk(&std::fs::read(&image).unwrap());
        assert!(
            content(&open(&disk), "/boot/large").unwrap() == bytes(9_000_000, 4),
            "{kind}"
        );
    }
}

#[test]
fn what_only_the_journal_has_is_read_from_it() {
    for (options, checksum) in [
        (&["-b", "4096"][..], "3"),
        (&["-b", "1024", "-O", "^64bit"], "2"),
        (&["-b", "4096", "-O", "^metadata_csum"], "0"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let Some(image) = system(&directory, options) else {
            return;
        };
        let newer = CONFIGURATION.replace("/dev/sda2", "/dev/sda7");
        let (block, script) = (directory.path().join("block"), directory.path().join("script"));
        let size: usize = options[1].parse().unwrap();
        let mut padded = newer.clone().into_bytes();
        padded.resize(size, b'\n');
        std::fs::write(&block, &padded).unwrap();
        let place = debugfs(&image, "blocks /boot/grub/grub.cfg");
        let place = place.trim();
        // The file's size is in its inode and stays: the new text is as long as the old one.
        assert_eq!(newer.len(), CONFIGURATION.len());
        let enable = if checksum == "0" {
            "jo".to_owned()
        } else {
            format!("jo -c -v {checksum}")
        };
        let text = format!("{enable}\njw -b {place} {}\njc\n", block.display());
        std::fs::write(&script, text).unwrap();
        let output = Command::new("debugfs")
            .args(["-w", "-f"])
            .arg(&script)
            .arg(&image)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let bytes = std::fs::read(&image).unwrap();
        let raw = disk(&bytes);
        let plan = open(&raw).plan().unwrap();
        assert!(
            plan.command_line.contains("/dev/sda7"),
            "{options:?}: {} {:?} {output:?}",
            plan.command_line,
            plan.menu.warnings
        );
        assert_eq!(plan.menu.warnings, Vec::<String>::new());
        // Revoked by a later transaction, the block is what it was.
        let text = format!("jo\njw -r {place}\njc\n");
        std::fs::write(&script, text).unwrap();
        let output = Command::new("debugfs")
            .args(["-w", "-f"])
            .arg(&script)
            .arg(&image)
            .output()
            .unwrap();
        let raw = disk(&std::fs::read(&image).unwrap());
        let plan = open(&raw).plan().unwrap();
        assert!(
            plan.command_line.contains("/dev/sda2"),
            "{options:?}: {} {output:?}",
            plan.command_line
        );
    }
}

/// A small file system with one entry, made once; `None` without the tool.
fn small() -> Option<&'static [u8]> {
    static IMAGE: std::sync::OnceLock<Option<Vec<u8>>> = std::sync::OnceLock::new();
    let made = IMAGE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("boot/grub")).unwrap();
        std::fs::write(root.join("boot/grub/grub.cfg"), CONFIGURATION).unwrap();
        std::fs::write(root.join("boot/vmlinuz"), bytes(20_000, 1)).unwrap();
        std::fs::write(root.join("boot/initrd.img"), bytes(30_000, 1)).unwrap();
        let image = directory.path().join("system.img");
        std::fs::File::create(&image).unwrap().set_len(512 << 10).unwrap();
        let options = [
            "-q",
            "-F",
            "-b",
            "1024",
            "-N",
            "32",
            "-O",
            "^has_journal,^resize_inode",
            "-d",
        ];
        let arguments = [&options[..], &[root.to_str().unwrap(), image.to_str().unwrap()]].concat();
        run("mkfs.ext4", &arguments).then(|| std::fs::read(&image).unwrap())
    });
    made.as_deref()
}

/// Reads everything that a boot would read.
fn boot(system: &[u8]) {
    let disk = disk(system);
    let boot = open(&disk);
    let Ok(plan) = boot.plan() else { return };
    for file in [&plan.kernel].into_iter().chain(&plan.initrds) {
        if let Ok(Some(mut file)) = boot.open_file(file) {
            let _ = std::io::Read::read(&mut file, &mut [0; 70_000]);
        }
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let Some(good) = small() else { return };
    let base = 1024;
    for (at, value) in [
        (24, 7u32),
        (24, u32::MAX),
        (4, u32::MAX),
        (4, 0),
        (32, 0),
        (40, 0),
        (20, u32::MAX),
        (88, 0),
        (88, 0xffff),
        (96, u32::MAX),
        (254, 0x1234),
    ] {
        let mut bad = good.to_vec();
        bad[base + at..base + at + 4].copy_from_slice(&value.to_le_bytes());
        let disk = disk(&bad);
        let text = open(&disk).plan().unwrap_err().to_string();
        assert!(
            text.contains("partition 2 cannot be read")
                || text.contains("is not there")
                || text.contains("cannot be"),
            "{at}: {text}"
        );
    }
}

#[test]
fn maps_that_lead_nowhere_and_back_are_refused_soon() {
    let Some(good) = small() else { return };
    let before = std::time::Instant::now();
    // Every tree of extents in the tables of inodes becomes one of depth 5 whose children are the same block.
    let mut bad = good.to_vec();
    let node = |depth: u16, entries: u16| -> Vec<u8> {
        let mut node = vec![0x0a, 0xf3];
        node.extend(entries.to_le_bytes());
        node.extend([84, 0]);
        node.extend(depth.to_le_bytes());
        node.resize(12, 0);
        for _ in 0..entries {
            node.extend([0, 0, 0, 0]);
            node.extend((300 - u32::from(depth)).to_le_bytes());
            node.extend([0; 4]);
        }
        node
    };
    for at in (0..bad.len() - 60).step_by(4) {
        if bad[at..at + 2] == [0x0a, 0xf3] {
            let root = node(5, 4);
            bad[at..at + root.len()].copy_from_slice(&root);
        }
    }
    for depth in 0..5u16 {
        let place = (300 - usize::from(depth) - 1) * 1024;
        let child = node(depth, if depth == 0 { 0 } else { 84 });
        bad[place..place + child.len()].copy_from_slice(&child);
    }
    let disk = disk(&bad);
    let text = open(&disk).plan().unwrap_err().to_string();
    assert!(text.contains("map has more blocks"), "{text}");
    assert!(
        before.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        before.elapsed()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn a_damaged_file_system_is_read_or_refused(changes in prop::collection::vec((0usize..80 * 1024, any::<u8>()), 1..40)) {
        let Some(good) = small() else { return Ok(()) };
        let mut bad = good.to_vec();
        for (at, value) in changes {
            bad[at] = value;
        }
        boot(&bad);
    }
}
