//! An ext2, ext3 or ext4 file system beside a sound ESP whose GRUB reads its configuration there.
#![no_main]

mod disk;

use std::io::{Cursor, Read};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pellucid_image::BootDisk;

static DISK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let stub = b"set root=hd0,gpt2\nconfigfile ($root)/boot/grub/grub.cfg";
    disk::disk(&[("EFI/debian/grub.cfg", stub)], ROOM)
});

fuzz_target!(|bytes: &[u8]| {
    let mut disk = DISK.clone();
    let size = bytes.len().min(ROOM);
    disk[disk::SECOND..disk::SECOND + size].copy_from_slice(&bytes[..size]);
    let disk = BootDisk::new("fuzz", Cursor::new(disk)).expect("the disk is sound");
    let Ok(plan) = disk.plan() else { return };
    for file in [&plan.kernel].into_iter().chain(&plan.initrds) {
        if let Ok(Some(mut file)) = disk.open_file(file) {
            let read = (&mut file).take(1 << 20).read_to_end(&mut Vec::new());
            let size = file.size().min(1 << 20);
            assert_eq!(read.expect("an opened file lies on the disk") as u64, size);
        }
    }
});

const ROOM: usize = 128 << 10;
