//! Which drivers an initrd has: read from archives of every kind that is unpacked here, as the tools make them.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use pellucid_image::{InitrdModules, Presence, StorageController};

use support::initrd::{TREE, archive, main_archive, survey};

/// What all initrds with the main archive somewhere in them say.
#[track_caller]
fn is_whole(modules: &InitrdModules) {
    assert_eq!(modules.unread(), None);
    let answers = ["nvme", "nvme_core", "ahci", "sd_mod", "virtio_blk"].map(|name| modules.presence(name));
    use Presence::{BuiltIn, Missing, Module};
    assert_eq!(answers, [Module, Module, Module, BuiltIn, Missing]);
}

/// `None` when this machine does not have the tool.
fn packed(tool: &str, arguments: &[&str], content: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("{tool} is not installed: nothing was shown of it");
        return None;
    };
    let mut input = child.stdin.take().unwrap();
    let content = content.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&content).unwrap());
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success(), "{tool}");
    Some(output)
}

#[test]
fn plain_archives_are_read_in_one_file_or_in_several() {
    let microcode = archive(&[("kernel/x86/microcode/GenuineIntel.bin", &[1; 70_000])]);
    is_whole(&survey(&[&main_archive()], &[]));
    is_whole(&survey(&[&microcode, &main_archive()], &[]));
    is_whole(&survey(&[&[microcode.clone(), main_archive()].concat()], &[]));
    for zeros in [4, 65_532, 65_536 * 3 - 4] {
        let padded = [microcode.clone(), vec![0; zeros], main_archive()].concat();
        is_whole(&survey(&[&padded], &[]));
    }
}

#[test]
fn compressed_archives_are_read_behind_early_ones() {
    let microcode = archive(&[("kernel/x86/microcode/AuthenticAMD.bin", &[1; 5000])]);
    for (tool, arguments) in [
        ("gzip", &["-n"][..]),
        ("zstd", &["-19"]),
        ("zstd", &["-1", "--no-check"]),
        ("xz", &["--check=crc32", "-9"]),
        ("xz", &["--check=crc32", "--lzma2=dict=1MiB"]),
    ] {
        let Some(compressed) = packed(tool, arguments, &main_archive()) else {
            continue;
        };
        is_whole(&survey(&[&compressed], &[]));
        let mut several = [microcode.clone(), compressed.clone()].concat();
        several.resize(several.len().next_multiple_of(4), 0);
        is_whole(&survey(&[&several], &[]));
        // What comes behind a compressed archive is read too.
        let behind = archive(&[(&format!("{TREE}/kernel/x/virtio_blk.ko"), b"")]);
        let modules = survey(&[&[several, behind].concat()], &[]);
        assert_eq!(
            modules.presence("virtio_blk"),
            Presence::Module,
            "{tool}: {modules:?}"
        );
    }
}

#[test]
fn an_archive_that_cpio_made_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join(TREE);
    std::fs::create_dir_all(tree.join("kernel/drivers/nvme/host")).unwrap();
    std::fs::create_dir_all(tree.join("kernel/drivers/ata")).unwrap();
    for name in ["nvme/host/nvme.ko", "nvme/host/nvme-core.ko", "ata/ahci.ko"] {
        std::fs::write(tree.join("kernel/drivers").join(name), [7; 1001]).unwrap();
    }
    std::fs::write(tree.join("modules.builtin"), "kernel/drivers/scsi/sd_mod.ko\n").unwrap();
    std::os::unix::fs::symlink("usr/lib", directory.path().join("lib")).unwrap();
    let script = format!(
        "cd '{}' && find . | cpio --quiet -o -H newc",
        directory.path().display()
    );
    if Command::new("cpio").arg("--version").output().is_err() {
        eprintln!("cpio is not installed: nothing was shown of it");
        return;
    }
    let archive = packed("sh", &["-c", &script], b"").unwrap();
    is_whole(&survey(&[&archive], &[]));
    let zstd = packed("zstd", &["-3"], &archive);
    zstd.iter().for_each(|packed| is_whole(&survey(&[packed], &[])));
}

#[test]
fn an_initrd_without_modules_says_nothing_of_drivers() {
    let modules = survey(&[&archive(&[("init", b"x")])], &[]);
    assert_eq!(
        (modules.unread(), modules.presence("nvme")),
        (None, Presence::Unknown)
    );
    assert_eq!(survey(&[], &[]).presence("nvme"), Presence::Unknown);
    let unlisted = survey(&[&archive(&[("lib/modules/6/kernel/a.ko", b"")])], &[]);
    assert_eq!(unlisted.presence("nvme"), Presence::Unknown, "it may be built in");
}

#[test]
fn reading_ends_when_enough_was_found() {
    let cut = [&main_archive()[..main_archive().len() - 900], &[0xff; 2000]].concat();
    let modules = survey(&[&cut], &["nvme", "nvme_core"]);
    assert_eq!(
        (modules.unread(), modules.presence("nvme")),
        (None, Presence::Module)
    );
    assert!(survey(&[&cut], &["nvme", "virtio_blk"]).unread().is_some());
}

/// What LSI's and Adaptec's controllers need is told by their device ids: one class covers several drivers.
#[test]
fn raid_controllers_of_one_class_have_different_drivers() {
    let drivers = |class, vendor, device| {
        let controller = StorageController {
            class,
            vendor,
            device,
        };
        controller.drivers().first().copied()
    };
    assert_eq!(drivers(0x01_0700, 0x1000, 0x0072), Some("mpt3sas"));
    assert_eq!(drivers(0x01_0400, 0x1000, 0x005d), Some("megaraid_sas"));
    assert_eq!(drivers(0x01_0400, 0x1000, 0x0408), None);
    assert_eq!(drivers(0x01_0400, 0x9005, 0x028f), Some("smartpqi"));
    assert_eq!(drivers(0x01_0400, 0x9005, 0x028d), Some("aacraid"));
}

#[test]
fn controllers_are_known_by_their_ids() {
    let controller = |class, vendor, device| StorageController {
        class,
        vendor,
        device,
    };
    let nvme = controller(0x01_0802, 0x144d, 0xa80a);
    let virtio = controller(0x01_0000, 0x1af4, 0x1042);
    let modules = survey(&[&main_archive()], &[]);
    assert_eq!((nvme.drivers(), nvme.missing(&modules)), (&["nvme"][..], vec![]));
    assert_eq!(
        controller(0x01_0601, 0x8086, 0x2922).missing(&modules),
        Vec::<&str>::new()
    );
    assert_eq!(virtio.missing(&modules), ["virtio_pci", "virtio_blk"]);
    assert_eq!(nvme.to_string(), "NVMe controller 144d:a80a");
    assert!(
        controller(0x01_0700, 0x1234, 1).drivers().is_empty(),
        "not known is not missing"
    );
}
