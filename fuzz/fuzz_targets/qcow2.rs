//! A qcow2 image: refused, or a disk that can be read anywhere, with the same bytes each time.
#![no_main]

use std::io::{Cursor, Read, Seek, SeekFrom};

use libfuzzer_sys::fuzz_target;
use pellucid_image::{BootDisk, DiskImage};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut disk) = DiskImage::new(Cursor::new(bytes)) else {
        return;
    };
    let size = disk.seek(SeekFrom::End(0)).expect("a disk has an end");
    for eighth in 0..8 {
        let place = size / 8 * eighth;
        let piece = |disk: &mut DiskImage<Cursor<&[u8]>>| {
            let mut data = [0; 700];
            disk.seek(SeekFrom::Start(place)).ok()?;
            let read = disk.read(&mut data).ok()?;
            Some(data[..read].to_vec())
        };
        let first = piece(&mut disk);
        assert_eq!(first, piece(&mut disk));
    }
    if let Ok(boot) = BootDisk::new("fuzz", disk) {
        let _ = boot.plan();
    }
});
