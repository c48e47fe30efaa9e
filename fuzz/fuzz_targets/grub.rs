//! GRUB's configuration on a sound ESP: a script, an environment block and a loader entry, with a zero byte between them.
#![no_main]

mod disk;

use std::io::Cursor;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pellucid_image::{BootDisk, Choice, Verdict};

/// A disk, and where on it the three files are.
static DISK: LazyLock<(Vec<u8>, [usize; 3])> = LazyLock::new(|| {
    let (script, block, entry) = ([1; SIZES[0]], [2; SIZES[1]], [3; SIZES[2]]);
    let files: &[(&str, &[u8])] = &[
        ("EFI/debian/grub.cfg", &script),
        ("EFI/debian/grubenv", &block),
        ("loader/entries/f-6.1-2.conf", &entry),
        ("a", b"kernel"),
        ("b", b"initrd"),
    ];
    let disk = disk::disk(files, 0);
    let find = |byte: u8| {
        let run = [byte; 512];
        disk.windows(512).position(|window| window == run).expect("the file was written")
    };
    let places = [find(1), find(2), find(3)];
    (disk, places)
});

fuzz_target!(|bytes: &[u8]| {
    let (disk, places) = &*DISK;
    let mut disk = disk.clone();
    let mut parts = bytes.splitn(3, |&byte| byte == 0);
    for (place, size) in places.iter().zip(SIZES) {
        let part = parts.next().unwrap_or_default();
        let file = &mut disk[*place..place + size];
        file.fill(b'\n');
        let length = part.len().min(size);
        file[..length].copy_from_slice(&part[..length]);
    }
    let disk = BootDisk::new("fuzz", Cursor::new(disk)).expect("the disk is sound");
    let Ok(menu) = disk.menu() else { return };
    if let Choice::Entry { index, .. } = menu.choice {
        assert!(index < menu.entries.len());
    }
    for entry in &menu.entries {
        if let Verdict::Boots(files) = &entry.verdict {
            assert!(disk.open_file(&files.kernel).is_ok_and(|file| file.is_some()));
        }
    }
    let _ = disk.plan_of(menu, None);
});

const SIZES: [usize; 3] = [8192, 1024, 1024];
