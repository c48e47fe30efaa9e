//! An initrd: archives one behind the other, plain or compressed.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use pellucid_image::{InitrdModules, Presence, SourceFile};

fuzz_target!(|bytes: &[u8]| {
    let file = SourceFile::new("fuzz", bytes.len() as u64, Cursor::new(bytes));
    let modules = InitrdModules::survey(&mut [file], &[]);
    let presence = modules.presence("nvme");
    assert!(modules.unread().is_none() || presence != Presence::Missing);
});
